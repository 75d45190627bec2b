"""The recipe, in its order. Read top to bottom; each step is a function that works alone."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace

from wellfit.config import Config, config_to_toml
from wellfit.engine import available_device
from wellfit.errors import Interrupted, UserError
from wellfit.findings import GateFailed
from wellfit.models.saved import load_model
from wellfit.recipe.combining import combine
from wellfit.recipe.done import done_lines, settle_parts
from wellfit.recipe.fitting import Fitted, train_network
from wellfit.recipe.gates import check
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.model_options import settled_activation
from wellfit.recipe.neighbourhood import look_around
from wellfit.recipe.plan import Plan, load_plan, save_plan
from wellfit.recipe.planning import make_plan
from wellfit.recipe.prepare import Prepared, prepare
from wellfit.recipe.settings import find_settings
from wellfit.recipe.testing import evaluate, save
from wellfit.recipe.transferring import transfer
from wellfit.recipe.viewing import choose_views
from wellfit.record import RunFolder, read_record, write_atomically


def run_recipe(job: Job) -> None:
    """From labelled images to a model, a report and the evidence; what is already in the folder is taken up."""
    data = prepare(job)
    plan = plan_for(job, data)
    material = Material.of(data, plan)
    check(job, material)
    material, fitted = fit(job, material)
    fitted = combine(job, material, fitted)
    job.stop = lambda: False  # what is fitted is evaluated and saved: the end is near, whoever asks to stop
    fitted = choose_views(job, material, fitted)
    save(job, material, fitted)
    module, _ = load_model(job.folder)  # what is judged is what was saved
    module = plan.engine.place(module)
    evaluate(job, material, module)
    if not fitted.interrupted:
        look_around(job, material, module)
    report(job, plan, material, fitted)
    if fitted.interrupted:
        raise Interrupted(f"stopped as asked, evaluated and saved in {job.folder.path}")


def plan_for(job: Job, data: Prepared) -> Plan:
    """The folder's plan where it has one (a resumed run, or --plan); else one made from the measured machine."""
    with job.step("plan") as outcome:
        if job.folder.plan.exists():
            plan = load_plan(job.folder.plan)
            available_device(plan.engine.device)
            outcome.reason = "taken from plan.toml"
        else:
            plan = make_plan(job, data)
            save_plan(job.folder.plan, plan)
            outcome.reason = plan.reasons[-1] if plan.reasons else ""
        job.record.write(
            "plan",
            model=plan.model.name,
            image_size=plan.model.image_size,
            epochs=plan.epochs,
            steps=plan.training.steps,
            batch_size=plan.training.batch_size,
            trials=plan.search.coarse_trials + plan.search.fine_trials,
            parameters=plan.model.parameters,
            engine=plan.engine.line,
            reason="; ".join(plan.reasons),
        )
        return plan


def fit(job: Job, material: Material) -> tuple[Material, Fitted]:
    """Search and train from scratch, or probe and what the probe asks for; the material as it was settled."""
    if material.plan.model.transfer != "probe":
        settings = find_settings(job, material)
        return material, train_network(job, material, settings)
    return transfer(job, material)


def report(job: Job, plan: Plan, material: Material, fitted: Fitted) -> None:
    """Write the outcomes back into plan.toml, what was settled into config.toml, and make the page."""
    settle_parts(job)
    with job.step("report"):
        write_atomically(job.folder.config, config_to_toml(resolved(job.config, material.plan, fitted)))
        # A deadline may have ended the training early: the plan then repeats what was done.
        if fitted.steps and plan.model.transfer != "probe" and not fitted.interrupted:
            plan = plan.replace(training=replace(plan.training, steps=fitted.steps))
        save_plan(job.folder.plan, plan, done_lines(read_record(job.folder.record)))
        if not fitted.interrupted:  # else `end_early` says so
            job.record.write("end", status="done", seconds=job.budget.spent)
        write_report(job.folder)
        if not fitted.interrupted:  # nothing is left to resume
            shutil.rmtree(job.folder.checkpoint.parent, ignore_errors=True)


def write_report(folder: RunFolder) -> None:
    """The page; what draws it is imported when it is drawn, since a training need not wait for it."""
    from wellfit.report import page

    page.write_report(folder)


def _settled_ensemble(config: Config, plan: Plan) -> str:
    if plan.ending.members > 1:
        return str(plan.ending.members)
    # With weights, what is made of them is measured again, and so is the worth of a mean.
    return "auto" if plan.model.transfer == "probe" and config.ensemble == "auto" else "none"


def resolved(config: Config, plan: Plan, fitted: Fitted) -> Config:
    """The configuration with every "auto" settled, so that `wellfit train DATA config.toml` repeats the training."""
    return config.replace(
        **{
            "schedule": plan.schedule,
            "views": fitted.views,
            "ensemble": _settled_ensemble(config, plan),
            "augment": plan.augment or ("none",),
            "activation": settled_activation(plan.model.name, plan.model.options),
            "model.name": plan.model.name,
            "model.weights": plan.model.weights,
            "model.image_size": plan.model.image_size,
            "model.options": plan.model.options,
            "optimizer.name": plan.optimizer.name,
            "optimizer.lr": fitted.settings.lr,
            "optimizer.weight_decay": fitted.settings.weight_decay,
            # With weights, what is made of them is measured again.
            "training.transfer": config.training.transfer if plan.model.transfer == "probe" else "scratch",
            "training.epochs": fitted.steps / plan.training.steps_per_epoch,
            "training.batch_size": plan.training.batch_size,
            "training.batch_scale": 1,  # the size and the rate above hold it already
            "training.label_smoothing": plan.training.label_smoothing,
            "training.balance": fitted.settings.balance,
            "engine.device": plan.engine.device,
            "engine.dtype": plan.engine.dtype,
            "engine.layout": plan.engine.layout,
            "engine.threads": plan.engine.threads,
        }
    )


def end_early(job: Job, error: BaseException) -> None:
    """What is left to do for a run that stops: the record's last line and a page that says why."""
    status = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
    # On a full disk these fail too, and what stopped the run is what is to be said.
    with contextlib.suppress(UserError, OSError):
        if isinstance(error, GateFailed):
            job.report(*(f for f in error.findings if f not in job.findings))
        job.record.write("end", status=status, seconds=job.budget.spent, reason=str(error))
        write_report(job.folder)

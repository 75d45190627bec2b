"""`wellfit search`: check, then coarse to fine until the limit, then the best settings as a configuration (SPEC S1)."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellfit.checks import CheckResult
from wellfit.config import Config, config_to_toml, load_config
from wellfit.engine import CORES
from wellfit.errors import Interrupted, UserError
from wellfit.findings import Finding, GateFailed
from wellfit.recipe.budget import Budget, parse_budget
from wellfit.recipe.gates import check
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.opening import (
    Listener,
    forget_if_empty,
    job_of,
    lasting,
    new_folder,
    refuse_missing,
    run_session,
    spent_before,
    with_known_names,
)
from wellfit.recipe.plan import Plan, save_plan
from wellfit.recipe.prepare import Prepared, prepare
from wellfit.recipe.search_plan import (
    CLOSING,
    identity_of,
    make_schedule,
    make_search_plan,
    measured_speed,
    plan_from_dict,
    plan_to_dict,
    seconds_for_trials,
    starting_space,
    with_folds,
)
from wellfit.recipe.search_request import HIDDEN, SearchRequest, without_password
from wellfit.recipe.search_run import SearchRun
from wellfit.recipe.search_work import CUT_OFF, Orders, concluded, work
from wellfit.recipe.trial_settings import refuse_unfit, with_settings
from wellfit.recipe.workforce import Workforce, choose_workforce, with_threads
from wellfit.record import RunFolder, read_record, write_atomically
from wellfit.report.page import write_report
from wellfit.search.importance import importance
from wellfit.search.schedule import Finished, Schedule
from wellfit.search.space import Space
from wellfit.search.stages import diverged
from wellfit.search.study import NoStudy, Study
from wellfit.search.trial import Trial

DEFAULT_BUDGET = "10m"
MOST_FAILED = 3  # reasons of failed trials that a finding names


def search(
    data: Any,
    space: str | Path | Space | None = None,
    *,
    budget: str | float | None = None,
    trials: int | None = None,
    workers: int | str = "auto",
    storage: str | Path | None = None,
    study: str | None = None,
    sampler: str | None = None,
    folds: int = 0,
    model: str | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    config: Config | None = None,
    force: bool = False,
    command: str = "wellfit.search(…)",
    started: float | None = None,
    listener: Listener | None = None,
) -> SearchRun:
    """Search for settings: coarse, then fine, on the training and validation images; the test split stays closed.

    data: whatever `fit` takes.
    space: a TOML file, or {name: LogUniform | Uniform | Integer | Choice} of `wellfit.search.space`; by default
        learning rate and weight decay around the usual ones.
    budget: "30m" or seconds for the whole command; without it and without `trials`, 10 minutes.
    trials: how many the whole study may have, whoever runs them.
    workers: processes on this machine, or "auto", which measures how many train most together.
    storage, study: "postgresql://USER@HOST/DATABASE" and a name, the same on all machines that take part.
    sampler: "random" (the default, even in the logarithm), "qmc", "tpe" or "grid".
    folds: of cross-validation; 0: five below 500 images, else none.
    config: everything else, as for `fit`; model and seed are its `model.name` and `seed`.
    force: go on where a check fails.

    Raises UserError for bad input, GateFailed where a check fails or no trial finishes, Interrupted when stopped.
    """
    started = time.monotonic() if started is None else started
    given = {"model.name": model, "seed": seed}
    config = (config or Config()).replace(**{key: value for key, value in given.items() if value is not None})
    asked = SearchRequest.of(
        space, trials=trials, workers=workers, storage=storage, study=study, sampler=sampler, folds=folds
    )
    if budget is None and trials is None:
        budget = DEFAULT_BUDGET
    seconds = None if budget is None else parse_budget(budget)
    refuse_missing(data)
    config = with_known_names(config)
    config = config.replace(**{"data.test": lasting(config.data.test)})
    folder = new_folder(out)
    write_atomically(folder.config, config_to_toml(config))
    request = {"data": lasting(data), "budget": seconds, "force": force, "search": asked.as_dict()}
    job = job_of(folder, data, config, Budget(seconds, started), force, listener)
    try:
        _session(job, asked, storage, request, command)
    except UserError:
        forget_if_empty(folder)
        raise
    return SearchRun(folder)


def resume_search(
    folder: RunFolder,
    request: dict[str, Any],
    data: Any,
    *,
    storage: str | None = None,
    started: float,
    listener: Listener | None = None,
) -> SearchRun:
    """Take up a killed or stopped search where it stood. storage: where its address had a password."""
    asked = SearchRequest.from_dict(request["search"])
    if asked.storage is not None and HIDDEN in asked.storage and storage is None:
        raise UserError(
            f"the study of '{folder.path}' is kept in {asked.storage}, whose password is not written down; "
            "give the whole address with --storage"
        )
    spent = spent_before(folder)
    job = job_of(
        folder,
        data,
        load_config(folder.config),
        Budget(request["budget"], started - spent),
        bool(request["force"]),
        listener,
    )
    _session(job, asked, storage or asked.storage, request, f"wellfit resume {folder.path}", spent)
    return SearchRun(folder)


def _session(
    job: Job,
    asked: SearchRequest,
    storage: str | Path | None,
    request: dict[str, Any],
    command: str,
    spent: float = 0.0,
) -> None:
    # A path stays right from any working folder.
    address = str(job.folder.search.absolute() if storage is None else storage)
    run_session(
        job,
        lambda job: run_search(job, asked, address),
        request=request,
        command=without_password(command),
        spent=spent,
    )


def run_search(job: Job, asked: SearchRequest, storage: str) -> None:
    """The search in its order; what the folder or the study holds already is taken up."""
    data = prepare(job)
    begun = _begun(job, asked, storage)
    if begun is None and any(line["kind"] in ("stage", "trial") for line in read_record(job.folder.record)):
        raise UserError(
            f"the trials of '{job.folder.path}' are no longer where they were kept, in "
            f"{asked.storage or job.folder.search.name}; give the right --storage, or begin a new search"
        )
    if begun is not None:
        asked = asked.joining(begun.identity)
    data = with_folds(data, asked.folds)
    identity = identity_of(job, data, asked)
    if begun is not None:  # another study of that name is told before anything is measured
        Study.open(storage, asked.study_name, identity=identity, schedule=begun.founding, say=job.say).close()
    material = Material.of(data, _plan(job, data, begun))
    given = asked.given_space()
    if given is not None:
        refuse_unfit(material, given)
    results = _check(job, material, begun)
    force = _workforce(job, material, asked)
    founding = begun.founding if begun is not None else _founding(job, material, asked, results, force)
    with Study.open(storage, asked.study_name, identity=identity, schedule=founding, say=job.say) as study:
        if study.schedule != founding:  # another worker was quicker
            material = Material.of(data, plan_from_dict(study.schedule["plan"]))
        material = with_threads(material, force.threads)
        until = None if math.isinf(job.budget.left) else time.time() + max(0.0, job.budget.left - CLOSING)
        folder = job.folder.path.absolute()
        begun_at = time.time() - (job.budget.spent - float(study.schedule["spent"]))
        orders = Orders(
            material, folder, storage, asked.study_name, identity, study.schedule, force.workers, CORES, until, begun_at
        )
        with job.step("search") as outcome:
            work(orders, job, study)
            trials = study.trials()
            schedule = Schedule.from_dict(study.schedule["schedule"])
            ended = concluded(schedule, trials)
            outcome.reason = _reason(trials, ended)
    _conclude(job, material, schedule, trials, ended)


@dataclass(frozen=True)
class Begun:
    """A study that is there already: as `Study` has it."""

    identity: dict[str, Any]
    founding: dict[str, Any]


def _begun(job: Job, asked: SearchRequest, storage: str) -> Begun | None:
    try:
        with Study.existing(storage, asked.study_name, say=job.say) as study:
            return Begun(study.identity, study.schedule)
    except NoStudy:
        return None


def _plan(job: Job, data: Prepared, begun: Begun | None) -> Plan:
    with job.step("plan") as outcome:
        if begun is None:
            plan = make_search_plan(job, data)
            outcome.reason = plan.reasons[-1]
        else:
            plan = plan_from_dict(begun.founding["plan"])
            outcome.reason = "that of the study"
        save_plan(job.folder.plan, plan)
        job.record.write(
            "plan",
            model=plan.model.name,
            image_size=plan.model.image_size,
            epochs=None,
            steps=0,
            batch_size=plan.training.batch_size,
            trials=None,
            parameters=plan.model.parameters,
            engine=plan.engine.line,
            reason="; ".join(plan.reasons),
        )
        return plan


def _check(job: Job, material: Material, begun: Begun | None) -> list[CheckResult]:
    if begun is None:
        return check(job, material)
    with job.step("checks") as outcome:
        outcome.skip("passed when the study was begun")
    return []


def _workforce(job: Job, material: Material, asked: SearchRequest) -> Workforce:
    """As many workers as before where the search is taken up again in its folder: threads decide over the last bits."""
    with job.step("workers") as outcome:
        lines = [line for line in read_record(job.folder.record) if line["kind"] == "workers"]
        if lines:
            force = Workforce(**{name: value for name, value in lines[-1].items() if name != "kind"})
            outcome.skip(f"as before: {force.reason}")
        else:
            force = choose_workforce(material, asked.workers, seconds_for_trials(job), job.say)
            job.record.write("workers", **vars(force))
            outcome.reason = force.reason
        return force


def _founding(
    job: Job, material: Material, asked: SearchRequest, results: list[CheckResult], force: Workforce
) -> dict[str, Any]:
    """What a study is begun with: schedule and plan, in plain JSON."""
    space = starting_space(job, material, asked, results)
    schedule = make_schedule(job, material, space, asked, force.images_per_second or measured_speed(job))
    plan = with_threads(material, force.threads).plan
    return json.loads(
        json.dumps({"schedule": schedule.to_dict(), "plan": plan_to_dict(plan), "spent": job.budget.spent})
    )


def _reason(trials: Sequence[Trial], ended: Finished) -> str:
    states = [trial.state for trial in trials]
    counts = [f"{states.count(state)} {state}" for state in ("finished", "pruned", "failed") if state in states]
    text = f"{len(trials)} trials ({', '.join(counts)}): {ended.reason}" if trials else ended.reason
    if ended.best is not None and ended.best.score is not None:
        text += f"; best {ended.best.score:.4f} on validation by trial {ended.best.number}"
    return text


def _conclude(job: Job, material: Material, schedule: Schedule, trials: list[Trial], ended: Finished) -> None:
    """Write down what came of it: trials of other machines, importance, the best settings, the page."""
    known = {line["trial"] for file in (job.folder.record, *job.folder.worker_records()) for line in _trial_lines(file)}
    for trial in trials:
        if trial.number not in known:
            fields = {name: value for name, value in vars(trial).items() if name not in ("number", "score", "loss")}
            job.record.write(
                "trial", trial=trial.number, validation_accuracy=trial.score, validation_loss=trial.loss, **fields
            )
    job.report(*ended.findings, *_findings(trials, ended, len(material.data.classes)))
    shares = importance(schedule.space, trials, schedule.seed)
    if shares is not None:
        job.record.write("importance", shares=shares)
    best = ended.best
    if best is not None:
        job.record.write(
            "best",
            trial=best.number,
            settings=best.settings,
            validation_accuracy=best.score,
            epochs=best.epochs,
            reason=ended.reason,
        )
        write_atomically(job.folder.best, config_to_toml(best_config(job.config, material, best)))
    if job.stop():
        raise Interrupted(
            f"stopped as asked with {len(trials)} trials kept; go on with `wellfit resume {job.folder.path}`"
        )
    if best is None and trials:
        raise GateFailed([_none_finished(trials)])
    if best is None:
        raise UserError("the time was used up before a trial was done; give a larger --budget")
    with job.step("report"):
        job.record.write("end", status="done", seconds=job.budget.spent)
        write_report(job.folder)


def _trial_lines(path: Path) -> list[dict[str, Any]]:
    return [line for line in read_record(path) if line["kind"] == "trial"]


def best_config(config: Config, material: Material, best: Trial) -> Config:
    """The configuration that `wellfit train DATA RUN/best.toml` trains with: what the search settled, and its plan.

    How long, and by which schedule where none was searched, is left to the training.
    """
    plan = with_settings(material, best.settings).plan
    return config.replace(
        **{
            "augment": plan.augment or ("none",),
            "schedule": best.settings.get("schedule", config.schedule),
            "model.name": plan.model.name,
            "model.weights": plan.model.weights,
            "model.image_size": plan.model.image_size,
            "model.options": plan.model.options,
            "activation": "auto",  # stands in the options
            "optimizer.name": plan.optimizer.name,
            "optimizer.lr": plan.optimizer.lr,
            "optimizer.weight_decay": plan.optimizer.weight_decay,
            "optimizer.momentum": plan.optimizer.momentum,
            "training.batch_size": plan.training.batch_size,
            "training.batch_scale": 1,
            "training.label_smoothing": plan.training.label_smoothing,
            "training.l1": plan.training.l1,
            "training.freeze": plan.training.freeze,
            "training.balance": "none" if plan.training.balance == "auto" else plan.training.balance,
        }
    )


def _cut_short(trials: Sequence[Trial], ended: Finished) -> Finding | None:
    """Says that the time ended before anything was refined."""
    stages = list(dict.fromkeys(trial.stage for trial in trials))
    if not ended.reason.startswith(CUT_OFF) or len(stages) != 1 or not stages[0].startswith("coarse"):
        return None
    return Finding(
        "search-cut-short",
        "warning",
        f"the search ended within its coarse stage, after {len(trials)} trials: the best settings are those of short "
        "runs over a wide range, and nothing was refined around them",
        {"stage": stages[0], "trials": len(trials)},
        "Give a larger --budget; on a busy machine trials take longer than was measured beforehand.",
        "SPEC S1",
    )


def _findings(trials: Sequence[Trial], ended: Finished, classes: int) -> list[Finding]:
    found = []
    short = _cut_short(trials, ended)
    if short is not None:
        found.append(short)
    broken = diverged(trials, math.log(classes))
    if broken is not None:
        found.append(broken)
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        reasons = list(dict.fromkeys(trial.reason for trial in failed))
        found.append(
            Finding(
                "failed-trials",
                "warning",
                f"{len(failed)} of {len(trials)} trials failed: {'; '.join(reasons[:MOST_FAILED])}",
                {"failed": [trial.number for trial in failed], "reasons": reasons[:10]},
                "Look at the settings of these trials: what they share is what the network or the optimizer cannot do.",
                "SPEC S3",
            )
        )
    return found


def _none_finished(trials: Sequence[Trial]) -> Finding:
    first = trials[0]
    return Finding(
        "no-trial-finished",
        "error",
        f"none of {len(trials)} trials finished; the first: {first.reason}",
        {"trials": len(trials), "states": sorted({trial.state for trial in trials})},
        "Lower the range of the learning rate by a factor of a hundred, or look at what the trials failed of.",
        "SPEC S3",
    )

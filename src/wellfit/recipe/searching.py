"""`wellfit search`: check, then coarse to fine until the limit, then the best settings as a configuration (SPEC S1)."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellfit.checks import CheckResult
from wellfit.config import Config, config_to_toml, load_config
from wellfit.engine import CORES
from wellfit.errors import UserError
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
from wellfit.recipe.processes import refuse_several
from wellfit.recipe.search_end import conclude, reason_of
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
from wellfit.recipe.search_work import News, Orders, concluded, wait_for_others, work
from wellfit.recipe.trial_settings import refuse_unfit
from wellfit.recipe.workforce import Workforce, choose_workforce, with_threads
from wellfit.record import RunFolder, read_record, write_atomically
from wellfit.report.curves_layouts import keep_layouts
from wellfit.report.page import write_report
from wellfit.search.layouts import compare_layouts
from wellfit.search.schedule import Schedule
from wellfit.search.space import Space
from wellfit.search.study import NoStudy, Study
from wellfit.trackers import check_trackers

DEFAULT_BUDGET = "10m"
DRAWN_FUNCTIONS = 100  # over which the page compares random settings with a grid


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
    log: str | Iterable[str] = (),
    command: str = "wellfit.search(…)",
    started: float | None = None,
    listener: Listener | None = None,
) -> SearchRun:
    """Search for settings: coarse, then fine, on the training and validation images; the test split stays closed.

    data: whatever `fit` takes.
    space: a TOML file, or {name: LogUniform | Uniform | Integer | Choice} of `wellfit.search.space`; by default
        learning rate and weight decay around the usual ones.
    budget: "30m" or seconds for the whole command; without it and without `trials`, 10 minutes. That of a study which
        machines share is the first one's, from when the study was founded, whoever works at it and whatever pauses.
    trials: how many the whole study may have, whoever runs them.
    workers: processes on this machine, or "auto", which measures how many train most together.
    storage, study: "postgresql://USER@HOST/DATABASE" and a name, the same on all machines that take part.
    sampler: "random" (the default, even in the logarithm), "qmc", "tpe" or "grid".
    folds: of cross-validation; 0: five below 500 images, else none.
    config: everything else, as for `fit`; model and seed are its `model.name` and `seed`.
    force: go on where a check fails.
    log: "tensorboard", "wandb" or "mlflow", or several: tools that the search is shown in besides.

    Raises UserError for bad input, GateFailed where a check fails or no trial finishes, Interrupted when stopped.
    """
    refuse_several("a search")
    started = time.monotonic() if started is None else started
    log = check_trackers(log)
    given = {"model.name": model, "seed": seed}
    config = (config or Config()).replace(**{key: value for key, value in given.items() if value is not None})
    asked = SearchRequest.of(
        space,
        trials=trials,
        workers=workers,
        storage=storage,
        study=study,
        sampler=sampler,
        folds=folds,
        own_budget=budget is not None,
    )
    if budget is None and trials is None:
        budget = DEFAULT_BUDGET
    seconds = None if budget is None else parse_budget(budget)
    refuse_missing(data)
    config = with_known_names(config)
    config = config.replace(**{"data.test": lasting(config.data.test)})
    folder = new_folder(out)
    write_atomically(folder.config, config_to_toml(config))
    request = {
        "data": lasting(data),
        "budget": seconds,
        "force": force,
        "log": list(log),
        "search": asked.as_dict(),
    }
    job = job_of(folder, data, config, Budget(seconds, started), force, listener, log)
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
        request.get("log", ()),
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
            job.say("another worker has begun the study: its plan is taken over")
            plan = plan_from_dict(study.schedule["plan"])
            material = Material.of(data, plan)
            _write_plan(job, plan)
        material = with_threads(material, force.threads)
        spent = time_of(job, asked, study)
        left = time_left(job, asked, study, spent)
        orders = Orders(
            material,
            job.folder.path.absolute(),
            storage,
            asked.study_name,
            identity,
            study.schedule,
            force.workers,
            CORES,
            until=None if math.isinf(left) else time.time() + left,
            begun=time.time() - spent,
        )
        with job.step("search") as outcome:
            work(orders, job, study)
            if asked.study is not None:
                wait_for_others(study, job.stop)
            trials = study.trials()
            schedule = Schedule.from_dict(study.schedule["schedule"])
            ended = concluded(schedule, trials)
            outcome.reason = reason_of(trials, ended)
        conclude(job, News(job, study), material, trials, ended)
    with job.step("report"):
        keep_layouts(job.folder, compare_layouts(functions=DRAWN_FUNCTIONS))
        job.record.write("end", status="done", seconds=job.budget.spent)
        write_report(job.folder)


def time_of(job: Job, asked: SearchRequest, study: Study) -> float:
    """Seconds of the search so far: since it was founded, and pauses left out where no other machine may be at work."""
    return study.age() if asked.study is not None else max(0.0, job.budget.spent - float(study.schedule["spent"]))


def time_left(job: Job, asked: SearchRequest, study: Study, spent: float) -> float:
    """Seconds that are left for trials: of the study, and of this command where it was given a budget of its own."""
    time = study.schedule["schedule"]["time"]
    left = math.inf if time is None else float(time["seconds"]) - spent
    own = job.budget.left - CLOSING if asked.own_budget else math.inf
    return max(0.0, min(left, own))


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
        _write_plan(job, plan)
        return plan


def _write_plan(job: Job, plan: Plan) -> None:
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

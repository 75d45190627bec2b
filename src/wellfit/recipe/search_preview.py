"""What a search would do, without a trial: `wellfit search --dry-run`."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellfit.config import Config
from wellfit.errors import UserError
from wellfit.recipe.budget import Budget, in_words, parse_budget
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.opening import Listener, job_of, refuse_missing, with_known_names
from wellfit.recipe.plan import Plan
from wellfit.recipe.prepare import Prepared, prepare
from wellfit.recipe.search_plan import (
    identity_of,
    make_schedule,
    make_search_plan,
    measured_speed,
    plan_from_dict,
    starting_space,
    with_folds,
)
from wellfit.recipe.search_request import SearchRequest
from wellfit.recipe.trial_settings import refuse_unfit
from wellfit.record import RunFolder
from wellfit.search.founding import refuse_another
from wellfit.search.place import Place, place_of
from wellfit.search.schedule import Finished, Round, Schedule
from wellfit.search.space import ranges
from wellfit.search.study import NoStudy, Study


@dataclass(frozen=True)
class Preview:
    """The plan, the schedule and the round that is to come. study: in words, where the study is one that is shared."""

    plan: Plan
    schedule: Schedule
    first: Round | Finished
    study: str = ""

    @property
    def sentences(self) -> list[str]:
        plan, schedule = self.plan, self.schedule
        lines = [
            f"model      {plan.model.name} at {plan.model.image_size} px, {plan.model.parameters:,} parameters",
            f"engine     {plan.engine.line}",
            f"sampler    {schedule.sampler}, seed {schedule.seed}",
        ]
        lines += [f"space      {name}: {kind}" for name, kind in schedule.space.items()]
        limits = [] if schedule.trials is None else [f"{schedule.trials} trials"]
        if schedule.budget_epochs is not None:
            limits.append(f"{schedule.budget_epochs:.3g} epochs of training in all")
        elif schedule.time is not None:
            limits.append(
                f"{in_words(schedule.time.seconds)} of trials; the speed of this machine is not known, so the "
                "first ones are to say how many epochs that is"
            )
        lines.append(f"limit      {' or '.join(limits)}; no trial longer than {schedule.longest:.3g} epochs")
        if isinstance(self.first, Round):
            length = max(task.epochs for task in self.first.tasks)
            lines.append(f"begins     {len(self.first.tasks)} {self.first.stage} trials of {length:.3g} epochs")
        if self.study:
            lines.append(f"study      {self.study}")
        return [*lines, *(f"because    {reason}" for reason in plan.reasons), "nothing was trained"]

    def as_dict(self) -> dict[str, Any]:
        """What `--dry-run --json` prints."""
        schedule = self.schedule
        return {
            "model": self.plan.model.name,
            "engine": self.plan.engine.as_dict(),
            "ranges": ranges(schedule.space),
            "sampler": schedule.sampler,
            "trials": schedule.trials,
            "budget_epochs": schedule.budget_epochs,
            "budget_seconds": None if schedule.time is None else schedule.time.seconds,
            "longest_epochs": schedule.longest,
            "first_round": len(self.first.tasks) if isinstance(self.first, Round) else 0,
            "study": self.study or None,
            "reasons": list(self.plan.reasons),
        }


def preview(
    data: Any,
    space: Any = None,
    *,
    config: Config,
    budget: str | float | None,
    started: float,
    listener: Listener | None = None,
    **asked: Any,
) -> Preview:
    """Read the data, measure the machine, plan; nothing is trained or kept. asked: as for `search`.

    A storage is asked whether it answers, and whether it has the study: then it is that one's plan that is shown.
    Raises UserError as the search would, also where the storage cannot be reached or used.
    """
    request = SearchRequest.of(space, **asked)
    refuse_missing(data)
    config = with_known_names(config)
    seconds = None if budget is None else parse_budget(budget)
    with tempfile.TemporaryDirectory(prefix="wellfit-") as path:
        job = job_of(RunFolder(Path(path)), data, config, Budget(seconds, started), False, listener)
        try:
            prepared = prepare(job)
            if asked.get("storage") is not None:
                shared = _shared(job, request, prepared, asked["storage"])
                if shared is not None:
                    return shared
            prepared = with_folds(prepared, request.folds)
            material = Material.of(prepared, make_search_plan(job, prepared))
            found = starting_space(job, material, request, [])
            refuse_unfit(material, found)
            schedule = make_schedule(job, material, found, request, measured_speed(job))
            study = f"'{request.study}' is to be founded in {request.storage}" if request.study else ""
            return Preview(material.plan, schedule, schedule.next([]), study)
        finally:
            job.record.close()


def _shared(job: Job, request: SearchRequest, data: Prepared, storage: str | Path) -> Preview | None:
    """The study as it stands, None where there is none yet."""
    _refuse_unusable(place_of(storage))
    try:
        with Study.existing(storage, request.study_name, say=job.say) as study:
            joined = request.joining(study.identity)
            refuse_another(
                study.name, study.shown, study.identity, identity_of(job, with_folds(data, joined.folds), joined)
            )
            trials, schedule = study.trials(), Schedule.from_dict(study.schedule["schedule"])
            said = f"'{study.name}' in {study.shown} is joined, its plan taken over; {len(trials)} trials have ended"
            return Preview(plan_from_dict(study.schedule["plan"]), schedule, schedule.next(trials), said)
    except NoStudy:
        return None


def _refuse_unusable(place: Place) -> None:
    """UserError for a file that could not be made: the search itself would find out only after its checks."""
    if place.file is None or place.file.exists():
        return
    above = next(folder for folder in place.file.parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(
            f"the study cannot be kept in {place.shown}: '{above}' is no folder that can be written to; give another "
            "--storage"
        )

"""What a search would do, without a trial: `wellfit search --dry-run`."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellfit.config import Config
from wellfit.recipe.budget import Budget, parse_budget
from wellfit.recipe.material import Material
from wellfit.recipe.opening import Listener, job_of, refuse_missing, with_known_names
from wellfit.recipe.plan import Plan
from wellfit.recipe.prepare import prepare
from wellfit.recipe.search_plan import make_schedule, make_search_plan, measured_speed, starting_space, with_folds
from wellfit.recipe.search_request import SearchRequest
from wellfit.recipe.trial_settings import refuse_unfit
from wellfit.record import RunFolder
from wellfit.search.schedule import Finished, Round, Schedule
from wellfit.search.space import ranges


@dataclass(frozen=True)
class Preview:
    """The plan, the schedule and its first round."""

    plan: Plan
    schedule: Schedule
    first: Round | Finished

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
        lines.append(f"limit      {' or '.join(limits)}; no trial longer than {schedule.longest:.3g} epochs")
        if isinstance(self.first, Round):
            length = max(task.epochs for task in self.first.tasks)
            lines.append(f"begins     {len(self.first.tasks)} {self.first.stage} trials of {length:.3g} epochs")
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
            "longest_epochs": schedule.longest,
            "first_round": len(self.first.tasks) if isinstance(self.first, Round) else 0,
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
    """Read the data, measure the machine, plan; nothing is trained or kept. asked: as for `search`."""
    request = SearchRequest.of(space, **asked)
    refuse_missing(data)
    config = with_known_names(config)
    seconds = None if budget is None else parse_budget(budget)
    with tempfile.TemporaryDirectory(prefix="wellfit-") as path:
        job = job_of(RunFolder(Path(path)), data, config, Budget(seconds, started), False, listener)
        try:
            prepared = with_folds(prepare(job), request.folds)
            material = Material.of(prepared, make_search_plan(job, prepared))
            found = starting_space(job, material, request, [])
            refuse_unfit(material, found)
            speed = measured_speed(job)
            schedule = make_schedule(job, material, found, request, speed if math.isfinite(speed) else 1.0)
            return Preview(material.plan, schedule, schedule.next([]))
        finally:
            job.record.close()

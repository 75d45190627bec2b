"""The schedule: which trials come next, as a pure function of what was asked and of the trials so far (SPEC S1-S5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wellfit.findings import Finding
from wellfit.search.samplers import settings_of
from wellfit.search.space import Space, check_conditions
from wellfit.search.space_file import space_from_dict, space_to_dict
from wellfit.search.stages import best_trial, narrow
from wellfit.search.trial import Task, Trial


@dataclass(frozen=True)
class Round:
    """Tasks that may run in any order, on any worker. The next round opens when each of them has a trial.

    space: what the tasks were drawn from; reason: in words, why these.
    """

    stage: str
    rung: int
    tasks: tuple[Task, ...]
    space: Space
    reason: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Finished:
    """The search is over. best: the trial to train with; None where none finished."""

    reason: str
    findings: tuple[Finding, ...]
    best: Trial | None


@dataclass(frozen=True)
class Schedule:
    """What was asked of a search. `next` says what follows from the trials so far."""

    space: Space
    seed: int
    longest: float
    budget_epochs: float | None = None
    trials: int | None = None
    sampler: str = "random"
    first: tuple[dict[str, Any], ...] = field(default=())

    @classmethod
    def plan(
        cls,
        space: Space,
        *,
        seed: int,
        longest: float,
        budget_epochs: float | None = None,
        trials: int | None = None,
        sampler: str = "random",
        first: Sequence[Mapping[str, Any]] = (),
    ) -> Schedule:
        """A schedule for a total cost (epochs), a number of trials (of the whole study, promotions included), or both.

        longest: epochs of the training that the search is for; no trial is longer.
        """
        check_conditions(space)
        return cls(space, seed, longest, budget_epochs, trials, sampler, tuple(dict(f) for f in first))

    def next(self, trials: Sequence[Trial]) -> Round | Finished:
        """The round that is open, or what the search came to. Trials may be given in any order."""
        known = {trial.number: trial for trial in trials}
        end: Finished | None = None
        for step in self._rounds(known):
            if isinstance(step, Finished):
                end = step
                break
            if any(task.number not in known for task in step.tasks):
                return step
        assert end is not None
        return end

    def _rounds(self, known: dict[int, Trial]) -> Iterator[Round | Finished]:
        count = self.trials or 20
        coarse = max(1, count * 2 // 3)
        length = min(1.0, self.longest / 4)
        if self.budget_epochs is not None:
            length = min(length, self.budget_epochs / (coarse + 3 * (count - coarse)))
        space, reason, number = self.space, "the space as given", 0
        done: list[Trial] = []
        findings: tuple[Finding, ...] = ()
        for stage, size, epochs in (("coarse", coarse, length), ("fine", count - coarse, 3 * length)):
            tasks = []
            for place in range(size):
                given = self.first[number] if stage == "coarse" and place < len(self.first) else {}
                settings = settings_of(self.sampler, space, seed=self.seed, number=number, trials=done, given=given)
                tasks.append(Task(number, stage, settings, epochs))
                number += 1
            if tasks:
                yield Round(stage, 0, tuple(tasks), space, reason, findings)
            trials = [known[task.number] for task in tasks]
            done += trials
            narrowed = narrow(space, trials, stage)
            space, reason, findings = narrowed.space, narrowed.reason, tuple(narrowed.findings)
        yield Finished("the trials are done", findings, best_trial(done))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, as the first worker writes it into the study."""
        return {
            "space": space_to_dict(self.space),
            "seed": self.seed,
            "longest": self.longest,
            "budget_epochs": self.budget_epochs,
            "trials": self.trials,
            "sampler": self.sampler,
            "first": [dict(given) for given in self.first],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schedule:
        """What `to_dict` gave."""
        return cls(
            space_from_dict(values["space"]),
            int(values["seed"]),
            float(values["longest"]),
            values["budget_epochs"],
            values["trials"],
            values["sampler"],
            tuple(dict(given) for given in values["first"]),
        )

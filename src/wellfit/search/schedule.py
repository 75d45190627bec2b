"""The schedule: which trials come next, as a pure function of what was asked and of the trials so far (SPEC S1-S5).

Stages: coarse, fine, fine 2, … Each is a ladder of successive halving (`search/halving.py`); the space of a fine stage
is narrowed from the best trials of all stages before it (`search/stages.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wellfit.errors import UserError
from wellfit.search.asked import Asked, TimeLimit
from wellfit.search.replay import Replay
from wellfit.search.rounds import Finished, Round
from wellfit.search.samplers import check_sampler
from wellfit.search.space import Space, check_conditions
from wellfit.search.trial import Trial

__all__ = ["Finished", "Round", "Schedule", "TimeLimit"]


@dataclass(frozen=True)
class Schedule(Asked):
    """What was asked of a search; make one by `Schedule.plan`. `next` says what follows from the trials so far."""

    _replays: list[Replay] = field(
        default_factory=list, init=False, repr=False, compare=False
    )  # at most one, to go on from

    @classmethod
    def plan(
        cls,
        space: Space,
        *,
        seed: int,
        longest: float,
        budget_epochs: float | None = None,
        trials: int | None = None,
        shortest: float | None = None,
        sampler: str = "random",
        first: Sequence[Mapping[str, Any]] = (),
        time: TimeLimit | None = None,
    ) -> Schedule:
        """A schedule for a total cost, a number of trials, or both; the first limit reached ends the search.

        longest: epochs of the training that the search is for; no trial is longer.
        budget_epochs: epochs that all trials may train together.
        trials: how many there may be in the whole study; a run that is continued for longer is one more.
        shortest: epochs below which a score says nothing; a hundredth of `longest` where it is not given.
        first: settings of the first trials; what they do not name is drawn.
        time: what `budget_epochs` was worked out from. It is then corrected by the speed that trials were measured at,
            after the first rung and before each stage; without `budget_epochs`, the first rung is as long as can be.

        How lengths and counts follow: a third of the budget is kept for a final stage, in which the best runs of all
        stages go on to full length (up to 20 epochs), by halving, until two to four have come to it; where a third is
        less than one and a half such trainings there is none. Half of the rest goes into the coarse stage. It wants 6
        settings and 4 more for each that varies, on three rungs: of each rung the better half go on, to twice the
        length, from at most 1 epoch on the first to at most 5 on the last (SPEC S1). Where that is too dear, length is
        given up before settings, down to `shortest`; where there is more, there are more settings, up to 100 (SPEC S2).
        A fine stage wants half as many settings on two rungs, the first as long as the coarse stage's second and up to
        10 epochs, the last up to 20. It takes half of what is left where another fine stage can follow, and else all of
        it. Trials that were broken off give back what they did not use. Stages end with what they were given, or with a
        fine one in which no new settings are expected to score higher than the best before by more than is doubtful.
        Raises UserError for limits within which no trial can run.
        """
        check_conditions(space)
        check_sampler(sampler)
        if budget_epochs is None and trials is None and time is None:
            raise UserError("a search needs a limit, got neither; give a number of trials, a budget, or both")
        if not 0 < longest < math.inf:
            raise UserError(f"the longest trial has a positive number of epochs, got {longest:g}; correct it")
        shortest = longest / 100 if shortest is None else min(shortest, longest)
        if trials is not None and trials < 1:
            raise UserError(f"a search has at least one trial, got {trials}; give a number above 0")
        if budget_epochs is not None and not shortest <= budget_epochs:
            raise UserError(
                f"a search needs the time of its shortest trial, {shortest:.3g} epochs, got {budget_epochs:.3g} in "
                "all; give more time, or train with the defaults"
            )
        given = tuple(dict(settings) for settings in first)
        return cls(space, seed, longest, shortest, budget_epochs, trials, sampler, given, time)

    def next(self, trials: Sequence[Trial]) -> Round | Finished:
        """The round that is open, or what the search came to.

        Trials may be given in any order, those of the open round among them; they change nothing before the round is
        complete. A round that is open is given whole: its tasks that have a trial are not to be run again.
        """
        known = {trial.number: trial for trial in trials}
        # Taken out while it is in use, so that two threads never share one.
        replay = self._replays.pop() if self._replays else Replay(self)
        if not replay.holds(known):
            replay = Replay(self)
        step = replay.step(known)
        self._replays[:] = [replay]
        return step

    def rounds(self, trials: Sequence[Trial]) -> list[Round]:
        """All rounds that these trials have something of, in their order, whoever opened them."""
        replay = Replay(self)
        step = replay.step({trial.number: trial for trial in trials})
        begun = isinstance(step, Round) and {task.number for task in step.tasks} & {trial.number for trial in trials}
        return [*replay.rounds, step] if isinstance(step, Round) and begun else replay.rounds

    def __reduce__(self) -> tuple[Any, ...]:
        return Schedule.from_dict, (self.to_dict(),)

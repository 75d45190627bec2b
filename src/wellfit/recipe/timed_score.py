"""The validation score under a deadline: what the end of the run will take is kept free while the training goes on."""

from __future__ import annotations

from torch import nn

from wellfit.recipe.ending import JUDGED, judging_passes
from wellfit.recipe.model_choice import closing_time
from wellfit.recipe.plan import Plan
from wellfit.recipe.prepare import Prepared
from wellfit.training.loop import Evaluation
from wellfit.training.pace import Pace

CAUTIOUS_SPEED = 500.0  # images a second that are judged, before the first evaluation has been timed
AFFORDED = 0.02  # the share of a budget that may be kept for the features of the training images
MOST_JUDGED = 3 * JUDGED  # of the time: networks, snapshots and views are planned for a JUDGED each


class TimedScore:
    """The validation score, which also moves the training's deadline.

    What one pass over validation takes, saving will take again and the test images in proportion: measured anew each
    time, so that a machine that has become slower still ends on time. What was not asked for is tried after the
    training only where time is left, so a slow pass never takes more than MOST_JUDGED from the training for it.

    share: of the time that is left, less what the end of the run will take; the rest is for the networks that follow.
    budget: seconds of the whole run, None without one.
    """

    def __init__(
        self, score: Evaluation, pace: Pace, plan: Plan, data: Prepared, *, budget: float | None, share: float = 1.0
    ) -> None:
        self.score, self.pace, self.plan, self.data = score, pace, plan, data
        self.budget, self.share, self.end, self.begun = budget, share, pace.deadline, pace.clock()
        self._keep(len(data.split.validation) / CAUTIOUS_SPEED, sure=False)

    def __call__(self, module: nn.Module) -> tuple[float, dict[str, float]]:
        begun = self.pace.clock()
        result = self.score(module)
        self._keep(self.pace.clock() - begun, sure=True)
        return result

    def _keep(self, pass_seconds: float, *, sure: bool) -> None:
        if self.end is None:
            return
        split, room = self.data.split, self.end - self.begun
        tests = len(split.test) / max(1, len(split.validation))
        looking = pass_seconds * len(split.train) / max(1, len(split.validation))
        if looking > AFFORDED * (self.budget or 0.0):
            looking = 0.0  # `wellfit neighbours` does it later
        judging = judging_passes(self.plan.ending, tests) * pass_seconds
        if not (sure and self.plan.ending.asked):
            judging = min(judging, MOST_JUDGED * room)
        last = 2 if self.plan.training.average else 1  # the training's own last look, which its deadline begins
        kept = closing_time(self.data) + (last + 1 + tests) * pass_seconds + looking + judging
        self.pace.deadline = self.begun + self.share * (room - kept)

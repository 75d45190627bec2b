"""How far a training is: by counted steps, or by the time that is left.

A schedule is a function of progress t in [0, 1]. With a plan, t = step / steps. Under a deadline
the remaining steps are estimated anew from the measured speed after every step, so that the
learning rate reaches its end exactly when the time does, however the machine's speed drifts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class Pace:
    """Progress of one training.

    steps: how many steps at most. deadline: on `clock`'s scale, or None to count steps alone.
    """

    def __init__(
        self, steps: int, deadline: float | None = None, clock: Callable[[], float] = time.monotonic, window: int = 100
    ) -> None:
        self.steps, self.deadline, self.clock = steps, deadline, clock
        self.step, self.progress = 0, 0.0
        self._marks: deque[float] = deque([clock()], maxlen=window + 1)

    def resume(self, step: int, progress: float) -> None:
        """Go on where a checkpoint left off."""
        self.step, self.progress = step, progress
        self._marks.clear()
        self._marks.append(self.clock())

    def advance(self) -> None:
        """Count one finished step, whatever was done in it (evaluation and checkpoint included)."""
        self.step += 1
        left = self.steps - self.step
        if self.deadline is not None:
            now = self.clock()
            self._marks.append(now)
            seconds = (self._marks[-1] - self._marks[0]) / (len(self._marks) - 1)
            left = min(left, int((self.deadline - now) / max(seconds, 1e-9)))
            self.progress += (1.0 - self.progress) / max(1, left + 1)
        else:
            self.progress = self.step / self.steps
        if left <= 0:
            self.progress = 1.0

    @property
    def finished(self) -> bool:
        return self.progress >= 1.0 or self.step >= self.steps

    @property
    def expected_steps(self) -> int:
        """Steps in all, by the present estimate."""
        return self.steps if self.progress <= 0 else min(self.steps, round(self.step / self.progress))

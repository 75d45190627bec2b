"""A curve of fixed size, however long the training: what a small chart draws, and all that is kept of its steps."""

from __future__ import annotations

import math
from typing import Any

POINTS = 200


class SmallCurve:
    """Means of stretches of steps. When `points` stretches are full, neighbours are joined and the rest get as long.

    lost: steps whose loss was not finite; they are in no mean.
    """

    def __init__(self, points: int = POINTS) -> None:
        self._points = points + points % 2
        self._width = 1
        self.steps: list[int] = []  # the last step of each stretch
        self._begins: list[int] = []
        self._seen: list[int] = []  # steps in each stretch, and of them those with a finite loss
        self._counts: list[int] = []
        self._sums: list[float] = []
        self.rates: list[float] = []  # the learning rate at the end of each stretch
        self.lost = 0

    def add(self, step: int, loss: float, rate: float) -> None:
        """The next step. One that is not after the last takes back what came after it, as a resume does."""
        if self.steps and step <= self.steps[-1]:
            self._rewind(step)
        if not self._seen or self._seen[-1] >= self._width:
            if len(self.steps) == self._points:
                self._join()
            self._begins.append(step)
            self.steps.append(step)
            self._seen.append(0)
            self._counts.append(0)
            self._sums.append(0.0)
            self.rates.append(rate)
        self.steps[-1], self.rates[-1] = step, rate
        self._seen[-1] += 1
        if math.isfinite(loss):
            self._counts[-1] += 1
            self._sums[-1] += loss
        else:
            self.lost += 1

    @property
    def losses(self) -> list[float | None]:
        """The mean of each stretch; None where no loss was finite."""
        return [s / n if n else None for s, n in zip(self._sums, self._counts, strict=True)]

    @property
    def last(self) -> float | None:
        """The mean loss of about the last twentieth, so that one step's luck does not count."""
        many = max(1, len(self._sums) // 20)
        count = sum(self._counts[-many:])
        return sum(self._sums[-many:]) / count if count else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "loss": [None if v is None else float(f"{v:.5g}") for v in self.losses],
            "lr": [float(f"{v:.4g}") if math.isfinite(v) else None for v in self.rates],
        }

    def _rewind(self, step: int) -> None:
        while self._begins and self._begins[-1] >= step:
            columns: tuple[list[Any], ...] = (
                self._begins,
                self.steps,
                self._seen,
                self._counts,
                self._sums,
                self.rates,
            )
            for values in columns:
                values.pop()
        if self.steps and self.steps[-1] >= step:
            self.steps[-1] = step - 1  # within a stretch: its mean keeps what was repeated

    def _join(self) -> None:
        self._width *= 2
        self._begins = self._begins[::2]
        self.steps, self.rates = self.steps[1::2], self.rates[1::2]
        self._seen = [a + b for a, b in zip(self._seen[::2], self._seen[1::2], strict=True)]
        self._counts = [a + b for a, b in zip(self._counts[::2], self._counts[1::2], strict=True)]
        self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]

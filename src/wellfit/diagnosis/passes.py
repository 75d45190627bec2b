"""Tells the forward passes of a training from those of a validation, whatever the loop looks like.

A pass that an optimizer step follows is training. A pass that none follows before `end_epoch`, with gradients or
without, is validation; so is, in a second rank, one without gradients between two steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from wellfit.diagnosis.history import Passes
from wellfit.diagnosis.inputs import measure, sum_up_inputs, to_host

# Batches of a validation whose images are looked at: the first ones, then more and more rarely, as it may be sorted.
FIRST, GROWTH = 4, 1.3


@dataclass
class _Tally:
    """Passes since the last optimizer step, or those without gradients in an epoch."""

    passes: int = 0
    training: int = 0
    by_batch: int = 0
    with_grad: int = 0
    smallest: float = math.inf
    looked: list[Tensor] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    due: int = 0

    def add(self, x: Tensor | None, *, training: bool, by_batch: bool, look: bool) -> None:
        self.passes += 1
        self.training += training
        self.by_batch += by_batch
        if x is None:
            return
        self.smallest = min(self.smallest, len(x))
        if not look or self.passes < self.due:
            return
        found = measure(x)
        if found is not None:
            self.looked.append(found)
            self.shape = tuple(x.shape[1:])
            self.due = self.passes + 1 if len(self.looked) < FIRST else math.ceil(self.passes * GROWTH)

    def close(self, *, closing: bool) -> Passes | None:
        if not self.passes:
            return None
        inputs = sum_up_inputs(to_host(self.looked), self.shape)
        smallest = int(self.smallest) if math.isfinite(self.smallest) else None
        return Passes(self.passes, self.training, self.by_batch, smallest, inputs, closing)


class PassWatch:
    """Counts passes in `note`, which needs no hook of its own; `end_epoch` gives those of the validation."""

    def __init__(self) -> None:
        self._open = _Tally()
        self._between = _Tally()
        self._steps = 0
        self._usual = 0
        self._training = True

    def note(
        self, x: Tensor | None, *, grad: bool, training: bool, by_batch: bool, recomputing: bool, steps: int
    ) -> None:
        """A forward pass of the batch x begins. steps: optimizer steps taken so far."""
        self._settle(steps)
        if recomputing:
            return
        # What may well be training is not measured: it would cost at each step. Validation is without gradients, or
        # in another mode, or one more pass than a step ever took.
        look = not grad or training != self._training or self._open.with_grad >= max(1, self._usual)
        self._open.with_grad += grad
        self._open.add(x, training=training, by_batch=by_batch, look=look)
        if not grad:
            self._between.add(x, training=training, by_batch=by_batch, look=False)

    def end_epoch(self, steps: int) -> Passes | None:
        """The epoch's validation; None where there was no such pass."""
        self._settle(steps)
        closing = self._open.close(closing=True)
        passes = closing if closing is not None else self._between.close(closing=False)
        self._open, self._between = _Tally(), _Tally()
        return passes

    def _settle(self, steps: int) -> None:
        if steps == self._steps:
            return
        self._steps = steps
        if self._open.with_grad:
            self._usual = max(self._usual, self._open.with_grad)
            self._training = bool(self._open.training)
        self._open = _Tally()

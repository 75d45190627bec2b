"""Tells the forward passes of a training from those of a validation, whatever the loop looks like.

A pass that an optimizer step follows is training. A pass that none follows before `end_epoch`, with gradients or
without, is validation; so is, in a second rank, one without gradients between two steps.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor

from wellfit.diagnosis.history import Passes
from wellfit.diagnosis.inputs import measure, sum_up_inputs, to_host

# Batches of a validation whose images are looked at: the first ones, then more and more rarely, as it may be sorted.
FIRST, GROWTH = 4, 1.3
# Sets of images that are told apart in one epoch.
SETS = 4


@dataclass
class _Set:
    """Batches of one pass over some images: a new one begins where a larger batch follows a smaller."""

    shape: tuple[int, ...]
    batch: int
    passes: int = 0
    due: int = 1
    looked: list[Tensor] = field(default_factory=list)

    def add(self, x: Tensor) -> None:
        self.passes += 1
        self.batch = len(x)
        if self.passes < self.due:
            return
        found = measure(x)
        if found is not None:
            self.looked.append(found)
        self.due = self.passes + 1 if len(self.looked) < FIRST else math.ceil(self.passes * GROWTH)


@dataclass
class _Counts:
    passes: int = 0
    training: int = 0
    by_batch: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    sets: list[_Set] = field(default_factory=list)

    def add(self, x: Tensor | None, *, training: bool, by_batch: bool, look: bool) -> None:
        self.passes += 1
        self.training += training
        self.by_batch += by_batch
        if x is None:
            return
        self.sizes[len(x)] += 1
        if not look:
            return
        shape = tuple(x.shape[1:])
        if not self.sets or self.sets[-1].shape != shape or self.sets[-1].batch < len(x):
            self.sets.append(_Set(shape, len(x)))
            del self.sets[:-SETS]
        self.sets[-1].add(x)

    def close(self, *, closing: bool) -> Passes | None:
        if not self.passes:
            return None
        inputs = [sum_up_inputs(to_host(s.looked), s.shape) for s in self.sets if s.looked]
        return Passes(
            self.passes,
            self.training,
            self.by_batch,
            min(self.sizes, default=None),
            tuple(i for i in inputs if i is not None),
            closing,
            usual=next((size for size, _ in self.sizes.most_common(1)), None),
        )


class PassWatch:
    """Counts passes in `note`, which needs no hook of its own; `end_epoch` gives those of the validation."""

    def __init__(self) -> None:
        self._with, self._without = _Counts(), _Counts()  # gradients, since the last optimizer step
        self._between = _Counts()  # without gradients, in the whole epoch
        self._steps = 0
        self._usual = 0  # passes with gradients that a step has taken at most
        self._training = True

    def note(
        self, x: Tensor | None, *, grad: bool, training: bool, by_batch: bool, recomputing: bool, steps: int
    ) -> None:
        """A forward pass of the batch x begins. steps: optimizer steps taken so far.

        recomputing: the pass serves to collect BatchNorm's statistics, and is neither training nor validation.
        """
        self._settle(steps)
        if recomputing:
            return
        if grad:
            # What may well be training is not looked at, as that would cost at each step: validation runs in another
            # mode, or makes more passes than a step ever took.
            look = training != self._training or self._with.passes >= max(1, self._usual)
            self._with.add(x, training=training, by_batch=by_batch, look=look)
        else:
            self._without.add(x, training=training, by_batch=by_batch, look=True)
            self._between.add(x, training=training, by_batch=by_batch, look=False)

    def end_epoch(self, steps: int) -> Passes | None:
        """The epoch's validation; None where there was no such pass."""
        self._settle(steps)
        # Beside passes without gradients, or fewer than a step takes: batches left over from accumulating gradients.
        left_over = self._without.passes > 0 or self._with.passes < self._usual
        passes = (self._without if left_over else self._with).close(closing=True)
        if passes is None:
            passes = self._between.close(closing=False)
        self._with, self._without, self._between = _Counts(), _Counts(), _Counts()
        return passes

    def _settle(self, steps: int) -> None:
        if steps == self._steps:
            return
        self._steps = steps
        if self._with.passes:
            self._usual = max(self._usual, self._with.passes)
            self._training = self._with.training > 0
        self._with, self._without = _Counts(), _Counts()

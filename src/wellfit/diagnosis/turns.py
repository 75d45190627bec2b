"""Which steps are watched closely: the first ones, and then one of every few, at no fixed distance.

A fixed distance falls in step with the loop: with epochs of ten steps in a fixed order every tenth step is always the
same batch, and what a loop does at every tenth step is seen always or never. So each stretch of `every` steps has its
own place, drawn once and for all: a training that goes on from a checkpoint is watched at the same steps.
"""

from __future__ import annotations

from functools import lru_cache

from wellfit.randomness import generator

# The first steps are watched one by one: what goes wrong at once is over by the tenth.
FIRST = 3


def is_watched(step: int, every: int) -> bool:
    """Whether the step, counted from 0, is one of the first or the drawn one of its stretch.

    The stretches are centred on the multiples of `every`.

    >>> [step for step in range(4) if is_watched(step, 10)]
    [0, 1, 2]
    """
    if step < FIRST or every == 1:
        return True
    stretch, place = divmod(step + every // 2, every)
    return stretch > 0 and place == _drawn(stretch, every)


@lru_cache(maxsize=64)
def _drawn(stretch: int, every: int) -> int:
    return int(generator(0, "watched step", every, stretch).integers(every))

"""Successive halving within a stage: many settings are run shortly, the best longer (Jamieson & Talwalkar 2016).

Synchronous, so that a search can be repeated: a rung is decided when all of its trials are done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ETA = 2.0  # of the settings of a rung, one in so many goes on, to a length so many times as long


@dataclass(frozen=True)
class Ladder:
    """The rungs of a stage: how many settings reach each, and how long (epochs from the start of training)."""

    settings: tuple[int, ...]
    epochs: tuple[float, ...]

    @property
    def cost(self) -> float:
        """Epochs in all, where each run is continued from rung to rung."""
        return _cost(self.settings, self.epochs)

    @property
    def trials(self) -> int:
        """Trials in all; a run that goes on to the next rung is one more."""
        return sum(self.settings)


@dataclass(frozen=True)
class Wish:
    """What a stage would be with time enough. settings: enough of them, and the most that are of use.

    rungs: how many at most; first, last: the longest first rung and the longest last one, in epochs.
    """

    settings: int
    most: int
    rungs: int
    first: float
    last: float


def ladder(wish: Wish, *, epochs: float, trials: float, shortest: float) -> Ladder | None:
    """The rungs that a stage can afford; None where it is not one trial of `shortest` epochs.

    epochs, trials: what the stage may cost; may be infinite. Enough settings come before length, length comes before
    more settings: the first rung is as long as `wish.settings` of them allow. Where that is shorter than `shortest`
    there are fewer settings; where it is longer than `wish.first` there are more of them, up to `wish.most`.
    """
    for rungs in range(wish.rungs, 0, -1):
        most = _settings_for(trials, rungs, wish.most)
        if most < ETA ** (rungs - 1):
            continue
        # The last step of a ladder may be a short one, but not shorter than the root of ETA.
        unit = min(wish.first, wish.last / ETA ** max(0.0, rungs - 1.5))
        if rungs > 1 and unit < shortest:
            continue
        enough = min(wish.settings, most)
        made = _of(enough, rungs, unit, wish.last)
        if made.cost > epochs:
            length = _longest_first(enough, rungs, unit, wish.last, epochs)
            if length >= shortest:
                return _of(enough, rungs, length, wish.last)
            fewer = [n for n in range(enough, 0, -1) if _of(n, rungs, shortest, wish.last).cost <= epochs]
            if fewer and fewer[0] >= ETA ** (rungs - 1):
                return _of(fewer[0], rungs, shortest, wish.last)
            continue
        while enough < most and _of(enough + 1, rungs, unit, wish.last).cost <= epochs:
            enough += 1
        return _of(enough, rungs, unit, wish.last)
    return None


def finalists(
    reached: Sequence[float], *, longest: float, epochs: float, trials: float, least: int, most: int
) -> Ladder | None:
    """The rungs on which runs that are there already come to full length; None where it is too dear for `least`.

    reached: epochs of each run, the best run first. least, most: how many come to `longest` epochs; twice as many to
    half of that, and so on down to what the best run has come to.
    """
    for rungs in range(1 + max(0, int(math.log(longest / max(reached[:1], default=longest), ETA) + 0.25)), 0, -1):
        for count in range(most, least - 1, -1):
            counts = tuple(min(len(reached), int(count * ETA ** (rungs - 1 - i))) for i in range(rungs))
            made = Ladder(counts, tuple(longest / ETA ** (rungs - 1 - i) for i in range(rungs)))
            begun = math.fsum(max(0.0, made.epochs[0] - each) for each in reached[: counts[0]])
            rest = made.cost - counts[0] * made.epochs[0]
            if counts[-1] >= least and begun + rest <= epochs and made.trials <= trials:
                return made
    return None


def _of(settings: int, rungs: int, first: float, last: float) -> Ladder:
    counts = tuple(max(1, int(settings / ETA**i)) for i in range(rungs))
    return Ladder(counts, tuple(min(last, first * ETA**i) for i in range(rungs)))


def _cost(counts: tuple[int, ...], epochs: tuple[float, ...]) -> float:
    before = (0.0, *epochs[:-1])
    return math.fsum(n * (here - last) for n, here, last in zip(counts, epochs, before, strict=True))


def _longest_first(settings: int, rungs: int, unit: float, last: float, epochs: float) -> float:
    # The cost rises with the first length, in straight pieces: halving the interval finds where it meets the limit.
    low, high = 0.0, unit
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _of(settings, rungs, middle, last).cost <= epochs else (low, middle)
    return low


def _settings_for(trials: float, rungs: int, most: int) -> int:
    if math.isinf(trials):
        return most
    return max((n for n in range(1, most + 1) if _of(n, rungs, 1.0, math.inf).trials <= trials), default=0)

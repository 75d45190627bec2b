"""The length of a search, corrected by what its trials were measured at: one look at the machine may mislead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wellfit.search.asked import Asked
from wellfit.search.trial import Trial

TELLING = 1.1  # a budget that is off by less stays as it is
LONGER = 4.0  # how many times as long later trials are as those that are measured; beginning and judging stay


@dataclass(frozen=True)
class Correction:
    """asked: with the budget that follows from the trials; reason: the correction in words; raised: to more epochs."""

    asked: Asked
    reason: str
    raised: bool


def images_per_second(trials: Sequence[Trial]) -> float | None:
    """Images that all workers train on together in a second; None where the trials do not say.

    The speed within a trial, times the number of workers that were at one at the same time: so many trials as ran
    beside each other while any ran. Time in which no worker ran, as after a kill, does not count. What a trial costs
    beside its training (the network is built, judged and kept) is shared out as in one of `LONGER` times the length.
    """
    timed = [trial for trial in trials if trial.training > 0 and trial.images > 0 and trial.ended > 0]
    if not timed:
        return None
    images, seconds = math.fsum(trial.images for trial in timed), math.fsum(trial.seconds for trial in timed)
    training = math.fsum(trial.training for trial in timed)
    within = images / (training + max(0.0, seconds - training) / LONGER)
    return within * seconds / _time_in_use(timed)


def corrected(asked: Asked, done: Sequence[Trial], fresh: Sequence[Trial], spent: float) -> Correction | None:
    """What was asked, its epochs counted anew; None where the old ones hold, or no time was given.

    done: all trials so far; fresh: those that the speed is read from; spent: epochs that were trained.
    A pure function of the trials: whoever takes the search up comes to the same.
    """
    limit, speed = asked.time, images_per_second(fresh)
    if limit is None or speed is None:
        return None
    left = max(0.0, limit.seconds - max(trial.ended for trial in done))
    budget, before = spent + limit.epochs(speed, left), asked.budget_epochs
    if before is not None and before / TELLING < budget < before * TELLING:
        return None
    # Four digits: the last bits of a sum may differ between machines.
    budget = max(asked.shortest, float(f"{budget:.4g}"))
    expected = "was not known" if limit.images_per_second is None else f"was taken to be {limit.images_per_second:,.0f}"
    instead = "" if before is None else f" instead of {before:.3g}"
    counted = "1 trial was" if len(fresh) == 1 else f"{len(fresh)} trials were"
    said = f"{counted} run at {speed:,.0f} images/s, which {expected}, so there are {budget:.3g} epochs in all{instead}"
    longest = max(asked.shortest, limit.longest(budget))
    return Correction(
        replace(asked, budget_epochs=budget, longest=longest, time=replace(limit, images_per_second=speed)),
        said,
        before is None or budget > before,
    )


def _time_in_use(trials: Sequence[Trial]) -> float:
    """Seconds in which at least one of the trials ran."""
    total, until = 0.0, -math.inf
    for begun, ended in sorted((trial.ended - trial.seconds, trial.ended) for trial in trials):
        total += max(0.0, ended - max(begun, until))
        until = max(until, ended)
    return total

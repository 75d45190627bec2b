"""What a setting is worth, judged by all trials around it: a Gaussian process over settings and lengths.

The best of many single scores is best by luck as much as by its settings; neighbours share the luck out
(Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", equations 2.23 and 2.24). A short trial says
less about the long training than a long one does: how its score departs from that of the longest trials is a Gaussian
process of its own, which grows with the logarithm of the ratio of lengths (in the manner of Swersky, Snoek & Adams
2014, "Freeze-Thaw Bayesian Optimization"). Of very many trials some hundreds are enough to judge all by (Rasmussen &
Williams 2006, section 8.3.3), and the time stays in proportion to their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellfit.search.space import Choice, Fixed, Kind, Space, Uniform
from wellfit.search.space import Integer as IntegerRange
from wellfit.search.trial import Trial

Floats = NDArray[np.float64]

REACH = {"lr": 0.4}  # decades over which scores are alike
REACH_LOG = 1.0  # decades, of other settings that vary over decades
REACH_SHARE = 0.3  # of the range, of settings that vary evenly
OTHER_CHOICE = 0.5  # how alike scores are whose settings differ in one choice
SEED_NOISE = 0.01  # how far two runs of the same settings differ, validation images apart
LEAST_SPREAD = 0.02  # of true scores: where all trials look alike, they are still allowed to differ by so much
DRIFT = 0.3  # variance of a short trial's departure, a factor e of length, as a share of the variance of scores
SAME_LENGTH = 0.02  # the share by which trials of one length may differ in epochs
FLOOR = 0.5  # of a level's best score: what lies lower, or was broken off, is poor, and how poor does not matter
LISTENED_TO = 400  # trials that all are judged by, where there are more
SOFT, SOFT_ERRORS = 0.02, 3.0  # gaps to the best score that count fully: a share of it, or so many standard errors


def smoothed(trials: Sequence[Trial], space: Space | None = None) -> list[tuple[float, float]]:
    """Each trial's expected score among its neighbours, and the standard deviation of what is not known of it.

    Lengths have levels of their own: what is returned is relative to the level of a trial's length and stands for the
    longest trials, so that all values can be compared. Trials that were broken off count as poor ones of the length
    that they were to have, which is that of their stage and rung.
    space: says which settings vary evenly; without it, all numbers are taken to vary over decades.
    """
    return expectations(trials, space).each


@dataclass(frozen=True)
class Expected:
    """What `smoothed` says, and what any difference needs. mean: N; longest: epochs.

    cross: N × M prior covariances with the M trials that are listened to; solved: M × N; cross @ solved is by how much
    the scores reduce the prior covariance. prior: covariance of the trials at two lists of places, before any score.
    """

    mean: Floats
    cross: Floats
    solved: Floats
    prior: Callable[[Sequence[int], Sequence[int]], Floats]
    variance: float
    longest: float

    @property
    def each(self) -> list[tuple[float, float]]:
        """What `smoothed` returns."""
        left = self.variance - np.einsum("nm,mn->n", self.cross, self.solved)
        return list(zip(self.mean.tolist(), np.sqrt(np.maximum(0.0, left)).tolist(), strict=True))

    def lead(self, a: int, b: int, length: float = 0.0) -> tuple[float, float]:
        """By how much trial a's settings are expected to score above b's, and the standard deviation of what is not
        known of that: less than that of each alone.

        length: epochs of the training that is meant; beyond the longest trials both may depart from what they showed.
        """
        further = DRIFT * math.log(max(1.0, length / self.longest))
        prior = self.prior([a, b], [a, b])
        known = self.cross[[a, b]] @ self.solved[:, [a, b]]
        variance = _of_difference(prior - known) + further * _of_difference(prior)
        return float(self.mean[a] - self.mean[b]), math.sqrt(max(0.0, variance))


def _of_difference(covariance: Floats) -> float:
    return float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])


def expectations(trials: Sequence[Trial], space: Space | None = None) -> Expected:
    """What all trials say of each."""
    if not trials:
        nothing = np.zeros((0, 0))
        return Expected(np.zeros(0), nothing, nothing, lambda a, b: nothing, 0.0, 1.0)
    level, lengths = _levels(trials)
    centred, slopes = np.zeros(len(trials)), np.ones(len(trials))
    for i in range(len(lengths)):
        at = level == i
        centred[at], slopes[at] = _softened([t for t, here in zip(trials, at, strict=True) if here])
    variance = max(LEAST_SPREAD, float(np.std(centred))) ** 2
    alike = _Likeness(trials, space)
    longest = float(lengths.max())
    heard = _listened_to(centred, lengths[level])
    cross = variance * alike.of(range(len(trials)), heard)
    among = cross[heard]
    short, level = np.log(longest / lengths)[level][heard], level[heard]
    departs = among * DRIFT * np.minimum.outer(short, short)
    chain = _chains(trials)[heard]
    noise = np.diag([trials[i].error ** 2 for i in heard]) + SEED_NOISE**2 * np.equal.outer(chain, chain)
    noise *= np.outer(slopes[heard], slopes[heard])
    # The mean of a level's scores depends on where its trials lay: a wide offset takes the error out again.
    observed = among + departs + noise + 100 * variance * np.equal.outer(level, level)
    weights = np.linalg.solve(observed, np.column_stack([centred[heard], cross.T])).astype(np.float64, copy=False)
    return Expected(
        cross @ weights[:, 0], cross, weights[:, 1:], lambda a, b: variance * alike.of(a, b), variance, longest
    )


def _listened_to(centred: Floats, length: Floats) -> NDArray[np.int64]:
    """Places of the trials that all are judged by: the longest, the better ones first, and of the others some of every
    length and quality.
    """
    order = np.lexsort((-centred, -length))
    top = LISTENED_TO // 2
    if len(order) > LISTENED_TO:
        others = np.linspace(top, len(order) - 1, LISTENED_TO - top).astype(np.int64)
        order = np.concatenate([order[:top], order[others]])
    return np.sort(order)


def _levels(trials: Sequence[Trial]) -> tuple[NDArray[np.int64], Floats]:
    """The level of each trial, and the epochs of each level.

    Those of a rung are of one length, and rungs of the same length, such as the first of a fine stage and the second of
    the stage before, are one level: their trials are compared with one another.
    """
    rungs = [(trial.stage, trial.rung) for trial in trials]
    length_of: dict[tuple[str, int], float] = dict.fromkeys(rungs, 0.0)
    for trial, rung in zip(trials, rungs, strict=True):
        length_of[rung] = max(length_of[rung], trial.epochs)
    lengths: list[float] = []
    level_of: dict[tuple[str, int], int] = {}
    for rung, length in length_of.items():
        near = [i for i, known in enumerate(lengths) if abs(length - known) <= SAME_LENGTH * known]
        if not near:
            lengths.append(length)
        level_of[rung] = near[0] if near else len(lengths) - 1
    # A rung in which nothing came to any length is as good as one of an epoch; it says nothing but "poor".
    return np.array([level_of[rung] for rung in rungs]), np.array([length or 1.0 for length in lengths])


def _softened(trials: Sequence[Trial]) -> tuple[Floats, Floats]:
    """Scores of one level around their mean, large gaps to the best shortened, as they only say "poor"; and the slopes.

    Gaps up to a share SOFT of the best score, or to SOFT_ERRORS standard errors, stay as they are; larger ones count
    by their logarithm.
    """
    scores = [trial.score for trial in trials if trial.score is not None]
    best = max(scores, default=0.0)
    lowest = best - FLOOR * abs(best)
    gap = best - np.array([max(lowest, t.score) if t.score is not None else lowest for t in trials])
    doubt = float(np.median([trial.error for trial in trials if trial.score is not None] or [0.0]))
    soft = max(SOFT * max(abs(best), LEAST_SPREAD), SOFT_ERRORS * doubt)
    slope = soft / np.maximum(gap, soft)
    lower = np.where(gap > soft, soft * (1 - np.log(slope)), gap)
    return lower.mean() - lower, slope


def chain_ends(trials: Sequence[Trial]) -> list[int]:
    """Places of the trials that no other one continues, or only one that failed."""
    continued = {t.continues for t in trials if t.state != "failed"}
    return [i for i, t in enumerate(trials) if t.number not in continued]


def _chains(trials: Sequence[Trial]) -> NDArray[np.int64]:
    """A number for each run, shared by a trial and those that continue it."""
    begun = np.arange(len(trials))
    place = {trial.number: i for i, trial in enumerate(trials)}
    for i, trial in sorted(enumerate(trials), key=lambda pair: pair[1].number):
        if trial.continues in place:
            begun[i] = begun[place[trial.continues]]
    return begun


class _Likeness:
    """1 for equal settings, falling as a Gaussian of the distance, and by a factor for each choice that differs.

    A setting that one of two trials lacks (its condition is not met there) counts as a choice that differs.
    """

    def __init__(self, trials: Sequence[Trial], space: Space | None) -> None:
        self.numbers: list[tuple[Floats, NDArray[np.bool_]]] = []  # of each such setting: where it lies, whether it is
        self.choices: list[NDArray[np.int64]] = []
        for name in sorted({name for trial in trials for name in trial.settings}):
            values = [trial.settings.get(name) for trial in trials]
            places = _places(name, values, None if space is None else space.get(name))
            if places is None:
                codes = {value: i for i, value in enumerate(dict.fromkeys(values))}
                self.choices.append(np.array([codes[value] for value in values]))
            else:
                self.numbers.append((places, np.array([value is not None for value in values])))

    def of(self, some: Sequence[int] | NDArray[np.int64], others: Sequence[int] | NDArray[np.int64]) -> Floats:
        """One row for each of `some` places, one column for each of `others`."""
        alike = np.ones((len(some), len(others)))
        for x, there in self.numbers:
            near = np.exp(-0.5 * np.subtract.outer(x[some], x[others]) ** 2)
            both = np.equal.outer(there[some], there[others])
            alike *= near if there.all() else OTHER_CHOICE + (1 - OTHER_CHOICE) * near * both
        for code in self.choices:
            alike *= np.where(np.equal.outer(code[some], code[others]), 1.0, OTHER_CHOICE)
        return alike


def _places(name: str, values: Sequence[Any], kind: Kind | None) -> Floats | None:
    """Where the values lie, in units of the setting's reach, 0 where there is none; None where it is a choice."""
    numbers = [value for value in values if value is not None]
    evenly = isinstance(kind, Uniform | IntegerRange)
    if isinstance(kind, Choice | Fixed) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) and (evenly or v > 0) for v in numbers
    ):
        return None
    if isinstance(kind, Uniform | IntegerRange):
        width = (kind.high - kind.low) * REACH_SHARE
        return np.array([0.0 if v is None else (v - kind.low) / width for v in values])
    return np.array([0.0 if v is None else math.log10(v) for v in values]) / REACH.get(name, REACH_LOG)

"""From the record to the data of the figures on training and evaluation: plain dataclasses; nothing is drawn here.

Every function returns None where the record holds nothing to draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wellfit.report.history import History, Line, confusion_of, mapping, rows
from wellfit.report.words import number

MOST_POINTS = 2000
MOST_ROWS = 64
MOST_COLUMNS = 240

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LossCurve:
    """Loss of each step, its moving average, and the learning rate, against the step; thinned for drawing.

    horizon: steps over which the average looks back. lost: steps whose loss was not finite.
    guessing: log C, the loss of an even guess, where the number of classes is known.
    """

    steps: Floats
    losses: Floats
    average_steps: Floats
    average: Floats
    lr_steps: Floats
    lr: Floats
    horizon: int
    lost: list[int]
    guessing: float | None

    @property
    def limit(self) -> float | None:
        """Where the axis should end, so that one spike does not flatten the rest; None: at the highest loss."""
        high = float(np.quantile(self.losses, 0.995))
        limit = max(high * 1.15, high + 0.02)
        return limit if float(np.max(self.losses)) > 2 * limit else None


@dataclass(frozen=True)
class AccuracyCurve:
    """Train, validation and averaged-weights accuracy at each evaluation (NaN where absent).

    gap: train minus validation at `gap_step`, the last evaluation that has both. best: highest validation
    accuracy of either kind of weights, at `best_step`.
    """

    steps: Floats
    train: Floats
    validation: Floats
    averaged: Floats
    gap: float | None
    gap_step: float | None
    best: float | None
    best_step: float | None
    chance: float | None


@dataclass(frozen=True)
class UpdateRatios:
    """log10 of update size / weight size: one row a parameter, one column a measured step; NaN without a ratio."""

    parameters: list[str]
    steps: Floats
    logs: Floats
    parameters_in_all: int


@dataclass(frozen=True)
class Confusion:
    """Counts (row: true class, column: answer), classes in the order of the model."""

    classes: list[str]
    counts: NDArray[np.int64]

    @property
    def shares(self) -> Floats:
        """Each row divided by its sum; 0 in rows without images."""
        return self.counts / np.maximum(1, self.counts.sum(1, keepdims=True))

    def worst_pairs(self, most: int = 12) -> list[tuple[str, str, int, float]]:
        """The most frequent mistakes: (true class, answer, images, share of the true class), most images first."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        places = [(int(i) // len(self.classes), int(i) % len(self.classes)) for i in order]
        shares = self.shares
        return [
            (self.classes[i], self.classes[j], int(wrong[i, j]), float(shares[i, j])) for i, j in places if wrong[i, j]
        ]


@dataclass(frozen=True)
class Reliability:
    """Stated confidence against measured accuracy, by bin, with the images in each bin."""

    confidence: Floats
    accuracy: Floats
    images: Floats
    error: float

    @property
    def excess(self) -> float:
        """Mean confidence minus accuracy: above 0 the model is over-confident."""
        total = self.images.sum()
        return float((self.images * (self.confidence - self.accuracy)).sum() / total) if total else math.nan


def moving_average(values: ArrayLike, horizon: int) -> Floats:
    """Exponential moving average with bias correction, so that the first values are not drawn towards 0.

    m_t = β·m_(t−1) + (1−β)·x_t with β = 1 − 1/horizon; returned is m_t / (1 − β^t) (the correction of Adam,
    Kingma and Ba 2015). Values that are not finite are passed over and repeat the average before them.

    >>> moving_average([1.0, 1.0, 4.0], horizon=2).round(3).tolist()
    [1.0, 1.0, 2.714]
    """
    beta, mean, weight = 1 - 1 / max(1, horizon), 0.0, 0.0
    out = []
    for value in np.asarray(values, np.float64).tolist():
        if math.isfinite(value):
            mean = beta * mean + (1 - beta) * value
            weight = beta * weight + (1 - beta)
        out.append(mean / weight if weight else math.nan)
    return np.array(out, np.float64)


def thin(values: ArrayLike, most: int = MOST_POINTS) -> NDArray[np.int64]:
    """Indices of at most `most` values that keep the look of the series: the least and the greatest of each
    stretch, the first and the last. All indices where there are few; NaN counts as neither least nor greatest.
    """
    series = np.asarray(values, np.float64)
    if len(series) <= most:
        return np.arange(len(series))
    stretches = max(1, (most - 2) // 2)
    edges = np.linspace(0, len(series), stretches + 1).astype(np.int64)
    kept = {0, len(series) - 1}
    low, high = np.where(np.isnan(series), np.inf, series), np.where(np.isnan(series), -np.inf, series)
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        kept |= {start + int(low[start:stop].argmin()), start + int(high[start:stop].argmax())}
    return np.array(sorted(kept), np.int64)


def loss_curve(history: History) -> LossCurve | None:
    """Loss as scatter plus moving average (SPEC C10), with the learning rate."""
    return loss_points(*(column(history.steps, name) for name in ("step", "loss", "lr")), classes=len(history.classes))


def loss_points(steps: Floats, losses: Floats, lr: Floats, *, classes: int = 0) -> LossCurve | None:
    """The same from one number a step; NaN where a learning rate is not known, classes 0 where their number is not."""
    finite = np.isfinite(losses)
    if not finite.any():
        return None
    horizon = int(np.clip(len(steps) // 80, 5, 500))
    average = moving_average(losses, horizon)
    scatter = np.flatnonzero(finite)
    scatter = scatter[thin(losses[scatter])]
    line, rates = evenly(len(steps), MOST_POINTS // 2), thin(lr, MOST_POINTS // 2)
    return LossCurve(
        steps=steps[scatter],
        losses=losses[scatter],
        average_steps=steps[line],
        average=average[line],
        lr_steps=steps[rates],
        lr=lr[rates],
        horizon=horizon,
        lost=[int(step) for step in steps[~finite]],
        guessing=math.log(classes) if classes > 1 else None,
    )


def accuracy_curve(history: History) -> AccuracyCurve | None:
    """Train and validation accuracy together, the gap named (SPEC C10)."""
    names = ("step", "train_accuracy", "validation_accuracy", "averaged_validation_accuracy")
    return accuracy_points(*(column(history.epochs, name) for name in names), classes=len(history.classes))


def accuracy_points(
    steps: Floats, train: Floats, validation: Floats, averaged: Floats, *, classes: int = 0
) -> AccuracyCurve | None:
    """The same from one number an evaluation; NaN where one is not known."""
    if not np.isfinite(np.concatenate([train, validation, averaged])).any():
        return None
    both = np.flatnonzero(np.isfinite(train) & np.isfinite(validation))
    either = np.fmax(validation, averaged)
    measured = np.flatnonzero(np.isfinite(either))
    top = int(measured[either[measured].argmax()]) if len(measured) else None
    last = int(both[-1]) if len(both) else None
    kept = evenly(len(steps), MOST_POINTS // 4)
    return AccuracyCurve(
        steps=steps[kept],
        train=train[kept],
        validation=validation[kept],
        averaged=averaged[kept],
        gap=float(train[last] - validation[last]) if last is not None else None,
        gap_step=float(steps[last]) if last is not None else None,
        best=float(either[top]) if top is not None else None,
        best_step=float(steps[top]) if top is not None else None,
        chance=1 / classes if classes else None,
    )


def update_ratios(history: History) -> UpdateRatios | None:
    """Size of each update beside the size of its weights; about 1e-3 is healthy (SPEC C8)."""
    measured = [line for line in history.steps if mapping(line, "update_ratio")]
    measured = [measured[i] for i in evenly(len(measured), MOST_COLUMNS)]
    names = list(dict.fromkeys(name for line in measured for name in mapping(line, "update_ratio")))
    ratios = np.array([[number(mapping(line, "update_ratio").get(name)) for line in measured] for name in names])
    return ratio_table(names, column(measured, "step"), ratios)


def ratio_table(names: list[str], steps: Floats, ratios: Floats) -> UpdateRatios | None:
    """The same from a table with a row for each parameter and a column for each measured step.

    Of very many parameters, those with more than a bias' or a normalisation's role come first; of very many
    measured steps, evenly spaced ones are kept.
    """
    if not names or not len(steps):
        return None
    chosen = np.arange(len(names))
    if len(chosen) > MOST_ROWS:
        weights = np.array([i for i in chosen if names[i].endswith("weight")], np.int64)
        chosen = weights if len(weights) else chosen
        chosen = chosen[evenly(len(chosen), MOST_ROWS)]
    columns = evenly(len(steps), MOST_COLUMNS)
    shown = np.asarray(ratios, np.float64)[np.ix_(chosen, columns)]
    logs = np.log10(np.where(np.isfinite(shown) & (shown > 0), shown, np.nan))
    if not np.isfinite(logs).any():
        return None
    return UpdateRatios([names[i] for i in chosen], steps[columns], logs, len(names))


def confusion(history: History) -> Confusion | None:
    """The confusion matrix of the evaluation shown (test where there is one)."""
    evaluation = history.evaluation
    counts = confusion_of(history.folder, evaluation)
    if counts is None:
        return None
    names = [str(row.get("class")) for row in rows(evaluation, "per_class")] or list(history.classes)
    if len(names) != len(counts):
        names = [f"class {i}" for i in range(len(counts))]
    return Confusion(names, counts)


def reliability(history: History) -> Reliability | None:
    """The reliability diagram of the evaluation shown."""
    bins = rows(history.evaluation, "reliability")
    columns = [column(bins, name) for name in ("confidence", "accuracy", "images")]
    kept = np.isfinite(columns).all(0) & (columns[2] > 0) if bins else np.zeros(0, bool)
    if not kept.any():
        return None
    confidence, accuracy, images = (values[kept] for values in columns)
    return Reliability(confidence, accuracy, images, number(history.evaluation.get("calibration_error")))


def column(lines: list[Line], name: str) -> Floats:
    """The field `name` of each line as a number; NaN where it is none."""
    return np.array([number(line.get(name)) for line in lines], np.float64)


def evenly(n: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the indices 0 … n−1, evenly spaced, the first and the last among them."""
    if n <= most:
        return np.arange(n)
    return np.unique(np.linspace(0, n - 1, most).round().astype(np.int64))

"""Figures of a classification, from arrays alone (numpy only).

Shapes used throughout: N images, C classes; `targets` and `predicted` are integers in [0, C) of shape (N,),
`probabilities` and `logits` are (N, C). An undefined figure (the precision of a class that was never
predicted) is None, never a made-up zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wellfit.errors import UserError

# Beyond this many classes a confusion matrix is too large for a line of the record.
CONFUSION_IN_RECORD = 100

# A temperature outside these bounds only says that the split is (nearly) free of errors or of information.
TEMPERATURE_BOUNDS = (0.05, 20.0)
BLOCK = 2**15  # numbers that are worked at together, so that what is made of them stays in the processor's cache


def wilson_interval(correct: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion, `correct` of `n` (Wilson 1927): stays inside [0, 1], also at 0 and at n.

    With n = 0 nothing is known and the interval is (0, 1).
    """
    if not 0 < confidence < 1:
        raise UserError(f"a confidence lies between 0 and 1, got {confidence}; 0.95 is usual")
    if n < 0 or not 0 <= correct <= max(n, 0):
        raise UserError(f"an interval needs 0 ≤ correct ≤ n, got {correct} of {n}; count again")
    if n == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    share = correct / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At the ends the formula gives exactly 0 or 1; rounding must not leave the interval beside the share.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == n else min(1.0, centre + half)
    return low, high


def confusion_matrix(targets: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """C×C counts: row = true class, column = predicted class."""
    true = _labels("targets", targets, classes)
    said = _labels("predicted", predicted, classes)
    if len(true) != len(said):
        raise UserError(f"targets and predicted are one number an image, got {len(true)} and {len(said)}; align them")
    return np.bincount(true * classes + said, minlength=classes * classes).reshape(classes, classes)


def balanced_accuracy(targets: ArrayLike, predicted: ArrayLike, classes: int) -> float:
    """Mean recall over the classes that have images; in [0, 1], chance is 1/C whatever the class sizes."""
    matrix = _non_empty(confusion_matrix(targets, predicted, classes))
    images = matrix.sum(1)
    present = images > 0
    return float(np.mean(matrix.diagonal()[present] / images[present]))


def macro_f1(targets: ArrayLike, predicted: ArrayLike, classes: int) -> float:
    """Mean F1 over the classes that have images or were predicted; in [0, 1]."""
    matrix = _non_empty(confusion_matrix(targets, predicted, classes))
    both = matrix.sum(0) + matrix.sum(1)
    present = both > 0
    return float(np.mean(2 * matrix.diagonal()[present] / both[present]))


def per_class(targets: ArrayLike, predicted: ArrayLike, classes: Sequence[str]) -> list[dict[str, Any]]:
    """One {class, images, precision, recall, f1} a class; a figure without a denominator is None."""
    return _per_class(confusion_matrix(targets, predicted, len(classes)), classes)


def reliability(probabilities: ArrayLike, targets: ArrayLike, bins: int = 15) -> list[dict[str, Any]]:
    """The reliability diagram: {confidence, accuracy, images} of each non-empty bin, least confident first.

    Bins are of equal width in the confidence (largest probability), closed at their upper end; `confidence`
    is the mean inside the bin (Guo et al. 2017, On Calibration of Modern Neural Networks).
    """
    table, true = _table("probabilities", probabilities, targets)
    return _reliability(table, true, bins)


def expected_calibration_error(probabilities: ArrayLike, targets: ArrayLike, bins: int = 15) -> float:
    """Mean |accuracy − confidence| over the bins of `reliability`, weighted by images; in [0, 1]."""
    return _calibration_error(reliability(probabilities, targets, bins))


def fit_temperature(logits: ArrayLike, targets: ArrayLike, prior_width: float | None = None) -> float:
    """The T > 0 that minimises the cross-entropy of softmax(logits / T); log probabilities do as logits.

    The loss is convex in 1/T, so Newton's method inside a shrinking bracket finds the one minimum (Guo et al.
    2017). The answer is kept within `TEMPERATURE_BOUNDS`: without a single error the best T would be 0.
    Logits that say nothing (all rows constant) leave T at 1.

    prior_width: standard deviation of a Gaussian prior of ln T around 0. A few hundred images with hardly an error
    would otherwise ask for a T near 0; thousands of images overrule it.
    """
    table, true = _table("logits", logits, targets)
    if not np.isfinite(table).all():
        raise UserError("a temperature needs finite logits, got NaN or infinity; clip log probabilities first")
    table = table - table.max(1, keepdims=True)
    if not table.any():
        return 1.0
    images = len(true)
    chosen = table[np.arange(images), true].mean()
    pull = 0.0 if prior_width is None else 1.0 / (prior_width**2 * images)
    rows = max(1, BLOCK // table.shape[1])
    blocks = [slice(first, first + rows) for first in range(0, images, rows)]
    mean, square = np.empty(images), np.empty(images)  # of an image's logits and of their squares, over its classes

    def slope_and_bend(scale: float) -> tuple[float, float]:
        for block in blocks:
            here = table[block]
            weights = np.exp(scale * here)
            total = weights.sum(1)
            weights *= here
            mean[block] = weights.sum(1) / total
            weights *= here
            square[block] = weights.sum(1) / total
        slope, bend = float(mean.mean() - chosen), float((square - mean**2).mean())
        return slope + pull * math.log(scale) / scale, bend + pull * (1.0 - math.log(scale)) / scale**2

    low, high = 1 / TEMPERATURE_BOUNDS[1], 1 / TEMPERATURE_BOUNDS[0]
    if slope_and_bend(high)[0] <= 0:
        return TEMPERATURE_BOUNDS[0]
    if slope_and_bend(low)[0] >= 0:
        return TEMPERATURE_BOUNDS[1]
    scale = 1.0
    for turn in range(200):
        slope, bend = slope_and_bend(scale)
        low, high = (low, scale) if slope > 0 else (scale, high)
        step = scale - slope / bend if bend > 0 else math.nan
        # Every third step halves the bracket, so that a crawling Newton iteration cannot use up the turns.
        new = step if low < step < high and turn % 3 != 2 else math.sqrt(low * high)
        if abs(new - scale) <= 1e-10 * scale:
            break
        scale = new
    return float(1 / scale)


def abstention_threshold(probabilities: ArrayLike, targets: ArrayLike, error_rate: float) -> float:
    """The lowest confidence at which answering keeps the share of wrong answers ≤ `error_rate` on these images.

    An image is answered when its largest probability is ≥ the threshold. 0.0 when every image may be
    answered; infinity when no threshold keeps the promise. Choose it on validation images: on the images
    that chose it, the promise holds exactly; on new ones it holds as far as they resemble these.
    """
    if not 0 <= error_rate < 1:
        raise UserError(f"an error rate lies in [0, 1), got {error_rate}; 0.05 allows one wrong answer in twenty")
    table, true = _table("probabilities", probabilities, targets)
    confidence = table.max(1)
    order = np.argsort(-confidence, kind="stable")
    confidence = confidence[order]
    wrong = np.cumsum(table.argmax(1)[order] != true[order])
    answered = np.arange(1, len(true) + 1)
    # Images of equal confidence are answered together or not at all: only the last of a tie may end the list.
    last_of_tie = np.append(confidence[1:] != confidence[:-1], True)
    kept = np.flatnonzero(last_of_tie & (wrong <= error_rate * answered))
    if len(kept) == 0:
        return math.inf
    return 0.0 if kept[-1] == len(true) - 1 else float(confidence[kept[-1]])


def summarise(probabilities: ArrayLike, targets: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """All figures of the record's "evaluation" line that follow from probabilities (N×C) and targets (N).

    `confusion` is None above 100 classes, for the caller to keep in arrays/. `temperature` is the one that
    would calibrate these very images best. UserError without a single image.
    """
    table, true = _table("probabilities", probabilities, targets)
    if table.shape[1] != len(classes):
        raise UserError(
            f"probabilities have one column a class, got {table.shape[1]} columns for {len(classes)} classes; "
            "evaluate with the classes that the model was trained on"
        )
    said = table.argmax(1)
    matrix = confusion_matrix(true, said, len(classes))
    correct, n = int(matrix.trace()), len(true)
    logs = np.log(np.clip(table, np.finfo(np.float64).tiny, None))
    bins = _reliability(table, true, 15)
    return {
        "images": n,
        "accuracy": correct / n,
        "interval": list(wilson_interval(correct, n)),
        "balanced_accuracy": balanced_accuracy(true, said, len(classes)),
        "macro_f1": macro_f1(true, said, len(classes)),
        "loss": float(-logs[np.arange(n), true].mean()),
        "per_class": _per_class(matrix, classes),
        "confusion": matrix.tolist() if len(classes) <= CONFUSION_IN_RECORD else None,
        "calibration_error": _calibration_error(bins),
        "reliability": bins,
        "temperature": fit_temperature(logs, true),
    }


def _per_class(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    def share(part: float, whole: float) -> float | None:
        return float(part / whole) if whole else None

    rows = zip(classes, matrix.diagonal(), matrix.sum(1), matrix.sum(0), strict=True)
    return [
        {
            "class": name,
            "images": int(images),
            "precision": share(hits, said),
            "recall": share(hits, images),
            "f1": share(2 * hits, images + said),
        }
        for name, hits, images, said in rows
    ]


def _reliability(table: NDArray[np.float64], true: NDArray[np.int64], bins: int) -> list[dict[str, Any]]:
    if bins < 1:
        raise UserError(f"a reliability diagram has at least one bin, got {bins}; 15 is usual")
    confidence = table.max(1)
    right = table.argmax(1) == true
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    images = np.bincount(place, minlength=bins)
    sure = np.bincount(place, confidence, minlength=bins)
    hits = np.bincount(place, right, minlength=bins)
    return [
        {"confidence": float(sure[i] / images[i]), "accuracy": float(hits[i] / images[i]), "images": int(images[i])}
        for i in np.flatnonzero(images)
    ]


def _calibration_error(rows: list[dict[str, Any]]) -> float:
    total = sum(row["images"] for row in rows)
    return sum(row["images"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / total


def _labels(name: str, values: ArrayLike, classes: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise UserError(f"{name} are one class number an image, shape (N,), got shape {array.shape}; flatten them")
    if array.size == 0:
        return np.zeros(0, np.int64)
    whole = array.astype(np.int64)
    if not np.array_equal(whole, array) or whole.min() < 0 or whole.max() >= classes:
        raise UserError(
            f"{name} are whole numbers from 0 to {classes - 1}, got values from {array.min()} to {array.max()}; "
            "number the classes from 0"
        )
    return whole


def _table(name: str, values: ArrayLike, targets: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or table.size == 0:
        raise UserError(f"{name} are one row an image and one column a class, got shape {table.shape}; reshape them")
    true = _labels("targets", targets, table.shape[1])
    if len(true) != len(table):
        raise UserError(f"{name} and targets have one row an image, got {len(table)} and {len(true)}; align them")
    return table, true


def _non_empty(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    if not matrix.any():
        raise UserError("an average over classes needs at least one image, got none; give some images")
    return matrix

"""Linear classifiers on frozen features (SPEC T2): one pass over the images, then many settings in moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from wellfit.inference.evaluate import SCORES, softmax
from wellfit.models.probe_net import ProbeNet
from wellfit.randomness import generator
from wellfit.transfer.logistic import Fits, fit_logistic, principal_axes
from wellfit.transfer.stage_features import Spot, StageFeatures

# Inverse strengths of the L2 penalty on standardised features, strongest first.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
COMPARED_BY = 2000  # samples at most on which settings are compared; the chosen one is fitted on all
COMPARING_STEPS = 40  # of the solver: settings rank as they do at its end
SOLVING_STEPS, SOLVING_SAMPLES = 1000, 2_000_000  # of the solver at its most: steps, and steps × samples


@dataclass
class Probe:
    """A fitted linear classifier: logits = features · weight.T + bias."""

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    balanced: bool = False

    def logits(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weight.T + self.bias


@dataclass
class ProbeResult:
    """The chosen classifier, its score and loss on images it was not fitted on, and those of all that were tried.

    spot: where it sits; None where features without a place were given.
    """

    probe: Probe
    score: float
    loss: float
    held_out: np.ndarray  # N×C probabilities of images that the classifier judging them had not seen; NaN where none
    table: list[dict[str, Any]] = field(default_factory=list)
    spot: Spot | None = None

    def stages(self, metric: str) -> dict[str, dict[str, Any]]:
        """The row to take of each layer: of those within a standard error of its best score, the lowest loss."""
        layers = dict.fromkeys(row.get("layer", "") for row in self.table)
        return {layer: self.table[best_row(self.table, layer, metric)] for layer in layers}


def fit_probe(
    features: np.ndarray, targets: np.ndarray, classes: int, strength: float, *, balanced: bool = False
) -> Probe:
    """Multinomial logistic regression on standardised features; features N×V×F, every view a sample of its own."""
    samples, labels = _samples(features, targets)
    weights = _class_weights(labels, classes, np.ones((1, len(labels)), np.float32), [balanced])
    steps = _solving_steps(len(samples))
    fits = fit_logistic(principal_axes(samples), labels, classes, np.array([strength]), weights, iterations=steps)
    return Probe(*fits.classifier(0), strength, balanced)


def choose_probe(
    features: np.ndarray | StageFeatures,
    targets: np.ndarray,
    classes: int,
    held_out: Sequence[np.ndarray],
    metric: str,
    *,
    balances: Sequence[bool] = (False,),
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    spots: Sequence[Spot] | None = None,
) -> ProbeResult:
    """Choose the spot, the strength, and whether classes weigh alike, on images not fitted on; then fit once on all.

    Of the settings within one standard error of the best score, the one with the lowest loss is taken: neighbouring
    settings differ in score by chance.

    features: N×V×F, or those of several stages. held_out: positions of each fold; one fold is a plain validation
    split, several a cross-validation. Settings are compared on at most COMPARED_BY samples, drawn by `seed`.
    """
    tried = [(balanced, strength) for balanced in balances for strength in strengths]
    judged = np.concatenate(list(held_out))
    places: list[Spot | None] = list(spots or features.spots) if isinstance(features, StageFeatures) else [None]
    compared, folds = _subset(len(targets), held_out, seed)
    table: list[dict[str, Any]] = []
    for spot in places:
        rows = _features_at(features, spot, compared)
        rows = rows if rows.shape[0] * rows.shape[1] <= 2 * COMPARED_BY else rows[:, :1]
        samples, labels = _samples(rows, targets[compared])
        fits = _fit_folds(samples, labels, classes, folds, rows.shape[1], tried, COMPARING_STEPS)
        for number, (balanced, strength) in enumerate(tried):
            probabilities = _held_out(fits, folds, rows.shape[1], len(tried), number, len(compared), classes)
            seen = np.isfinite(probabilities[:, 0])
            figures = _figures(probabilities[seen], targets[compared][seen], classes)
            where = {} if spot is None else {"layer": spot.layer, "pooling": spot.pooling}
            table.append({**where, "strength": strength, "balanced": balanced, **figures, "judged": int(seen.sum())})
    best = best_row(table, metric=metric)
    spot, (balanced, strength) = places[best // len(tried)], tried[best % len(tried)]
    whole = _features_at(features, spot, np.arange(len(targets)))
    samples, labels = _samples(whole, targets)
    # The last problem is what is handed over, fitted on all; those before it judge what they have not seen.
    folds = [np.asarray(fold) for fold in held_out]
    setting = [(balanced, strength)]
    steps = _solving_steps(len(samples))
    fits = _fit_folds(samples, labels, classes, [*folds, np.zeros(0, int)], whole.shape[1], setting, steps)
    probabilities = _held_out(fits, folds, whole.shape[1], 1, 0, len(targets), classes)
    figures = _figures(probabilities[judged], targets[judged], classes)
    probe = Probe(*fits.classifier(len(folds)), strength, balanced)
    return ProbeResult(probe, figures[metric], figures["loss"], probabilities, table, spot)


def best_row(table: Sequence[dict[str, Any]], layer: str | None = None, metric: str = "accuracy") -> int:
    """Position of the row to take, of those at `layer` where one is named."""
    among = [i for i, row in enumerate(table) if layer is None or row.get("layer", "") == layer]
    top = max(table[i][metric] for i in among)
    judged = max(1, table[among[0]].get("judged", 1))
    error = (max(top * (1 - top), 1 / judged) / judged) ** 0.5
    return min((i for i in among if table[i][metric] >= top - error), key=lambda i: table[i]["loss"])


def install(net: ProbeNet, probe: Probe) -> None:
    """Put the fitted classifier into the network."""
    with torch.no_grad():
        net.fc.weight.copy_(torch.from_numpy(probe.weight))
        net.fc.bias.copy_(torch.from_numpy(probe.bias))


def _solving_steps(samples: int) -> int:
    """As many as the samples allow, and at least those that settings are compared by."""
    return max(COMPARING_STEPS, min(SOLVING_STEPS, SOLVING_SAMPLES // max(1, samples)))


def _features_at(features: np.ndarray | StageFeatures, spot: Spot | None, rows: np.ndarray) -> np.ndarray:
    if isinstance(features, StageFeatures):
        assert spot is not None
        return features.of(spot, rows)
    return features[rows]


def _samples(features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N×V×F to (N·V)×F, with a target each."""
    return features.reshape(-1, features.shape[2]), np.repeat(targets, features.shape[1])


def _subset(images: int, held_out: Sequence[np.ndarray], seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The images that settings are compared on, in order, and the positions of the folds among them.

    Each fold keeps its share: of what is fitted on and of what is judged, COMPARED_BY at most.
    """
    share = min(1.0, COMPARED_BY / max(1, images - min(map(len, held_out))))
    if share == 1.0:
        return np.arange(images), [np.asarray(fold) for fold in held_out]
    part = np.full(images, len(held_out))
    for number, fold in enumerate(held_out):
        part[fold] = number
    order = generator(seed, "probe-subset").permutation(images)
    # A cross-validation thins its folds; of a plain split, what is fitted on and what judges are thinned apart.
    most = [round(share * len(fold)) for fold in held_out] if len(held_out) > 1 else [COMPARED_BY]
    kept = [order[part[order] == number][: max(1, count)] for number, count in enumerate([*most, COMPARED_BY])]
    chosen = np.sort(np.concatenate(kept))
    return chosen, [np.flatnonzero(part[chosen] == number) for number in range(len(held_out))]


def _fit_folds(
    samples: np.ndarray,
    labels: np.ndarray,
    classes: int,
    folds: Sequence[np.ndarray],
    views: int,
    tried: Sequence[tuple[bool, float]],
    iterations: int,
) -> Fits:
    """For each fold every setting: the fold's samples weigh nothing. Problems are ordered by fold, then setting."""
    masks = np.ones((len(folds), len(labels) // views, views), dtype=np.float32)
    for number, fold in enumerate(folds):
        masks[number, fold] = 0.0
    weights = np.repeat(masks.reshape(len(folds), -1), len(tried), axis=0)
    weights = _class_weights(labels, classes, weights, [balanced for balanced, _ in tried] * len(folds))
    strengths = np.array([strength for _, strength in tried] * len(folds))
    return fit_logistic(principal_axes(samples), labels, classes, strengths, weights, iterations=iterations)


def _class_weights(labels: np.ndarray, classes: int, weights: np.ndarray, balanced: Sequence[bool]) -> np.ndarray:
    """Where a problem is balanced, each of its classes weighs as much as any other."""
    for number in np.flatnonzero(balanced):
        counts = np.bincount(labels, weights=weights[number], minlength=classes)
        present = counts > 0
        factors = np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1e-12)), 0.0)
        weights[number] *= factors[labels].astype(np.float32)
    return weights


def _held_out(
    fits: Fits, folds: Sequence[np.ndarray], views: int, settings: int, number: int, images: int, classes: int
) -> np.ndarray:
    """N×C probabilities of each fold's images, from their first view, by the classifier that has not seen them."""
    probabilities = np.full((images, classes), np.nan)
    for position, fold in enumerate(folds):
        if len(fold):
            rows = torch.as_tensor(np.asarray(fold) * views)
            probabilities[fold] = softmax(fits.logits(rows, position * settings + number).numpy())
    return probabilities


def _figures(probabilities: np.ndarray, targets: np.ndarray, classes: int) -> dict[str, float]:
    predicted = probabilities.argmax(1)
    loss = float(-np.log(probabilities[np.arange(len(targets)), targets] + 1e-12).mean())
    return {"loss": loss, **{name: score(targets, predicted, classes) for name, score in SCORES.items()}}

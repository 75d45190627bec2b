"""Linear classifiers on frozen features (SPEC T2): one pass over the images, then many settings in moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from wellfit.data.batches import EvaluationBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.inference.evaluate import SCORES, softmax
from wellfit.models.probe_net import ProbeNet

# Inverse strengths of the L2 penalty on standardised features, strongest first.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)


@dataclass
class Probe:
    """A fitted linear classifier: logits = features · weight.T + bias."""

    weight: np.ndarray
    bias: np.ndarray
    strength: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weight.T + self.bias


@dataclass
class ProbeResult:
    """The chosen strength, its score on images it was not fitted on, and every other strength's."""

    probe: Probe
    score: float
    held_out: np.ndarray  # N×C probabilities of images that the classifier judging them had not seen; NaN where none
    table: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rank(self) -> tuple[float, float]:
        """What results are compared by: the score, then the loss of the chosen strength."""
        return self.score, -next(row["loss"] for row in self.table if row["strength"] == self.probe.strength)


@torch.inference_mode()
def extract_features(
    net: ProbeNet,
    batches: EvaluationBatches,
    engine: Engine,
    preprocessing: Preprocessing,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """float32 N×2×F: the features of each image and of its mirror image."""
    net.eval()
    rows = []
    for batch in batches:
        inputs = engine.inputs(batch.images, preprocessing)
        with engine.autocast():
            pair = [net.features(inputs), net.features(inputs.flip(3))]
        rows.append(torch.stack(pair, dim=1).float().cpu())
        progress(len(batch.targets))
    return torch.cat(rows).numpy()


def fit_probe(
    features: np.ndarray, targets: np.ndarray, classes: int, strength: float, *, balanced: bool = False
) -> Probe:
    """Multinomial logistic regression on standardised features; features N×V×F, every view a sample of its own."""
    from sklearn.linear_model import LogisticRegression

    views = features.shape[1]
    samples = features.reshape(-1, features.shape[2])
    mean, std = samples.mean(0), samples.std(0) + 1e-6
    regression = LogisticRegression(C=strength, max_iter=300, class_weight="balanced" if balanced else None)
    regression.fit((samples - mean) / std, np.repeat(targets, views))
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # one row stands for both classes: split it evenly
        coefficients, intercepts = (
            np.vstack([-coefficients, coefficients]) / 2,
            np.concatenate([-intercepts, intercepts]) / 2,
        )
    weight, bias = np.zeros((classes, samples.shape[1])), np.full(classes, -30.0)
    weight[regression.classes_] = coefficients / std
    bias[regression.classes_] = intercepts - (coefficients / std) @ mean
    return Probe(weight.astype(np.float32), bias.astype(np.float32), strength)


def choose_probe(
    features: np.ndarray,
    targets: np.ndarray,
    classes: int,
    held_out: Sequence[np.ndarray],
    metric: str,
    *,
    balanced: bool = False,
    strengths: Sequence[float] = STRENGTHS,
) -> ProbeResult:
    """Choose the strength on images not fitted on, then fit once on all.

    Of the strengths within one standard error of the best score, the one with the lowest loss is taken.

    held_out: positions of each fold; one fold is a plain validation split, several a cross-validation.
    """
    scored: list[tuple[float, float, np.ndarray]] = []
    table = []
    judged = np.concatenate(list(held_out))
    for strength in strengths:
        probabilities = np.full((len(targets), classes), np.nan)
        for fold in held_out:
            rest = np.setdiff1d(np.arange(len(targets)), fold)
            probe = fit_probe(features[rest], targets[rest], classes, strength, balanced=balanced)
            probabilities[fold] = softmax(probe.logits(features[fold, 0]))
        predicted = probabilities[judged].argmax(1)
        figures = {name: score(targets[judged], predicted, classes) for name, score in SCORES.items()}
        loss = float(-np.log(probabilities[judged, targets[judged]] + 1e-12).mean())
        table.append({"strength": strength, "loss": loss, **figures})
        scored.append((figures[metric], -loss, probabilities))
    # With few images the scores of neighbouring strengths differ by chance; the loss then tells more.
    top = max(score for score, _, _ in scored)
    error = (max(top * (1 - top), 1 / len(judged)) / len(judged)) ** 0.5
    best = max((i for i in range(len(strengths)) if scored[i][0] >= top - error), key=lambda i: scored[i][1])
    probe = fit_probe(features, targets, classes, strengths[best], balanced=balanced)
    return ProbeResult(probe, scored[best][0], scored[best][2], table)


def install(net: ProbeNet, probe: Probe) -> None:
    """Put the fitted classifier into the network."""
    with torch.no_grad():
        net.fc.weight.copy_(torch.from_numpy(probe.weight))
        net.fc.bias.copy_(torch.from_numpy(probe.bias))

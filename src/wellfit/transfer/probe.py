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
    balanced: bool = False

    def logits(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weight.T + self.bias


@dataclass
class ProbeResult:
    """The chosen classifier, its score and loss on images it was not fitted on, and those of all that were tried."""

    probe: Probe
    score: float
    loss: float
    held_out: np.ndarray  # N×C probabilities of images that the classifier judging them had not seen; NaN where none
    table: list[dict[str, Any]] = field(default_factory=list)


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
    return Probe(weight.astype(np.float32), bias.astype(np.float32), strength, balanced)


def choose_probe(
    features: np.ndarray,
    targets: np.ndarray,
    classes: int,
    held_out: Sequence[np.ndarray],
    metric: str,
    *,
    balances: Sequence[bool] = (False,),
    strengths: Sequence[float] = STRENGTHS,
) -> ProbeResult:
    """Choose the strength, and whether classes weigh alike, on images not fitted on; then fit once on all.

    Of the strengths within one standard error of the best score, the one with the lowest loss is taken.

    held_out: positions of each fold; one fold is a plain validation split, several a cross-validation.
    """
    tried = [(balanced, strength) for balanced in balances for strength in strengths]
    held: list[np.ndarray] = []
    table = []
    judged = np.concatenate(list(held_out))
    for balanced, strength in tried:
        probabilities = np.full((len(targets), classes), np.nan)
        for fold in held_out:
            rest = np.setdiff1d(np.arange(len(targets)), fold)
            probe = fit_probe(features[rest], targets[rest], classes, strength, balanced=balanced)
            probabilities[fold] = softmax(probe.logits(features[fold, 0]))
        predicted = probabilities[judged].argmax(1)
        figures = {name: score(targets[judged], predicted, classes) for name, score in SCORES.items()}
        loss = float(-np.log(probabilities[judged, targets[judged]] + 1e-12).mean())
        table.append({"strength": strength, "balanced": balanced, "loss": loss, **figures})
        held.append(probabilities)
    # With few images the scores of neighbouring strengths differ by chance; the loss then tells more.
    top = max(row[metric] for row in table)
    error = (max(top * (1 - top), 1 / len(judged)) / len(judged)) ** 0.5
    best = min((i for i, row in enumerate(table) if row[metric] >= top - error), key=lambda i: table[i]["loss"])
    balanced, strength = tried[best]
    probe = fit_probe(features, targets, classes, strength, balanced=balanced)
    return ProbeResult(probe, table[best][metric], table[best]["loss"], held[best], table)


def install(net: ProbeNet, probe: Probe) -> None:
    """Put the fitted classifier into the network."""
    with torch.no_grad():
        net.fc.weight.copy_(torch.from_numpy(probe.weight))
        net.fc.bias.copy_(torch.from_numpy(probe.bias))

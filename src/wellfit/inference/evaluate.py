"""Running a network over a split: logits once, every figure from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from wellfit.data.batches import EvaluationBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.errors import unknown_name
from wellfit.inference import metrics

SCORES: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "accuracy": lambda targets, predicted, classes: float((targets == predicted).mean()),
    "balanced_accuracy": metrics.balanced_accuracy,
    "macro_f1": metrics.macro_f1,
}


@torch.inference_mode()
def logits_of(
    module: nn.Module, batches: EvaluationBatches, engine: Engine, preprocessing: Preprocessing
) -> np.ndarray:
    """float32 N×C in the order of the split. The module is put in eval mode and left there."""
    module.eval()
    parts = []
    for batch in batches.on(engine.device):
        with engine.autocast():
            outputs = module(engine.inputs(batch.images, preprocessing))
        parts.append(outputs.float().cpu())
    return torch.cat(parts).numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities N×C of logits N×C, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean −log p of the true class."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(targets)), targets]).mean())


class ValidationScore:
    """Scores a module on the validation split; what the loop calls after each epoch.

    metric: one of SCORES, the figure that is maximised.
    """

    def __init__(
        self,
        batches: EvaluationBatches,
        classes: Sequence[str],
        engine: Engine,
        preprocessing: Preprocessing,
        metric: str,
    ) -> None:
        if metric not in SCORES:
            raise unknown_name("metric", metric, SCORES)
        self.batches, self.classes = batches, list(classes)
        self.engine, self.preprocessing, self.metric = engine, preprocessing, metric

    def __call__(self, module: nn.Module) -> tuple[float, dict[str, float]]:
        return self.judge(logits_of(module, self.batches, self.engine, self.preprocessing))

    def judge(self, logits: np.ndarray) -> tuple[float, dict[str, float]]:
        """The score and all figures of logits N×C, in the order of the split."""
        figures = {"loss": cross_entropy(logits, self.batches.targets)}
        predicted = logits.argmax(axis=1)
        for name, score in SCORES.items():
            figures[name] = score(self.batches.targets, predicted, len(self.classes))
        # A network that answers with NaN has no accuracy worth keeping.
        return (figures[self.metric] if np.isfinite(figures["loss"]) else -1.0), figures

"""What a network makes of an image before it names a class: the input of its final classifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from wellfit.data.batches import EvaluationBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.models.head import classifier_of


class Features:
    """Runs a network and keeps what enters its final classifier. A context manager: the hook goes at its end.

    image_size: a side in pixels that the net takes. The module is put in eval mode and left there. UserError where
    the net ends in no classifier.
    """

    def __init__(self, module: nn.Module, engine: Engine, preprocessing: Preprocessing) -> None:
        self.module, self.engine, self.preprocessing = module.eval(), engine, preprocessing
        self.layer, classifier = classifier_of(module, preprocessing.size)
        self._caught: list[torch.Tensor] = []
        self._hook = classifier.register_forward_pre_hook(self._catch)

    def __enter__(self) -> Features:
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

    def _catch(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._caught.append(inputs[0])

    @torch.inference_mode()
    def of(self, pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """uint8 N×3×S×S → (features float32 N×F, logits float32 N×C).

        Where the classifier is a convolution, or answers for each place, the features are the mean over the places.
        """
        self._caught.clear()
        with self.engine.autocast():
            logits = self.module(self.engine.inputs(pixels, self.preprocessing))
        entered = self._caught[-1].float()
        if entered.dim() == 4:
            entered = entered.mean((2, 3))
        elif entered.dim() > 2:
            entered = entered.flatten(1, -2).mean(1)
        return entered.cpu().numpy(), logits.float().cpu().numpy()

    def over(self, batches: EvaluationBatches) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(positions, features, logits) of each batch."""
        for batch in batches.on(self.engine.device):
            features, logits = self.of(batch.images)
            yield batch.positions, features, logits

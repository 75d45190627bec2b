"""Finds the labels of a batch, whatever its form, and counts how many of them the answers meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

NAMES = ("labels", "label", "targets", "target", "y")


def labels_of(batch: Any) -> Tensor | None:
    """The labels in a mapping, by a usual name, or in a pair (inputs, labels); None where there are none to be sure of.

    >>> labels_of((torch.zeros(2, 3), torch.tensor([0, 1])))
    tensor([0, 1])
    """
    found: Any = None
    if isinstance(batch, Mapping):
        found = next((batch[name] for name in NAMES if batch.get(name) is not None), None)
    elif isinstance(batch, list | tuple) and len(batch) == 2:
        found = batch[1]
    return found.detach() if isinstance(found, Tensor) else None


def fits(labels: Tensor | None, answers: Tensor | None) -> bool:
    """Whether labels (N,) or (N, C) can be those of the answers (N, C)."""
    if labels is None or answers is None:
        return False
    return labels.shape == answers.shape or labels.shape == answers.shape[:1]


class RunningAccuracy:
    """The share of right answers over the batches of an epoch, in training mode, each at the weights of its step.

    Counted on the device of the answers: nothing waits for it before `take`.
    """

    def __init__(self) -> None:
        self._right: Tensor | None = None
        self._seen = 0

    def add(self, answers: Tensor, labels: Tensor) -> None:
        """Answers (N, C) with their class numbers (N,); other labels are passed over."""
        if labels.ndim != 1 or labels.is_floating_point() or answers.shape[1] < 2:
            return
        right = (answers.argmax(1) == labels.to(answers.device)).sum()
        self._right = right if self._right is None else self._right.to(right.device) + right
        self._seen += len(labels)

    def take(self) -> float | None:
        """The share since the last call; None where no batch was counted."""
        right, seen = self._right, self._seen
        self._right, self._seen = None, 0
        return None if right is None else float(right) / seen


def mean_of(losses: list[Tensor | float]) -> Tensor | float:
    """The mean of some losses, without waiting for an accelerator."""
    if len(losses) == 1:
        return losses[0]
    if all(isinstance(x, Tensor) for x in losses):
        return torch.stack([torch.as_tensor(x).detach().reshape(()).float() for x in losses]).mean()
    return sum(float(x) for x in losses) / len(losses)

"""Finds the labels of a batch, whatever its form, and counts how many of them the answers meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wellfit.diagnosis.outputs import is_ignored

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
        self._counts: Tensor | None = None  # right answers, and labels that are classes

    def add(self, answers: Tensor, labels: Tensor) -> None:
        """Answers (N, C) with their class numbers (N,), of which those that are no class do not count."""
        if labels.ndim != 1 or labels.is_floating_point() or answers.shape[1] < 2:
            return
        labels = labels.to(answers.device)
        kept = ~is_ignored(labels, answers.shape[1])
        counts = torch.stack([((answers.argmax(1) == labels) & kept).sum(), kept.sum()])
        self._counts = counts if self._counts is None else self._counts.to(counts.device) + counts

    def take(self) -> float | None:
        """The share since the last call; None where no label was counted."""
        right, seen = (0, 0) if self._counts is None else self._counts.tolist()
        self._counts = None
        return right / seen if seen else None


def mean_of(losses: list[Tensor | float]) -> Tensor | float:
    """The mean of some losses, without waiting for an accelerator."""
    if len(losses) == 1:
        return losses[0]
    if all(isinstance(x, Tensor) for x in losses):
        return torch.stack([torch.as_tensor(x).detach().reshape(()).float() for x in losses]).mean()
    return sum(float(x) for x in losses) / len(losses)

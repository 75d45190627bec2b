"""Targets of any usual kind: class numbers, shares of classes, one yes or no, several of them."""

from __future__ import annotations

import torch
from torch import Tensor


def class_of(targets: Tensor) -> Tensor:
    """int64 N: the class of each image. Of shares N×C the largest; of one yes or no (N or N×1) 1 or 0."""
    if not targets.is_floating_point():
        return targets.reshape(len(targets), -1)[:, 0].long()
    if targets.ndim == 1 or targets.shape[1] == 1:
        return (targets.reshape(-1) > 0.5).long()
    return targets.argmax(1)


# More values than this between 0 and 1 are no smoothed yes and no.
FEW_VALUES = 10


def name_classes(targets: Tensor) -> bool:
    """Whether targets are class numbers, a yes or no (0 or 1, one or several an image), or shares of classes N×C."""
    if not targets.is_floating_point() or bool(((targets == 0) | (targets == 1)).all()):
        return True
    return targets.ndim == 2 and targets.shape[1] > 1 and bool((targets >= 0).all()) and not _several(targets)


def are_measures(targets: Tensor) -> bool:
    """Whether targets are numbers to be met, as of a regression: no classes, nor a yes or no that was smoothed."""
    if name_classes(targets):
        return False
    outside = bool((targets < 0).any()) or bool((targets > 1).any())
    return outside or len(torch.unique(targets)) > FEW_VALUES


def right(outputs: Tensor, targets: Tensor) -> Tensor:
    """bool N: which answers are right. outputs: scores or probabilities, N×C; N or N×1 for one yes or no.

    Of several yes or no (float targets N×C that do not sum to 1) all must be right.
    """
    single = outputs.ndim == 1 or outputs.shape[1] == 1
    if single or _several(targets):
        # Probabilities say yes above a half, scores above 0.
        middle = 0.5 if bool(outputs.min() >= 0) and bool(outputs.max() <= 1) else 0.0
        said = outputs.reshape(len(outputs), -1) > middle
        wanted = (class_of(targets) if single else targets).reshape(len(outputs), -1) > 0.5
        return (said == wanted).all(1)
    return outputs.argmax(1) == class_of(targets)


def _several(targets: Tensor) -> bool:
    if not targets.is_floating_point() or targets.ndim != 2 or targets.shape[1] == 1:
        return False
    return bool(((targets.sum(1) - 1).abs() > 1e-3).any())

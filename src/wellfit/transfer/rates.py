"""What of a pretrained network is trained, and how fast (SPEC T3): lower rates for earlier layers."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from wellfit.models.freezing import freeze, stages

LOWEST = 0.3  # of the classifier's learning rate, at the stage next to the input
TOP_SHARE = 0.25  # of the stages that count as the top, at least one


def rate_groups(
    module: nn.Module, lr: float, *, lowest: float = LOWEST, image_size: int | None = None
) -> list[dict[str, Any]]:
    """Groups for `build_optimizer`: the classifier at `lr`, then each stage below at a rate lower by one factor.

    The stage next to the input has `lowest`·lr: general features change little, specific ones much (Howard & Ruder
    2018, "Universal language model fine-tuning", with geometric steps). lowest lies in (0, 1]. The first group is the
    classifier's. Parameters that require no gradient are left out.
    """
    found = stages(module, image_size)
    owner: dict[int, int] = {}
    for depth, stage in enumerate(found):
        for _, part in stage:
            owner.update((id(parameter), depth) for parameter in part.parameters())
    groups: list[dict[str, Any]] = [{"params": [], "lr": lr}]
    groups += [{"params": [], "lr": lr * lowest ** ((len(found) - depth) / len(found))} for depth in range(len(found))]
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups[owner.get(id(parameter), -1) + 1]["params"].append((name, parameter))
    return [group for group in groups if group["params"]]


def freeze_below_top(module: nn.Module, image_size: int | None = None) -> list[str]:
    """Freeze all but the classifier and the last quarter of the stages, in place; the names of what is frozen."""
    count = len(stages(module, image_size))
    return freeze(module, max(0, count - max(1, math.floor(TOP_SHARE * count))), image_size)

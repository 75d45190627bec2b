"""Normalisation layers by name, for image maps and for vectors (SPEC N2).

Statistics are taken over: batch, every image and place (1×C×1×1; the running ones serve at test time); layer, one
sample (N×1); instance, one map of one sample (N×C×1×1); group, some maps of one sample (N×G). Only batch
normalisation is random in training, through the other images of the batch, and only it differs at test time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from wellfit.errors import UserError, unknown_name

MOST_GROUPS = 32  # Wu and He 2018, "Group Normalization"


@dataclass(frozen=True)
class Normalization:
    """How to make the layer for N×C×H×W of C channels, and for N×D of D features (None: there is no such form).

    shifts: whether it ends with a learned shift, so that a bias in front of it would be lost.
    """

    maps: Callable[[int], nn.Module]
    vectors: Callable[[int], nn.Module] | None
    shifts: bool = True


def build_normalization(name: str, channels: int, *, vectors: bool = False, groups: int | None = None) -> nn.Module:
    """The layer of that name for maps of `channels` channels, or for vectors of as many features.

    groups: of "group"; None takes `usual_groups`. UserError for an unknown name (the nearest is named), groups that
    do not divide the channels, and forms that vectors lack.
    """
    facts = normalization_facts(name)
    if groups is not None:
        if name != "group" or groups < 1 or channels % groups:
            raise UserError(
                f"groups go with normalization 'group' and divide the channels, got {groups} for {channels} channels "
                f"of '{name}'; {usual_groups(channels)} is usual"
            )
        return nn.GroupNorm(groups, channels)
    if not vectors:
        return facts.maps(channels)
    if facts.vectors is None:
        raise UserError(
            f"normalization '{name}' is for image maps, and a vector of {channels} features has no places to "
            "take statistics over; use 'batch' or 'layer'"
        )
    return facts.vectors(channels)


def normalization_facts(name: str) -> Normalization:
    """The entry of `NORMALIZATIONS`; UserError naming the nearest for an unknown name."""
    if name not in NORMALIZATIONS:
        raise unknown_name("normalization", name, NORMALIZATIONS)
    return NORMALIZATIONS[name]


def usual_groups(channels: int) -> int:
    """At most 32 groups of equal size with 8 channels or more; of 2 or more where there are fewer than 16 channels.

    >>> [usual_groups(channels) for channels in (6, 16, 64, 96, 256, 512)]
    [3, 2, 8, 12, 32, 32]
    """
    fewest = 8 if channels >= 16 else 2
    fitting = [g for g in range(1, MOST_GROUPS + 1) if channels % g == 0 and channels // g >= fewest]
    return max(fitting, default=1)


def _group(channels: int) -> nn.Module:
    return nn.GroupNorm(usual_groups(channels), channels)


def _layer_of_maps(channels: int) -> nn.Module:
    # One group: the statistics of LayerNorm([C, H, W]), and a scale and shift a channel, which no image size binds.
    return nn.GroupNorm(1, channels)


def _instance(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)


def _local_response(channels: int) -> nn.Module:
    # AlexNet: 5 neighbouring channels, k = 2, alpha = 1e-4, beta = 0.75; torch divides alpha by the size.
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def _nothing(channels: int) -> nn.Module:
    return nn.Identity()


NORMALIZATIONS: dict[str, Normalization] = {
    "batch": Normalization(nn.BatchNorm2d, nn.BatchNorm1d),
    "layer": Normalization(_layer_of_maps, nn.LayerNorm),
    "instance": Normalization(_instance, None),
    "group": Normalization(_group, _group),
    "local_response": Normalization(_local_response, None, shifts=False),
    "none": Normalization(_nothing, _nothing, shifts=False),
}

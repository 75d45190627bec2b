"""A classifier's body as a supplier of feature maps at several scales, for detection or captioning (SPEC T6).

Level l is the last map at 1/2ˡ of the image's resolution. timm's networks say themselves where their levels end; of all
others torch.fx takes the graph apart, so that what no map needs (the classifier) is neither run nor kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.head import classifiers_of, input_channels_of
from wellfit.models.probe_net import ProbeNet

# Their output has one size whatever the input's: no map of the image's own resolution.
FIXED_SIZE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


class Backbone(nn.Module):
    """N×3×H×W normalised images → {"2": N×C2×H/4×W/4, "3": N×C3×H/8×W/8, …}, one map a level, finest first.

    levels: as asked, in order. channels: of each map. strides: 2**level, the pixels of the image to one of the map (the
    map's sides are rounded as the network's layers do). The weights are copies; all of them can be trained.
    """

    def __init__(self, body: nn.Module, levels: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.levels, self.channels = tuple(levels), tuple(channels)
        self.strides = tuple(2**level for level in levels)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.body(x)
        values = maps.values() if isinstance(maps, dict) else maps
        return {str(level): value for level, value in zip(self.levels, values, strict=True)}


class TimmBody(nn.Module):
    """A timm network that returns chosen intermediate maps, its later parts and its head left out where it can."""

    def __init__(self, net: nn.Module, indices: Sequence[int]) -> None:
        super().__init__()
        timm_net: Any = net
        timm_net.reset_classifier(0)
        self.net, self.indices = net, list(indices)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        net: Any = self.net
        maps: list[torch.Tensor] = net.forward_intermediates(
            x, indices=self.indices, intermediates_only=True, stop_early=True, output_fmt="NCHW"
        )
        return maps


def backbone(module: nn.Module, name: str, image_size: int, levels: Sequence[int] = (2, 3, 4, 5)) -> Backbone:
    """The body of a classifier; the classifier itself is left as it is.

    module: any of wellfit's, torchvision's or timm's networks, or your own. name: for sentences. image_size: a side in
    pixels that the network takes. levels: whole numbers, finest first.

    Raises UserError for levels that the network does not have, naming those it has, and for a network that has no
    feature maps or cannot be taken apart.
    """
    wanted = _checked(levels)
    net = copy.deepcopy(module.backbone if isinstance(module, ProbeNet) else module).eval()
    sample = torch.zeros(1, input_channels_of(net), image_size, image_size)
    if type(net).__module__.partition(".")[0] == "timm" and hasattr(net, "forward_intermediates"):
        places = _timm_places(net, sample)
        _require(wanted, places, name, image_size)
        body: nn.Module = TimmBody(net, [places[level] for level in wanted])
    else:
        names = _last_parts(net, sample, name, image_size)
        _require(wanted, names, name, image_size)
        body = _taken_apart(net, {names[level]: str(level) for level in wanted}, name)
    with torch.no_grad():
        maps = Backbone(body, wanted, [0] * len(wanted))(sample)
    made = Backbone(body, wanted, [value.shape[1] for value in maps.values()])
    _try_other_size(made, sample, name)
    return made


def _checked(levels: Sequence[int]) -> list[int]:
    given = list(levels)
    whole = all(isinstance(level, int) and not isinstance(level, bool) and level >= 0 for level in given)
    if not given or not whole or given != sorted(set(given)):
        raise UserError(
            f"levels are whole numbers from 0, each once and rising, got {tuple(given)}; (2, 3, 4, 5) is usual"
        )
    return given


def _level(size: int, side: int) -> int:
    return max(0, round(math.log2(size / side)))


def _require(wanted: list[int], found: dict[int, Any], name: str, image_size: int) -> None:
    if not found:
        raise UserError(
            f"a backbone gives feature maps, but '{name}' has none of more than one place at {image_size} pixels; take "
            "a convolutional network"
        )
    missing = [level for level in wanted if level not in found]
    if missing:
        there = sorted(found)
        listed = "levels " + ", ".join(map(str, there)) if len(there) > 1 else f"level {there[0]}"
        raise UserError(
            f"'{name}' at {image_size} pixels has feature maps at {listed} (1/2ˡ of the image's resolution), but level "
            f"{missing[0]} was asked for; give levels={tuple(there)} or some of them"
        )


def _timm_places(net: Any, sample: torch.Tensor) -> dict[int, int]:
    """Level to the index of its last intermediate map."""
    with torch.no_grad():
        maps = net.forward_intermediates(sample, intermediates_only=True, output_fmt="NCHW")
    return {_level(sample.shape[2], value.shape[2]): i for i, value in enumerate(maps) if value.shape[2] > 1}


def _last_parts(net: nn.Module, sample: torch.Tensor, name: str, image_size: int) -> dict[int, str]:
    """Level to the name of the last part that ends there, the classifier's own part left out.

    Parts are looked at as wholes, so that one which joins branches counts with all of them.
    """
    heads = {layer for layer, _ in classifiers_of(net, image_size)}
    heads |= {layer.split(".")[0] for layer in heads if "." in layer and layer.split(".")[0] in ("classifier", "head")}
    found: dict[int, str] = {}

    def notice(part: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            is_map = isinstance(output, torch.Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1
            if is_map and not isinstance(layer, FIXED_SIZE):
                found[_level(image_size, output.shape[2])] = part

        return hook

    inside = [
        (part, layer)
        for part, layer in net.named_modules()
        if part and not any(part == head or part.startswith(head + ".") for head in heads)
    ]
    hooks = [layer.register_forward_hook(notice(part)) for part, layer in inside]
    try:
        with torch.no_grad():
            net(sample)
    finally:
        for handle in hooks:
            handle.remove()
    return found


def _taken_apart(net: nn.Module, nodes: dict[str, str], name: str) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor

    try:
        return create_feature_extractor(net, return_nodes=nodes)
    except Exception as error:  # tracing runs the network's own code, which may raise anything
        reason = str(error).strip().partition("\n")[0][:200]
        raise UserError(
            f"'{name}' cannot be taken apart: torch.fx cannot follow its forward ({type(error).__name__}: {reason}), "
            "such as a branch on values; use a network without that"
        ) from error


def _try_other_size(made: Backbone, sample: torch.Tensor, name: str) -> None:
    """Maps must grow with the image: one pooled to a fixed size is none. Networks of one size only are left at that."""
    side = sample.shape[2] + made.strides[-1]
    larger = torch.zeros(1, sample.shape[1], side, side)
    with torch.no_grad():
        try:
            maps = made(larger)
        except (RuntimeError, AssertionError, ValueError):
            return
    for level, stride, value in zip(made.levels, made.strides, maps.values(), strict=True):
        if _level(side, value.shape[2]) != level:
            raise UserError(
                f"the map of '{name}' at level {level} does not grow with the image ({value.shape[2]} places for "
                f"{side} pixels, where stride {stride} would give {side // stride}); leave that level out"
            )

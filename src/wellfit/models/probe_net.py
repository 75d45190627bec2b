"""A pretrained network's feature map, pooled, with a linear classifier on top (SPEC T2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from wellfit.errors import UserError, unknown_name

LEVELS = 4  # the deepest resolutions of a network whose maps are looked at


def grid_means(feature_map: torch.Tensor, cells: int) -> torch.Tensor:
    """N×C×H×W → N×(C·cells²): means over a grid of cells, as adaptive pooling divides it.

    As two products with constant matrices, which every export format knows.
    """
    rows, columns = (_shares(size, cells, feature_map) for size in feature_map.shape[2:])
    return (rows @ feature_map @ columns.T).flatten(1)


def _shares(size: int, cells: int, like: torch.Tensor) -> torch.Tensor:
    shares = torch.zeros(cells, size)
    for cell in range(cells):
        first, last = cell * size // cells, math.ceil((cell + 1) * size / cells)
        shares[cell, first:last] = 1 / (last - first)
    return shares.to(like.device, like.dtype)


def _mean(feature_map: torch.Tensor) -> torch.Tensor:
    return feature_map.mean((2, 3))


def _mean_and_max(feature_map: torch.Tensor) -> torch.Tensor:
    return torch.cat([feature_map.mean((2, 3)), feature_map.amax((2, 3))], dim=1)


# N×C×H×W → N×F. "grid" keeps where in the image something stands, which matters where objects are aligned.
POOLINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": _mean,
    "mean+max": _mean_and_max,
    "grid2": lambda feature_map: grid_means(feature_map, 2),
    "grid4": lambda feature_map: grid_means(feature_map, 4),
}
CELLS = {"grid2": 2, "grid4": 4}


class ProbeNet(nn.Module):
    """backbone → one of its feature maps → pooled over place → `fc`.

    backbone: any image classifier. It is run as it is and its feature map is caught on the way, so that every
    architecture works; what comes after the map is computed and not used. layer: the part whose map is taken; "" is
    the last one. pooling: a name of POOLINGS.
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, image_size: int, *, layer: str = "", pooling: str = "mean+max"
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown_name("pooling", pooling, POOLINGS)
        self.backbone = backbone
        self.layer, self.pooling = layer or last_feature_map(backbone, image_size), pooling
        parts = dict(backbone.named_modules())
        if self.layer not in parts:
            raise unknown_name("layer of the probe", self.layer, parts)
        self._caught: list[torch.Tensor] = []
        parts[self.layer].register_forward_hook(self._catch)
        with torch.no_grad():
            backbone.eval()
            width = self.features(torch.zeros(1, 3, image_size, image_size)).shape[1]
        self.fc = nn.Linear(width, num_classes)

    def _catch(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self._caught.append(output)

    def released(self) -> nn.Module:
        """The backbone, no longer watched by this network, which is of no use then."""
        hooks = dict(self.backbone.named_modules())[self.layer]._forward_hooks
        for number in [number for number, hook in hooks.items() if hook == self._catch]:
            del hooks[number]
        return self.backbone

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """N×3×S×S → N×F: the map, pooled."""
        self._caught.clear()
        self.backbone(x)
        return POOLINGS[self.pooling](self._caught.pop())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x))


class FeatureMaps:
    """Runs a network and catches several of its maps at once: `maps(x)` → one N×C×H×W a layer, in order."""

    def __init__(self, backbone: nn.Module, layers: Sequence[str]) -> None:
        self.backbone, self.layers = backbone, list(layers)
        self._caught: dict[str, torch.Tensor] = {}

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        self._caught.clear()
        parts = dict(self.backbone.named_modules())
        handles = [
            parts[name].register_forward_hook(lambda m, i, o, name=name: self._caught.__setitem__(name, o))
            for name in self.layers
        ]
        try:
            self.backbone(x)
        finally:
            for handle in handles:
                handle.remove()
        return [self._caught[name] for name in self.layers]


def last_feature_map(backbone: nn.Module, image_size: int) -> str:
    """Name of the last part to finish with N×C×H×W of more than one place, the classifier's own left out.

    Parts are looked at as wholes, so that a part which joins branches counts with all of them. Raises UserError for
    a network without feature maps (a vision transformer, say).
    """
    features = _feature_maps(backbone, image_size)
    if not features:
        raise UserError(
            "a linear probe needs a network with feature maps of more than one place, and this one has none at "
            f"{image_size} pixels; use a convolutional network or fine-tune instead"
        )
    return features[-1][0]


def feature_maps(backbone: nn.Module, image_size: int) -> list[tuple[str, int, int]]:
    """(name, channels, side in places) of the last part at each resolution, the deepest LEVELS of them, deepest last.

    The last entry is `last_feature_map`. UserError where there is none.
    """
    last_feature_map(backbone, image_size)
    by_side: dict[int, tuple[str, int, int]] = {}
    for name, shape in _feature_maps(backbone, image_size):
        side = min(shape[2:])
        by_side.pop(side, None)  # what finishes last stands last
        by_side[side] = (name, shape[1], side)
    return list(by_side.values())[-LEVELS:]


def poolings_of(channels: int, side: int, widest: int) -> list[str]:
    """Names of the poolings that a map of so many channels and places allows, none wider than `widest` features."""
    grids = [name for name, cells in CELLS.items() if cells <= side and channels * cells**2 <= widest]
    return ["mean", "mean+max", *grids]


def _feature_maps(backbone: nn.Module, image_size: int) -> list[tuple[str, torch.Size]]:
    """Names and shapes of all maps in the order in which they are finished."""
    seen: list[tuple[str, torch.Size]] = []
    handles = [
        layer.register_forward_hook(lambda m, i, o, name=name: seen.append((name, o.shape)) if _is_map(o) else None)
        for name, layer in backbone.named_modules()
        if name
    ]
    training = backbone.training
    try:
        backbone.eval()
        with torch.no_grad():
            backbone(torch.zeros(1, 3, image_size, image_size))
    finally:
        backbone.train(training)
        for handle in handles:
            handle.remove()
    # A convolutional classifier (SqueezeNet's) is no feature: everything in a part of that name is left out.
    return [(name, shape) for name, shape in seen if name.split(".")[0] not in ("classifier", "head", "fc")]


def _is_map(output: Any) -> bool:
    return isinstance(output, torch.Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1

"""Receptive fields through the graph that a net really computes, one operation at a time.

For each map the interval of input pixels that its first unit sees, along each spatial axis, and the distance in
input pixels between neighbouring units (Araujo, Norris, Sim 2019, "Computing Receptive Fields of Convolutional
Neural Networks"). Where branches meet, the interval holds both: the largest of the two when one lies in the other.
A field is undefined (None) after anything that mixes all positions: attention, global pooling, flattening.
The statistics of normalisation layers are not counted as seeing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch


@dataclass(frozen=True)
class Reach:
    """Along one axis: pixels `first` to `last` that the first unit sees, and the step to the next unit's."""

    axis: int
    first: int = 0
    last: int = 0
    step: int = 1

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def window(self, kernel: int, stride: int, padding: int, dilation: int) -> Reach:
        first = self.first - padding * self.step
        last = self.last + ((kernel - 1) * dilation - padding) * self.step
        return Reach(self.axis, first, last, self.step * stride)


Field = tuple[Reach, ...] | None
# Each position by itself, over the channels or with statistics that belong to the whole batch.
_NORMALISATIONS = ("native_batch_norm", "batch_norm", "native_layer_norm", "native_group_norm", "_fused_rms_norm")
_SAME = (
    "clone",
    "_to_copy",
    "detach",
    "alias",
    "lift_fresh",
    "copy_",
    "native_dropout",
    "contiguous",
    "channel_shuffle",
    "native_channel_shuffle",
)
_RESHAPES = ("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "flatten")
_REDUCTIONS = ("mean", "sum", "amax", "amin", "max", "var_mean", "_softmax", "_log_softmax", "linalg_vector_norm")


def field_of_image(shape: Sequence[int]) -> Field:
    """The field of the input itself, N×C×H×W (or with one or three spatial axes): each unit sees one pixel."""
    return tuple(Reach(axis) for axis in range(2, len(shape))) or None


def size_of(field: Field) -> int | None:
    """Pixels along the longer side."""
    return max(reach.size for reach in field) if field else None


def through(
    name: str, tags: Sequence[Any], args: Sequence[Any], inputs: list[tuple[torch.Tensor, Field]], out: torch.Tensor
) -> Field:
    """The field of `out`, the result of aten operation `name`; inputs are those tensors that depend on the image."""
    before, field = inputs[0]
    name = name.rstrip("_") if name != "copy_" else name
    if torch.Tag.pointwise in tags or name == "cat":
        return _met(inputs, out, _axis(args[1] if len(args) > 1 else 0, out) if name == "cat" else None)
    if field is None or len(inputs) > 1:
        return None
    if name == "convolution":
        return None if args[6] else _windowed(field, before, args[1].shape[2:], args[3], args[4], args[5])
    if name.startswith(("max_pool", "avg_pool")):
        return _pooled(name, args, field, before)
    if "adaptive" in name:
        return _adaptive(field, before, out)
    if any(part in name for part in _NORMALISATIONS) or name in _SAME:
        return field
    if name in _RESHAPES:
        return _reshaped(field, before.shape, out.shape)
    return _moved(name, args, field, before, out)


def _met(inputs: list[tuple[torch.Tensor, Field]], out: torch.Tensor, joined: int | None) -> Field:
    """Branches that are added, multiplied or put side by side: all of what each of them sees."""
    aligned: list[tuple[Reach, ...]] = []
    for tensor, field in inputs:
        shift = out.ndim - tensor.ndim  # broadcasting lines shapes up from the right
        if field is None or any(out.shape[r.axis + shift] != tensor.shape[r.axis] for r in field):
            return None
        aligned.append(tuple(Reach(r.axis + shift, r.first, r.last, r.step) for r in field))
    axes = {tuple(r.axis for r in field) for field in aligned}
    if len(axes) != 1 or joined in next(iter(axes)):
        return None
    return tuple(
        Reach(group[0].axis, min(r.first for r in group), max(r.last for r in group), max(r.step for r in group))
        for group in zip(*aligned, strict=True)
    )


def _windowed(
    field: tuple[Reach, ...],
    before: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Field:
    """A window over the last axes, as many as the kernel has."""
    start = before.ndim - len(kernel)
    if any(reach.axis < start for reach in field):
        return None
    every = [[*values] * len(kernel) if len(values) == 1 else [*values] for values in (stride, padding, dilation)]
    return tuple(
        reach.window(kernel[at], every[0][at], every[1][at], every[2][at])
        for reach in field
        for at in [reach.axis - start]
    )


def _pooled(name: str, args: Sequence[Any], field: tuple[Reach, ...], before: torch.Tensor) -> Field:
    axes = 3 if "3d" in name else 1 if "1d" in name else 2

    def pair(position: int, default: Sequence[int]) -> Sequence[int]:
        given = args[position] if len(args) > position else None
        values = [given] if isinstance(given, int) else list(given or default)
        return values * axes if len(values) == 1 else values

    kernel = pair(1, ())
    dilation = pair(4, [1]) if name.startswith("max") else [1]
    return _windowed(field, before, kernel, pair(2, kernel), pair(3, [0]), dilation)


def _adaptive(field: tuple[Reach, ...], before: torch.Tensor, out: torch.Tensor) -> Field:
    """Pooling to a given size: plain pooling where the size divides the map's; the whole map is no field."""
    reaches = []
    for reach in field:
        side, wanted = before.shape[reach.axis], out.shape[reach.axis]
        if side % wanted or (wanted == 1 and side > 1):
            return None
        reaches.append(reach.window(side // wanted, side // wanted, 0, 1))
    return tuple(reaches)


def _reshaped(field: tuple[Reach, ...], before: Sequence[int], after: Sequence[int]) -> Field:
    """Axes live on where the new shape holds one of the same length with the same count of values behind it."""
    places = {(length, prod(after[axis + 1 :])): axis for axis, length in reversed(list(enumerate(after)))}
    found = [places.get((before[r.axis], prod(before[r.axis + 1 :]))) for r in field]
    if None in found or len(set(found)) != len(found):
        return None
    return tuple(Reach(axis, r.first, r.last, r.step) for r, axis in zip(field, found, strict=True) if axis is not None)


def _moved(name: str, args: Sequence[Any], field: tuple[Reach, ...], before: torch.Tensor, out: torch.Tensor) -> Field:
    axes = [reach.axis for reach in field]
    if name in ("permute", "transpose", "t"):
        order = list(range(before.ndim))
        if name == "permute":
            order = [_axis(axis, before) for axis in args[1]]
        else:
            one, two = (_axis(axis, before) for axis in (args[1:3] if name == "transpose" else (0, 1)))
            order[one], order[two] = two, one
        return tuple(Reach(order.index(r.axis), r.first, r.last, r.step) for r in field)
    if name == "slice":
        axis = _axis(args[1] if len(args) > 1 else 0, before)
        first, step = (args[i] if len(args) > i and args[i] is not None else default for i, default in ((2, 0), (4, 1)))
        first = first + before.shape[axis] if first < 0 else first
        return tuple(r.window(1, step, -first, 1) if r.axis == axis else r for r in field)
    if name in ("split", "split_with_sizes", "chunk", "unbind", "select", "index_select"):
        axis = _axis(args[2] if name.startswith("split") and len(args) > 2 else 0, before)
        return field if name.startswith("split") and axis not in axes else None
    if "pad" in name:
        padding = {before.ndim - 1 - i // 2: args[1][i] for i in range(0, len(args[1]), 2)}
        return tuple(r.window(1, 1, padding.get(r.axis, 0), 1) for r in field)
    if name in _REDUCTIONS and len(args) > 1 and args[1] is not None and out.ndim == before.ndim:
        reduced = [args[1]] if isinstance(args[1], int) else list(args[1])
        return None if {_axis(axis, before) for axis in reduced} & set(axes) else field
    return field if name == "expand" and all(out.shape[a] == before.shape[a] for a in axes) else None


def _axis(axis: int, tensor: torch.Tensor) -> int:
    return axis % tensor.ndim

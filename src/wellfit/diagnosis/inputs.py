"""Figures of the images that go into a network: enough to see whether two streams were prepared in the same way.

Each image gives the mean and standard deviation of its channels, its colour, skew and sharpness. Kept are the
average of these over the images and how they scatter, so that a difference can be told from the luck of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wellfit.diagnosis.history import InputFigures

# Of one batch at most so many images, spread evenly, and so many entries in all: every s-th row of each image.
IMAGES, ENTRIES = 32, 1 << 16
# More channels than this are no colours: the image then counts as one channel.
COLOURS = 16


def find_input(args: Iterable[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The first batch of images among a model's arguments: N×… of floats or bytes; else None."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            numbers = value.is_floating_point() or value.dtype is torch.uint8
            if value.ndim >= 2 and numbers and value.layout is torch.strided and not value.is_meta:
                return value.detach()
        elif isinstance(value, Mapping):
            found = find_input((), value)
            if found is not None:
                return found
    return None


def measure(x: Tensor) -> Tensor | None:
    """(n + 1)×(2C + 3) on x's device: one row an image, then one with the lowest and highest entry and C.

    A row holds the C channel means, the C channel standard deviations, colour, skew and sharpness, as
    `InputFigures` has them. None for an empty batch.
    """
    if x.numel() == 0 or x.ndim < 2:
        return None
    if len(x) > IMAGES:
        x = x[:: len(x) // IMAGES][:IMAGES]
    channels = x.shape[1] if x.ndim in (4, 5) and x.shape[1] <= COLOURS else 1
    x = x.reshape(len(x), channels, -1, x.shape[-1])
    stride = -(-x.numel() // ENTRIES)
    rows = min(stride, x.shape[2])
    x = x[:, :, rows // 2 :: rows, : max(2, x.shape[3] * rows // stride)].float()
    std, mean = torch.std_mean(x, (2, 3), correction=0)
    steps = x.diff(dim=3).abs().mean((1, 2, 3)) if x.shape[3] > 1 else torch.zeros_like(mean[:, 0])
    contrast = std.mean(1).clamp_min(1e-12)
    sharpness = steps / contrast
    colour = x.std(1, correction=0).mean((1, 2)) / contrast
    skew = ((x - mean[..., None, None]) ** 3).mean((2, 3)).div(std.clamp_min(1e-12) ** 3).mean(1)
    ends = torch.zeros(1, 2 * channels + 3, device=x.device)
    ends[0, 0], ends[0, 1] = torch.aminmax(x)
    ends[0, 2] = channels
    return torch.cat([torch.cat([mean, std, torch.stack([colour, skew, sharpness], 1)], 1), ends])


def to_host(measured: list[Tensor]) -> list[np.ndarray]:
    """The tables of `measure`, as float64 on the host; one transfer from each device."""
    tables: list[np.ndarray] = [np.empty(0)] * len(measured)
    for device in {t.device for t in measured}:
        places = [i for i, t in enumerate(measured) if t.device == device]
        joined = torch.cat([measured[i].flatten() for i in places]).cpu().numpy().astype(np.float64)
        ends = np.cumsum([measured[i].numel() for i in places])[:-1]
        for i, part in zip(places, np.split(joined, ends), strict=True):
            tables[i] = part.reshape(tuple(measured[i].shape))
    return tables


def sum_up_inputs(tables: list[np.ndarray], shape: tuple[int, ...]) -> InputFigures | None:
    """What several batches show together. shape: of one image. None where no image has finite figures."""
    width = max((t.shape[1] for t in tables), default=0)
    batches = [t[:-1][np.isfinite(t[:-1]).all(1)] for t in tables if t.shape[1] == width]
    batches = [b for b in batches if len(b)]
    if not batches:
        return None
    rows = np.concatenate(batches)
    means = np.array([b.mean(0) for b in batches])
    ends = np.array([t[-1, :2] for t in tables if t.shape[1] == width])
    return InputFigures(
        shape=tuple(shape),
        images=len(rows),
        batches=len(batches),
        figures=rows.mean(0),
        scatter=_scatter(rows),
        between=_scatter(means),
        low=float(np.nanmin(ends[:, 0])) if np.isfinite(ends[:, 0]).any() else float("nan"),
        high=float(np.nanmax(ends[:, 1])) if np.isfinite(ends[:, 1]).any() else float("nan"),
    )


def _scatter(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(0)
    return centred.T @ centred / max(1, len(rows) - 1)

"""Figures of the images that go into a network: enough to see whether two streams were prepared in the same way.

Each image gives the mean and standard deviation of its channels, its colour, skew and sharpness, and how bright its
bands from top to bottom and from left to right are. Kept are the average of these over the images and how they
scatter, so that a difference can be told from the luck of a batch.
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
# Bands from top to bottom, and as many from left to right, seen in about so many rows and columns whatever the batch.
BANDS, GRID = 4, 16


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
    """(n + 1)×(2C + 3 + B) on x's device: one row an image, then one with the lowest and highest entry and C.

    A row holds the C channel means, the C channel standard deviations, colour, skew, sharpness and the B bands, as
    `InputFigures` has them. None for an empty batch.
    """
    if x.numel() == 0 or x.ndim < 2:
        return None
    if len(x) > IMAGES:
        x = x[:: len(x) // IMAGES][:IMAGES]
    channels = x.shape[1] if x.ndim in (4, 5) and x.shape[1] <= COLOURS else 1
    x = x.reshape(len(x), channels, -1, x.shape[-1])
    bands = _bands(x)
    stride = -(-x.numel() // ENTRIES)
    step = min(stride, x.shape[2])
    x = x[:, :, step // 2 :: step, : max(2, x.shape[3] * step // stride)].float()
    std, mean = torch.std_mean(x, (2, 3), correction=0)
    steps = x.diff(dim=3).abs().mean((1, 2, 3)) if x.shape[3] > 1 else torch.zeros_like(mean[:, 0])
    contrast = std.mean(1).clamp_min(1e-12)
    sharpness = steps / contrast
    colour = x.std(1, correction=0).mean((1, 2)) / contrast
    ends = torch.aminmax(x)
    x = (x - mean[..., None, None]) / std.clamp_min(1e-12)[..., None, None]
    skew = (x**3).mean((1, 2, 3))
    rows = torch.cat([mean, std, torch.stack([colour, skew, sharpness], 1), bands], 1)
    last = torch.zeros_like(rows[:1])
    last[0, 0], last[0, 1] = ends
    last[0, 2] = channels
    return torch.cat([rows, last])


def _bands(x: Tensor) -> Tensor:
    """N×B: how bright the bands of each image are, in its deviations about its mean; those of fewer rows or columns
    than bands are 0."""
    down, across = (max(1, size // GRID) for size in x.shape[2:])
    x = x[:, :, down // 2 :: down, across // 2 :: across].float()
    std, mean = torch.std_mean(x, (2, 3), correction=0, keepdim=True)
    x = (x - mean) / std.clamp_min(1e-12)
    x = x if x.shape[1] == 3 else x.mean(1, keepdim=True)
    return torch.cat([_averages(x.mean(axis)) for axis in (3, 2)], 2).flatten(1)


def _averages(rows: Tensor) -> Tensor:
    """N×C×4: the means of four stretches, as equal as they can be, of N×C×rows."""
    count = rows.shape[2]
    if count < BANDS:
        return rows.new_zeros(*rows.shape[:2], BANDS)
    band = torch.arange(count, device=rows.device) * BANDS // count
    place = (band[:, None] == torch.arange(BANDS, device=rows.device)).float()
    return rows @ (place / place.sum(0))


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
    ends = np.array([t[-1, :3] for t in tables if t.shape[1] == width])
    own = 2 * int(ends[0, 2]) + 3
    return InputFigures(
        shape=tuple(shape),
        images=len(rows),
        batches=len(batches),
        figures=rows[:, :own].mean(0),
        scatter=_scatter(rows[:, :own]),
        between=_scatter(means[:, :own]),
        bands=rows[:, own:].mean(0),
        bands_scatter=np.diag(_scatter(rows[:, own:])).copy(),
        bands_between=np.diag(_scatter(means[:, own:])).copy(),
        low=float(np.nanmin(ends[:, 0])) if np.isfinite(ends[:, 0]).any() else float("nan"),
        high=float(np.nanmax(ends[:, 1])) if np.isfinite(ends[:, 1]).any() else float("nan"),
    )


def _scatter(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(0)
    return centred.T @ centred / max(1, len(rows) - 1)

"""What a picture looks like in some twenty numbers, for telling whether two sets of pictures were prepared alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

PARTS = 16  # blocks along each side in which layout is seen
_CROP = 128  # pixels along each side in which texture is seen
_JPEG_BLOCK = 8


class Measure(NamedTuple):
    """name: for people. least: the smallest difference of means that matters; pixel values run from 0 to 1.

    log: the numbers are logarithms, and people are shown what they stand for.
    """

    name: str
    least: float
    log: bool = False


PIXEL_MEASURES = {
    "brightness": Measure("brightness", 0.04),
    "warmth": Measure("red less blue", 0.02),
    "green": Measure("green less red and blue", 0.02),
    "colour": Measure("strength of colour", 0.03),
    "contrast": Measure("contrast", 0.03),
    "darkest": Measure("darkest pixels", 0.05),
    "brightest": Measure("brightest pixels", 0.05),
    "skew": Measure("balance of dark and light", 0.25),
    "upper": Measure("upper less lower half", 0.03),
    "left": Measure("left less right half", 0.03),
    "centre": Measure("centre less border", 0.03),
    "direction": Measure("upright against level edges", 0.1, log=True),
    "sharpness": Measure("sharpness", 0.06, log=True),
    "blocks": Measure("JPEG blocks", 0.05),
}
LAYOUT = ("upper", "left", "centre", "direction")


def appearance(images: np.ndarray) -> dict[str, np.ndarray]:
    """The PIXEL_MEASURES of N×H×W×C images, float with black at 0 and white at 1, each as N numbers.

    Less than 8 pixels a side still give every number; what needs more (blocks) is 0 then.
    """
    images = images.astype(np.float32, copy=False)
    luma = images.mean(axis=3)
    small = block_means(images)
    grey = small.mean(axis=3)
    height, width = grey.shape[1:]
    flat = luma[:, :: max(1, luma.shape[1] // 64), :: max(1, luma.shape[2] // 64)].reshape(len(luma), -1)
    contrast = flat.std(axis=1)
    low, middle, high = np.quantile(flat, (0.01, 0.5, 0.99), axis=1)
    channels = small.mean(axis=(1, 2))
    half, side = max(1, height // 2), max(1, width // 2)
    inner = grey[:, height // 4 : height - height // 4, width // 4 : width - width // 4].mean(axis=(1, 2))
    mean = grey.mean(axis=(1, 2))
    return {
        "brightness": mean,
        "warmth": channels[:, 0] - channels[:, -1],
        "green": channels[:, channels.shape[1] // 2] - 0.5 * (channels[:, 0] + channels[:, -1]),
        "colour": (small.max(axis=3) - small.min(axis=3)).mean(axis=(1, 2)),
        "contrast": contrast,
        "darkest": low,
        "brightest": high,
        "skew": (flat.mean(axis=1) - middle) / np.maximum(contrast, 1e-3),
        "upper": grey[:, :half].mean(axis=(1, 2)) - grey[:, height - half :].mean(axis=(1, 2)),
        "left": grey[:, :, :side].mean(axis=(1, 2)) - grey[:, :, width - side :].mean(axis=(1, 2)),
        "centre": inner - mean,
        **_texture(luma),
    }


def block_means(images: np.ndarray) -> np.ndarray:
    """N×16×16×C means over blocks as equal as they can be; images smaller than that as they are."""
    for axis in (1, 2):
        length = images.shape[axis]
        parts = min(PARTS, length)
        edges = np.arange(parts) * length // parts
        counts = np.diff(np.append(edges, length)).astype(np.float32)
        shape = [1] * images.ndim
        shape[axis] = parts
        images = np.add.reduceat(images, edges, axis=axis) / counts.reshape(shape)
    return images


def _texture(luma: np.ndarray) -> dict[str, np.ndarray]:
    # The crop begins at a multiple of JPEG's block, so that the block grid keeps its place.
    top, left = (((n - min(n, _CROP)) // 2) // _JPEG_BLOCK * _JPEG_BLOCK for n in luma.shape[1:])
    crop = luma[:, top : top + _CROP, left : left + _CROP]
    nothing = np.zeros(len(luma), np.float32)
    if min(crop.shape[1:]) < 4:
        return {"direction": nothing, "sharpness": nothing, "blocks": nothing}
    across, down = np.abs(np.diff(crop, axis=2)), np.abs(np.diff(crop, axis=1))
    level, upright = down.mean(axis=(1, 2)), across.mean(axis=(1, 2))
    further = np.abs(crop[:, :, 2:] - crop[:, :, :-2]).mean(axis=(1, 2))
    further += np.abs(crop[:, 2:] - crop[:, :-2]).mean(axis=(1, 2))
    floor = 1e-3
    blocks = nothing
    if min(crop.shape[1:]) >= 3 * _JPEG_BLOCK:
        sides = [_at_blocks(across, 2) / (upright + floor), _at_blocks(down, 1) / (level + floor)]
        blocks = 0.5 * (sides[0] + sides[1]) - 1.0
    return {
        "direction": np.log((upright + floor) / (level + floor)),
        "sharpness": np.log((upright + level + floor) / (further + floor)),
        "blocks": blocks,
    }


def _at_blocks(steps: np.ndarray, axis: int) -> np.ndarray:
    """Mean step across the borders of 8×8 blocks."""
    return np.take(steps, np.arange(_JPEG_BLOCK - 1, steps.shape[axis], _JPEG_BLOCK), axis=axis).mean(axis=(1, 2))


MISTAKES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the order of the colour channels is reversed (RGB and BGR)": lambda x: x[..., ::-1],
    "light and dark are inverted": lambda x: 1.0 - x,
    "the pictures are upside down": lambda x: x[:, ::-1],
    "rows and columns are swapped": lambda x: x.swapaxes(1, 2),
}
"""What a script may have done to one side, by name; each undoes itself. Images N×H×W×C with values from 0 to 1."""

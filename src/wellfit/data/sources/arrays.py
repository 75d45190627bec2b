"""Arrays of images and labels as people have them → uint8 pixels and class names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wellfit.errors import UserError


@dataclass(frozen=True)
class ArrayReader:
    """images: N×H×W or N×H×W×3 uint8. An image's stamp is a hash of its pixels."""

    images: np.ndarray

    def read(self, index: int) -> np.ndarray:
        return self.images[index]

    def stamp(self, index: int) -> tuple[int, int]:
        return pixel_stamp(self.images[index])


def pixel_stamp(pixels: np.ndarray) -> tuple[int, int]:
    """(bytes, 63-bit hash) of the pixels."""
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=8).digest()
    return pixels.nbytes, int.from_bytes(digest, "little") >> 1


def as_numpy(values: Any) -> np.ndarray:
    """A numpy array from an array, a torch tensor (any device) or nested sequences."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # numpy has none
            values = values.float()
        return values.numpy()
    return np.asarray(values)


def pixel_scale(values: np.ndarray, what: str) -> float:
    """What to multiply pixel values by to get 0-255, decided by type and range: 1 for integers, 1 or 255 for floats.

    UserError for values outside 0-255, such as images that are already normalised.
    """
    if values.dtype == np.uint8 or not values.size:
        return 1.0
    if values.dtype == np.bool_:
        return 255.0
    if values.dtype.kind not in "iuf":
        raise UserError(
            f"{what} are numbers (uint8, or floats in 0-1 or 0-255), but the array's type is {values.dtype}"
        )
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # written so that NaN is refused too
        raise UserError(
            f"{what} are uint8, or floats in 0-1 or 0-255, but these values run from {low:g} to {high:g}; "
            "give the images as they were before any normalisation"
        )
    return 255.0 if values.dtype.kind == "f" and high <= 1 else 1.0


def to_uint8(values: np.ndarray, scale: float) -> np.ndarray:
    """Values times scale, rounded to the nearest uint8."""
    if values.dtype == np.uint8:
        return values
    if scale == 1 and values.dtype.kind != "f":
        return values.astype(np.uint8)
    out = np.empty(values.shape, np.uint8)
    for row in range(len(values)):  # image by image: a float copy of a whole data set may not fit
        out[row] = np.clip(np.rint(values[row].astype(np.float32) * np.float32(scale)), 0, 255)
    return out


def channels_last(images: np.ndarray, *, first: bool, what: str) -> np.ndarray:
    """N×H×W, N×H×W×C or N×C×H×W with C 1 or 3 → N×H×W or N×H×W×3.

    first: where both ends could be the channels, the first is (torch's habit; numpy's is the last).
    """
    if images.ndim == 4:
        at_front, at_end = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
        if at_front and (first or not at_end):
            images = np.moveaxis(images, 1, -1)
        elif not at_end:
            raise UserError(
                f"{what} have 1 or 3 channels, but the array's shape is {images.shape}; drop further channels"
            )
        if images.shape[3] == 1:
            images = images[..., 0]
    if images.ndim not in (3, 4):
        raise UserError(f"{what} form an array N×H×W, N×H×W×C or N×C×H×W, but its shape is {images.shape}; reshape it")
    return images


def to_pixels(images: Any, what: str = "images") -> np.ndarray:
    """An array or tensor of images as N×H×W or N×H×W×3 uint8; see `pixel_scale` and `channels_last`."""
    values = as_numpy(images)
    shaped = channels_last(values, first=hasattr(images, "detach"), what=what)
    return to_uint8(shaped, pixel_scale(values, what))


def to_labels(labels: Any, count: int, classes: Sequence[str] | None = None) -> list[str]:
    """Labels as text, one an image: whole numbers become their digits, or the class of that number where known.

    UserError for another length, one-hot rows, and numbers that are not whole.
    """
    values = labels if isinstance(labels, list | tuple) else as_numpy(labels)
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise UserError(
            f"labels are one name or number an image, but their shape is {values.shape}; undo any one-hot coding"
        )
    if len(values) != count:
        raise UserError(f"every image needs one label, but there are {count} images and {len(values)} labels")
    return [label_text(value, classes) for value in (values.tolist() if isinstance(values, np.ndarray) else values)]


def label_text(value: Any, classes: Sequence[str] | None = None) -> str:
    """One label as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    try:
        number = value.item() if hasattr(value, "item") else value
        whole = int(number)
        if whole != number:
            raise ValueError
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise UserError(
            f"labels are names or whole numbers, got {value!r}; classification needs one class an image"
        ) from None
    if classes is None:
        return str(whole)
    if not 0 <= whole < len(classes):
        raise UserError(f"label {whole} has no name: the data name {len(classes)} classes, 0 to {len(classes) - 1}")
    return str(classes[whole])


def numbered(split: str, count: int) -> list[str]:
    """Names of images that have none: "train#0", or "#0" where no split is said."""
    return [f"{split}#{i}" for i in range(count)]


def text_list(values: Iterable[Any]) -> list[str]:
    """Class names, from strings or bytes."""
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]

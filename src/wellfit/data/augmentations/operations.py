"""The fourteen operations that the augmentation policies choose from, each on a batch with a magnitude per image.

They give what torchvision's v2 policies give, but for the interpolation (bilinear here), the rounding of blended grey
levels (to the nearest here), and what is shown outside the image (the fill, which is zero at the network's input).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wellfit.data.augmentations.colour import blend, grey, in_parts, mean_grey
from wellfit.data.augmentations.geometry import warp

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Reach:
    """The magnitudes at level 1; level 0 is "unchanged".

    shear: the tangent. share: of the side; pixels: in its place where given. rotation: degrees. blend: how far a factor
    lies from 1. bits: how many of 8 are lost.
    """

    shear: float = 0.3
    share: float = 150 / 331
    pixels: float | None = None
    rotation: float = 30.0
    blend: float = 0.9
    bits: int = 4


STANDARD = Reach()  # AutoAugment (Cubuk et al. 2018), RandAugment (Cubuk et al. 2019)
WIDE = Reach(shear=0.99, pixels=32.0, rotation=135.0, blend=0.99, bits=6)  # TrivialAugment (Müller & Hutter 2021)


def apply_operations(
    images: np.ndarray, names: np.ndarray, levels: np.ndarray, fill: np.ndarray, reach: Reach = STANDARD
) -> np.ndarray:
    """Change each image by the operation named for it. uint8 N×S×S×3 → the same.

    names: N texts of OPERATIONS. levels: N numbers in [−1, 1]; where a sign has no meaning, the size alone counts.
    """
    result = images.copy()
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        result[rows] = OPERATIONS[str(name)](images[rows], levels[rows], reach, fill)
    return result


Operation = Callable[[np.ndarray, np.ndarray, Reach, np.ndarray], np.ndarray]


def _identity(images: np.ndarray, levels: np.ndarray, reach: Reach, fill: np.ndarray) -> np.ndarray:
    return images


def _linear(matrix: Callable[[np.ndarray, Reach, int], list[list[np.ndarray | float]]]) -> Operation:
    """A geometric operation: `matrix` gives the two rows (for x and y) of the map of places [−1, 1]²."""

    def operation(images: np.ndarray, levels: np.ndarray, reach: Reach, fill: np.ndarray) -> np.ndarray:
        rows = matrix(levels, reach, images.shape[1])

        def place_map(x: Tensor, y: Tensor, draws: np.ndarray, strength: float) -> tuple[Tensor, Tensor]:
            import torch

            (a, b, c), (d, e, f) = (
                [torch.as_tensor(np.asarray(value, dtype=np.float32)).view(-1, 1, 1) for value in row] for row in rows
            )
            return a * x + b * y + c, d * x + e * y + f

        return warp(images, [(place_map, levels, 0.0)], fill)

    return operation


def _offset(levels: np.ndarray, reach: Reach, side: int) -> np.ndarray:
    # Whole pixels, as published; in places, the side is 2 long.
    pixels = reach.pixels if reach.pixels is not None else reach.share * side
    return np.trunc(levels * pixels) * 2 / side


def _rotation(levels: np.ndarray, reach: Reach, side: int) -> list[list[np.ndarray | float]]:
    angles = levels * math.radians(reach.rotation)
    return [[np.cos(angles), -np.sin(angles), 0.0], [np.sin(angles), np.cos(angles), 0.0]]


# Shears hold the upper left corner in place, where both coordinates are −1, as published.
_shear_x = _linear(lambda m, r, s: [[1.0, m * r.shear, m * r.shear], [0.0, 1.0, 0.0]])
_shear_y = _linear(lambda m, r, s: [[1.0, 0.0, 0.0], [m * r.shear, 1.0, m * r.shear]])
_translate_x = _linear(lambda m, r, s: [[1.0, 0.0, -_offset(m, r, s)], [0.0, 1.0, 0.0]])
_translate_y = _linear(lambda m, r, s: [[1.0, 0.0, 0.0], [0.0, 1.0, -_offset(m, r, s)]])
_rotate = _linear(_rotation)


def _blended(without: Callable[[Tensor], Tensor]) -> Operation:
    """Towards or away from the image without a property, by the factor 1 + level·reach."""

    def operation(images: np.ndarray, levels: np.ndarray, reach: Reach, fill: np.ndarray) -> np.ndarray:
        import torch

        factor = torch.from_numpy((1 + levels * reach.blend).astype(np.float32)).view(-1, 1, 1, 1)
        return in_parts(images, lambda planes, part: blend(planes, without(planes), factor[part]))

    return operation


def _smoothed(planes: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    return functional.adjust_sharpness(planes / 255, 0.0) * 255


def _posterize(images: np.ndarray, levels: np.ndarray, reach: Reach, fill: np.ndarray) -> np.ndarray:
    lost = np.rint(np.abs(levels) * reach.bits).astype(np.int64)
    return images & (256 - (1 << lost)).astype(np.uint8)[:, None, None, None]


def _solarize(images: np.ndarray, levels: np.ndarray, reach: Reach, fill: np.ndarray) -> np.ndarray:
    threshold = 255.0 * (1 - np.abs(levels))[:, None, None, None]
    return np.where(images >= threshold, 255 - images, images)


def _auto_contrast(images: np.ndarray, levels: np.ndarray, reach: Reach, fill: np.ndarray) -> np.ndarray:
    from torchvision.transforms.v2 import functional

    return _through(functional.autocontrast, images)


def _equalize(images: np.ndarray, levels: np.ndarray, reach: Reach, fill: np.ndarray) -> np.ndarray:
    from torchvision.transforms.v2 import functional

    return _through(functional.equalize, images)


def _invert(images: np.ndarray, levels: np.ndarray, reach: Reach, fill: np.ndarray) -> np.ndarray:
    return 255 - images


def _through(kernel: Callable[[Tensor], Tensor], images: np.ndarray) -> np.ndarray:
    import torch

    planes = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return kernel(planes).permute(0, 2, 3, 1).contiguous().numpy()


OPERATIONS: dict[str, Operation] = {
    "Identity": _identity,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": _blended(lambda planes: planes * 0),
    "Color": _blended(grey),
    "Contrast": _blended(mean_grey),
    "Sharpness": _blended(_smoothed),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
}

"""Changes of colour: brightness, contrast, saturation and hue (SPEC D9), and AlexNet's colour offset (D10).

Factors and angles are each image's own. Kernels that torchvision offers take one factor for a whole batch, so the
blending is done here: between an image and the same image without the property (black, its mean grey, its greys).

Training: factors uniform around 1, hue turns and colour offsets around 0. Test: factor 1, no turn, no offset: their
means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

HUE_SHARE = 0.25  # of the strength: how far "colour_jitter" turns the hue
PART = 2**18  # pixels that are worked on at once


def brightness(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Multiply by a factor uniform in 1 ± `strength`. uint8 N×S×S×3; draws: N×1."""
    factor = factors(draws[:, 0], strength)
    return in_parts(images, lambda planes, part: _brightened(planes, factor[part]))


def contrast(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Move towards or away from the image's mean grey by a factor uniform in 1 ± `strength`. draws: N×1."""
    factor = factors(draws[:, 0], strength)
    return in_parts(images, lambda planes, part: blend(planes, mean_grey(planes), factor[part]))


def saturation(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Move each pixel towards or away from its grey by a factor uniform in 1 ± `strength`. draws: N×1."""
    factor = factors(draws[:, 0], strength)
    return in_parts(images, lambda planes, part: blend(planes, grey(planes), factor[part]))


def hue(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Turn the hue by an angle uniform in ±`strength` of the colour circle, at most half. draws: N×1."""
    turn = factors(draws[:, 0], strength) - 1
    return in_parts(images, lambda planes, part: _hue_turned(planes, turn[part]))


def colour_jitter(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Brightness, contrast and saturation at `strength`, hue at a quarter of it, one after the other. draws: N×4."""
    bright, apart, full = (factors(draws[:, i], strength) for i in range(3))
    turn = factors(draws[:, 3], HUE_SHARE * strength) - 1

    def change(planes: Tensor, part: slice) -> Tensor:
        planes = _brightened(planes, bright[part])
        planes = blend(planes, mean_grey(planes), apart[part])
        planes = blend(planes, grey(planes), full[part])
        return _hue_turned(planes, turn[part])

    return in_parts(images, change)


def pca_colour(images: np.ndarray, draws: np.ndarray, strength: float, axes: np.ndarray) -> np.ndarray:
    """Add Σ αᵢλᵢpᵢ to all pixels of an image, αᵢ normal with deviation `strength` (Krizhevsky et al. 2012: 0.1).

    axes: 3×3, column i the i-th eigenvector pᵢ of the training pixels' RGB covariance (in units of 0-1) times its
    eigenvalue λᵢ. draws: N×3.
    """
    import torch

    inner = torch.from_numpy(np.clip(draws, 1e-12, 1 - 1e-12))
    normal = torch.special.ndtri(inner).numpy() * strength
    offsets = 255.0 * sum(normal[:, [i]] * axes[:, i] for i in range(3))
    shift = torch.from_numpy(offsets.astype(np.float32)).view(-1, 3, 1, 1)
    return in_parts(images, lambda planes, part: planes.add_(shift[part]))


def factors(draws: np.ndarray, reach: float) -> Tensor:
    """N×1×1×1 factors in 1 ± reach from draws in [0, 1)."""
    import torch

    return torch.from_numpy((1 + (2 * draws - 1) * reach).astype(np.float32)).view(-1, 1, 1, 1)


def in_parts(images: np.ndarray, change: Callable[[Tensor, slice], Tensor]) -> np.ndarray:
    """uint8 N×S×S×3 → the same: `change(planes, part)` of some images' float32 n×3×S×S planes, which it may overwrite.

    Some at a time, so that what a dozen operations read and write stays in the processor's cache.
    """
    result = np.empty_like(images)
    at_once = max(1, PART // max(1, images.shape[1] * images.shape[2]))
    for start in range(0, len(images), at_once):
        part = slice(start, start + at_once)
        result[part] = to_bytes(change(to_planes(images[part]), part))
    return result


def to_planes(images: np.ndarray) -> Tensor:
    """uint8 N×S×S×3 → float32 N×3×S×S, a copy."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32).contiguous()


def to_bytes(planes: Tensor) -> np.ndarray:
    """float N×3×S×S → uint8 N×S×S×3: rounded, and held within 0-255. Overwrites the planes."""
    # numpy's conversion and its stacking take a third of the time that torch's take here.
    values = planes.add_(0.5).clamp_(0, 255.5).numpy().astype(np.uint8)
    return np.stack([values[:, 0], values[:, 1], values[:, 2]], axis=-1)


def blend(planes: Tensor, without: Tensor, factor: Tensor) -> Tensor:
    """without + factor·(planes − without), within 0-255. Overwrites the planes."""
    return planes.lerp_(without, 1 - factor).clamp_(0, 255)


def grey(planes: Tensor) -> Tensor:
    """Luma of ITU-R BT.601: N×1×S×S."""
    return (planes[:, :1] * 0.299).add_(planes[:, 1:2], alpha=0.587).add_(planes[:, 2:], alpha=0.114)


def mean_grey(planes: Tensor) -> Tensor:
    """N×1×1×1, summed in float64: the same whatever the other images of the batch."""
    return grey(planes).double().mean((1, 2, 3), keepdim=True).float()


def _brightened(planes: Tensor, factor: Tensor) -> Tensor:
    return planes.mul_(factor).clamp_(0, 255)


def _hue_turned(planes: Tensor, turn: Tensor) -> Tensor:
    """Hue in HSV plus `turn` (1: the whole circle); the largest and smallest channel of each pixel stay.

    Masks are floats that lerp takes its choice by: torch's `where` and `remainder` are no vector loops on a processor.
    """
    import torch

    red, green, blue = planes.unbind(1)
    largest, smallest = planes.amax(1), planes.amin(1)
    chroma = largest - smallest
    mask = torch.empty_like(largest)
    # Six times the hue, as a number of chromas: g − b where red leads, b − r + 2 where green does, r − g + 4 else.
    hue = (red - green).add_(chroma, alpha=4)
    hue.lerp_((blue - red).add_(chroma, alpha=2), torch.eq(largest, green, out=mask))
    hue.lerp_(green - blue, torch.eq(largest, red, out=mask))
    hue.div_(chroma.clamp(min=1e-6)).add_(6 * turn[:, 0])
    hue.sub_((hue / 6).floor_(), alpha=6)
    # Of the chroma, red has min(max(|hue − 3| − 1, 0), 1); green and blue have min(max(2 − |hue − 2 or 4|, 0), 1).
    result, below, above = torch.empty_like(planes), smallest - chroma, smallest.add_(chroma, alpha=2)
    for channel, (centre, sign, start) in enumerate(((3, 1, below), (2, -1, above), (4, -1, above))):
        torch.sub(hue, centre, out=mask)
        torch.addcmul(start, chroma, mask.abs_().clamp_(1, 2), value=sign, out=result[:, channel])
    return result

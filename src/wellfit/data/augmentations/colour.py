"""Changes of colour: brightness, contrast, saturation and hue (SPEC D9), and AlexNet's colour offset (D10).

Factors and angles are each image's own. Kernels that torchvision offers take one factor for a whole batch, so the
blending is done here: between an image and the same image without the property (black, its mean grey, its greys).

Training: factors uniform around 1, hue turns and colour offsets around 0. Test: factor 1, no turn, no offset: their
means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

HUE_SHARE = 0.25  # of the strength: how far "colour_jitter" turns the hue


def brightness(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Multiply by a factor uniform in 1 ± `strength`. uint8 N×S×S×3; draws: N×1."""
    return to_bytes(_brightened(to_planes(images), factors(draws[:, 0], strength)))


def contrast(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Move towards or away from the image's mean grey by a factor uniform in 1 ± `strength`. draws: N×1."""
    return to_bytes(_contrasted(to_planes(images), factors(draws[:, 0], strength)))


def saturation(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Move each pixel towards or away from its grey by a factor uniform in 1 ± `strength`. draws: N×1."""
    return to_bytes(_saturated(to_planes(images), factors(draws[:, 0], strength)))


def hue(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Turn the hue by an angle uniform in ±`strength` of the colour circle, at most half. draws: N×1."""
    return to_bytes(_hue_turned(to_planes(images), factors(draws[:, 0], strength) - 1))


def colour_jitter(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Brightness, contrast and saturation at `strength`, hue at a quarter of it, one after the other. draws: N×4."""
    planes = _brightened(to_planes(images), factors(draws[:, 0], strength))
    planes = _contrasted(planes, factors(draws[:, 1], strength))
    planes = _saturated(planes, factors(draws[:, 2], strength))
    return to_bytes(_hue_turned(planes, factors(draws[:, 3], HUE_SHARE * strength) - 1))


def pca_colour(images: np.ndarray, draws: np.ndarray, strength: float, axes: np.ndarray) -> np.ndarray:
    """Add Σ αᵢλᵢpᵢ to all pixels of an image, αᵢ normal with deviation `strength` (Krizhevsky et al. 2012: 0.1).

    axes: 3×3, column i the i-th eigenvector pᵢ of the training pixels' RGB covariance (in units of 0-1) times its
    eigenvalue λᵢ. draws: N×3.
    """
    import torch

    inner = torch.from_numpy(np.clip(draws, 1e-12, 1 - 1e-12))
    normal = torch.special.ndtri(inner).numpy() * strength
    offsets = 255.0 * sum(normal[:, [i]] * axes[:, i] for i in range(3))
    planes = to_planes(images)
    return to_bytes(planes.add_(torch.from_numpy(offsets.astype(np.float32)).view(-1, 3, 1, 1)))


def factors(draws: np.ndarray, reach: float) -> Tensor:
    """N×1×1×1 factors in 1 ± reach from draws in [0, 1)."""
    import torch

    return torch.from_numpy((1 + (2 * draws - 1) * reach).astype(np.float32)).view(-1, 1, 1, 1)


def to_planes(images: np.ndarray) -> Tensor:
    """uint8 N×S×S×3 → float32 N×3×S×S, a copy."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32).contiguous()


def to_bytes(planes: Tensor) -> np.ndarray:
    """float N×3×S×S → uint8 N×S×S×3: rounded, and held within 0-255."""
    import torch

    return planes.add(0.5).clamp_(0, 255.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def blend(planes: Tensor, without: Tensor, factor: Tensor) -> Tensor:
    """without + factor·(planes − without), within 0-255."""
    return (planes - without).mul_(factor).add_(without).clamp_(0, 255)


def grey(planes: Tensor) -> Tensor:
    """Luma of ITU-R BT.601: N×1×S×S."""
    return planes[:, :1] * 0.299 + planes[:, 1:2] * 0.587 + planes[:, 2:] * 0.114


def mean_grey(planes: Tensor) -> Tensor:
    """N×1×1×1, summed in float64: the same whatever the other images of the batch."""
    return grey(planes).double().mean((1, 2, 3), keepdim=True).float()


def _brightened(planes: Tensor, factor: Tensor) -> Tensor:
    return planes.mul(factor).clamp_(0, 255)


def _contrasted(planes: Tensor, factor: Tensor) -> Tensor:
    return blend(planes, mean_grey(planes), factor)


def _saturated(planes: Tensor, factor: Tensor) -> Tensor:
    return blend(planes, grey(planes), factor)


def _hue_turned(planes: Tensor, turn: Tensor) -> Tensor:
    """Hue in HSV plus `turn` (1: the whole circle); the largest and smallest channel of each pixel stay."""
    import torch

    red, green, blue = planes.unbind(1)
    largest, smallest = planes.amax(1), planes.amin(1)
    chroma = largest - smallest
    divisor = chroma.clamp(min=1e-6)
    sextant = torch.where(
        largest == red,
        (green - blue) / divisor,
        torch.where(largest == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sextant = sextant + 6 * turn[:, 0]
    channels = []
    for offset in (5, 3, 1):  # channel = V − C·max(0, min(k, 4 − k, 1)), k = (offset + hue) mod 6
        k = (sextant + offset).remainder_(6)
        channels.append(largest - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, dim=1)

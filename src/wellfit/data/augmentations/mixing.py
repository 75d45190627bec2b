"""Mixing two images of a batch, and their labels in the same shares (SPEC D14).

Training: image and label of i are blended with those of a partner, λ of the one and 1 − λ of the other, λ from
Beta(α, α). Test: single images with single labels. The mean of the blended targets over all draws is the mean of the
plain ones, and so is the mean of mixup's images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wellfit.randomness import generator

LEVELS = 256  # λ is a multiple of 1/256: blending is then exact in integers, and shares sum to 1 exactly


def mixup(images: np.ndarray, partners: np.ndarray, share: float, place: np.ndarray) -> tuple[np.ndarray, float]:
    """λ·image + (1 − λ)·partner (Zhang et al. 2018); (the images, λ as it was applied).

    images, partners: uint8 N×S×S×3. share: λ in [0, 1]. place: not needed.
    """
    weight = round(share * LEVELS)
    blended = images.astype(np.uint16)
    blended *= weight
    blended += partners.astype(np.uint16) * np.uint16(LEVELS - weight)
    blended += LEVELS // 2
    blended >>= 8
    return blended.astype(np.uint8), weight / LEVELS


def cutmix(images: np.ndarray, partners: np.ndarray, share: float, place: np.ndarray) -> tuple[np.ndarray, float]:
    """Paste the partner's rectangle of area 1 − λ, its centre anywhere (Yun et al. 2019); (the images, share left).

    place: two numbers in [0, 1), the centre. What reaches over the rim is cut off, and λ is the share that is left.
    """
    side = images.shape[1]
    length = round(side * np.sqrt(1 - share))
    centre = (np.asarray(place) * side).astype(int)
    top, left = np.maximum(centre - length // 2, 0)
    bottom, right = np.minimum(centre - length // 2 + length, side)
    result = images.copy()
    result[:, top:bottom, left:right] = partners[:, top:bottom, left:right]
    return result, 1 - int((bottom - top) * (right - left)) / side**2


MIXINGS: dict[str, Callable[[np.ndarray, np.ndarray, float, np.ndarray], tuple[np.ndarray, float]]] = {
    "mixup": mixup,
    "cutmix": cutmix,
}


def soft_targets(targets: np.ndarray, partners: np.ndarray, share: float, classes: int) -> np.ndarray:
    """float32 N×C: `share` for the image's class, the rest for its partner's; rows sum to 1.

    >>> soft_targets(np.array([0]), np.array([1]), 0.4, 2)  # cat 0.4, dog 0.6
    array([[0.4, 0.6]], dtype=float32)
    """
    rows = np.arange(len(targets))
    result = np.zeros((len(targets), classes), dtype=np.float32)
    result[rows, targets] = share
    result[rows, partners] += np.float32(1 - share)
    return result


@dataclass(frozen=True)
class Blend:
    """What a batch of N images is blended by. order: N, the partner of each; place: two numbers in [0, 1)."""

    name: str
    share: float
    place: np.ndarray
    order: np.ndarray
    classes: int

    def __call__(
        self, images: np.ndarray, partners: np.ndarray, targets: np.ndarray, partners_targets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images and targets of the batch, or of a part of it, with those of their partners."""
        mixed, left = MIXINGS[self.name](images, partners, self.share, self.place)
        return mixed, soft_targets(targets, partners_targets, left, self.classes)


def draw_blend(mixings: Sequence[tuple[str, float]], images: int, *, classes: int, seed: int, step: int) -> Blend:
    """One of the (name, α), each with the same chance, for a batch of so many images.

    The draws' key is (seed, "mixing", step): one λ and one order of partners for the batch.
    """
    draw = generator(seed, "mixing", step)
    name, alpha = mixings[int(draw.integers(len(mixings)))]
    share = float(draw.beta(alpha, alpha))
    place = draw.random(2)
    return Blend(name, share, place, draw.permutation(images), classes)


def mix(
    images: np.ndarray,
    targets: np.ndarray,
    mixings: Sequence[tuple[str, float]],
    *,
    classes: int,
    seed: int,
    step: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mix a whole batch by what `draw_blend` draws: images uint8 N×S×S×3, targets float32 N×C."""
    blend = draw_blend(mixings, len(images), classes=classes, seed=seed, step=step)
    return blend(images, images[blend.order], targets, targets[blend.order])

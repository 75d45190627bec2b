"""Policies that choose operations at random: AutoAugment, RandAugment, TrivialAugment (SPEC D12).

Training: each image is changed by operations drawn for it. Test: the image as it is. Here the two sides are not
middle and end of one scale: a policy's mean image is no photograph, and the published gains are measured.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from wellfit.data.augmentations.operations import OPERATIONS, STANDARD, WIDE, apply_operations

POLICIES = ("imagenet", "cifar10", "svhn")
CHOICES = np.array([name for name in OPERATIONS if name != "Invert"])  # of RandAugment and TrivialAugment
LEVELS = 30  # RandAugment's and TrivialAugment's scale ends here


def autoaugment(images: np.ndarray, draws: np.ndarray, policy: str, fill: np.ndarray) -> np.ndarray:
    """One of the policy's 25 pairs of operations for each image (Cubuk et al. 2018; torchvision's tables).

    policy: "imagenet", "cifar10" or "svhn", the data it was found on. draws: N×5. uint8 N×S×S×3.
    """
    names, chances, levels = _pairs(policy)
    pair = (draws[:, 0] * len(names)).astype(np.int64)
    for turn in range(2):
        applied = draws[:, 1 + 2 * turn] < chances[pair, turn]
        operation = np.where(applied, names[pair, turn], "Identity")
        images = apply_operations(images, operation, levels[pair, turn] * _sign(draws[:, 2 + 2 * turn]), fill, STANDARD)
    return images


def randaugment(images: np.ndarray, draws: np.ndarray, magnitude: float, fill: np.ndarray) -> np.ndarray:
    """Two operations for each image, of the same magnitude on a scale of 0 to 30 (Cubuk et al. 2019). draws: N×4."""
    for turn in range(2):
        operation = CHOICES[(draws[:, 2 * turn] * len(CHOICES)).astype(np.int64)]
        levels = magnitude / LEVELS * _sign(draws[:, 2 * turn + 1])
        images = apply_operations(images, operation, levels, fill, STANDARD)
    return images


def trivialaugment(images: np.ndarray, draws: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """One operation for each image at a level drawn from the wide ranges (Müller & Hutter 2021). draws: N×3."""
    operation = CHOICES[(draws[:, 0] * len(CHOICES)).astype(np.int64)]
    levels = np.floor(draws[:, 1] * (LEVELS + 1)) / LEVELS * _sign(draws[:, 2])
    return apply_operations(images, operation, levels, fill, WIDE)


def _sign(draws: np.ndarray) -> np.ndarray:
    return np.where(draws < 0.5, -1.0, 1.0)


@cache
def _pairs(policy: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names, chances and levels in [0, 1] of a policy's operations, each 25×2."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    table = AutoAugment(AutoAugmentPolicy(policy)).policies
    names = np.array([[name for name, _, _ in pair] for pair in table])
    chances = np.array([[chance for _, chance, _ in pair] for pair in table])
    levels = np.array([[(level or 0) / 9 for _, _, level in pair] for pair in table])  # ten levels, 0 to 9
    return names, chances, levels

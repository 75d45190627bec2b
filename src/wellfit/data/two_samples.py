"""Do two samples differ within their classes, by more than chance and by enough to matter?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """One measure on both sides.

    first, second: class-weighted means. effect: how far the chance that a value of the second sample is the larger one
    lies from a half, within classes; −0.5 to 0.5. z: its distance from 0 in standard errors.
    """

    first: float
    second: float
    effect: float
    z: float


def within_classes(
    first: np.ndarray, first_classes: np.ndarray, second: np.ndarray, second_classes: np.ndarray
) -> Difference:
    """Compare N and M numbers class by class, by ranks (van Elteren 1960), so that no class shift can show.

    Classes that stand on one side only are left out; nothing in common gives an effect and z of 0.
    """
    weighted, variance, total, means = 0.0, 0.0, 0.0, np.zeros(2)
    for name in np.intersect1d(first_classes, second_classes):
        a, b = first[first_classes == name], second[second_classes == name]
        n, m = len(a), len(b)
        rank, ties = _midranks(np.concatenate([a, b]))
        chance = (rank[n:].sum() - m * (m + 1) / 2) / (n * m)
        whole = n + m
        spread = (whole + 1 - ties / (whole * (whole - 1))) / (12 * n * m)
        weight = n * m / whole
        weighted += weight * (chance - 0.5)
        variance += weight**2 * spread
        means += weight * np.array([a.mean(), b.mean()])
        total += weight
    if not total:
        return Difference(float("nan"), float("nan"), 0.0, 0.0)
    z = weighted / variance**0.5 if variance > 0 else 0.0
    return Difference(float(means[0] / total), float(means[1] / total), float(weighted / total), float(z))


def _midranks(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Ranks from 1, equal values sharing their mean rank; and Σ(t³ − t) over the groups of equal values."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return ranks[group.reshape(-1)], float((counts.astype(np.float64) ** 3 - counts).sum())

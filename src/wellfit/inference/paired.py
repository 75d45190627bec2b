"""Two classifiers on the same images: is the difference more than chance? (plain Python)

Only images on which exactly one of the two is right tell them apart. Were the two equally good, each such image would
fall to either side like a fair coin (McNemar 1947, "Note on the sampling error of the difference between correlated
proportions").
"""

from __future__ import annotations

import math
from statistics import NormalDist

from wellfit.errors import UserError


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value in (0, 1]: how often a fair coin falls at least as unevenly as `only_a` to `only_b`.

    only_a, only_b: images that A alone, or B alone, named rightly. 1 where there are none.
    """
    if only_a < 0 or only_b < 0:
        raise UserError(f"images are counted from 0, got {only_a} and {only_b}; count again")
    n, fewer = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    # From the largest term downwards; each is the one before it times i / (n − i + 1).
    term = math.exp(math.lgamma(n + 1) - math.lgamma(fewer + 1) - math.lgamma(n - fewer + 1) - n * math.log(2))
    terms = [term]
    for i in range(fewer, 0, -1):
        term *= i / (n - i + 1)
        if term < 1e-18 * terms[0]:
            break
        terms.append(term)
    return min(1.0, 2 * math.fsum(terms))


def paired_difference(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """(difference, low, high) of accuracy B minus accuracy A on `n` images, in [-1, 1].

    The interval adds half an image to each cell of the 2×2 table, which keeps its promise also for few images
    (Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions").
    """
    if n < 1 or not 0 <= only_a + only_b <= n:
        raise UserError(
            f"a difference is measured on at least one image, and on those that tell apart, got {n} with "
            f"{only_a} and {only_b}; count again"
        )
    padded = n + 2
    centre = (only_b - only_a) / padded
    spread = math.sqrt(max(0.0, (only_a + only_b + 1) - (only_b - only_a) ** 2 / padded)) / padded
    half = NormalDist().inv_cdf((1 + confidence) / 2) * spread
    return (only_b - only_a) / n, max(-1.0, centre - half), min(1.0, centre + half)

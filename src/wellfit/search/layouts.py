"""Random against grid on the taught function: one setting matters, the other hardly does (SPEC S2).

Bergstra & Bengio 2012, "Random Search for Hyper-Parameter Optimization", figure 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wellfit.report.curves import Floats
from wellfit.report.curves_layouts import Layout, Layouts
from wellfit.search.samplers import grid, settings_of
from wellfit.search.space import Space, Uniform

SPACE: Space = {"important": Uniform(0.0, 1.0), "unimportant": Uniform(0.0, 1.0)}


HILL, WIDTH = 0.7, 0.1  # where the drawn function has its best, and how narrow that is


def important_part(x: ArrayLike, hill: float = HILL) -> Floats:
    """A narrow hill, one high: what the important setting adds to the score."""
    return np.exp(-0.5 * ((np.asarray(x, np.float64) - hill) / WIDTH) ** 2)


def unimportant_part(y: ArrayLike) -> Floats:
    """A low, broad hill at 0.4, a tenth high: what the unimportant setting adds."""
    return 0.1 * np.exp(-0.5 * ((np.asarray(y, np.float64) - 0.4) / 0.3) ** 2)


def compare_layouts(count: int = 9, seed: int = 0, functions: int = 500) -> Layouts:
    """`count` trials on a grid and at random, by the samplers of the search, on one function that is drawn.

    functions: how many more of them, with hills evenly over the range, the averages are taken over. The random layout
    is drawn anew for each.
    """
    even = _points(grid(SPACE, count))
    drawn = [_points(_random(count, seed, which)) for which in range(functions)]
    hills = np.linspace(0, 1, functions)
    averages = [
        np.mean([_scores(points, hill).max() for points, hill in zip(many, hills, strict=True)])
        for many in ([even] * functions, drawn)
    ]
    layouts = tuple(
        Layout(name, points, _scores(points, HILL), len(np.unique(points[:, 0])), float(average))
        for name, points, average in zip(("grid", "random"), (even, drawn[0]), averages, strict=True)
    )
    places = np.linspace(0, 1, 401)
    return Layouts(layouts, places, important_part(places), unimportant_part(places))


def _random(count: int, seed: int, which: int) -> list[dict[str, Any]]:
    return [settings_of("random", SPACE, seed=seed, number=which * count + i) for i in range(count)]


def _points(settings: list[dict[str, Any]]) -> Floats:
    return np.array([[each["important"], each["unimportant"]] for each in settings], np.float64)


def _scores(points: Floats, hill: float) -> Floats:
    return important_part(points[:, 0], hill) + unimportant_part(points[:, 1])

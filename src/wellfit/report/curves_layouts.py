"""Figure data: the same number of trials on a grid and at random, where one setting matters and another hardly does."""

from __future__ import annotations

from dataclasses import dataclass

from wellfit.report.curves import Floats


@dataclass(frozen=True)
class Layout:
    """Trials of two settings in [0, 1]: points N × 2 (important, unimportant) and their scores.

    values: different values of the important setting among them.
    best_on_average: the best score of such a layout, averaged over functions that differ in where their best lies.
    """

    name: str
    points: Floats
    scores: Floats
    values: int
    best_on_average: float


@dataclass(frozen=True)
class Layouts:
    """Layouts side by side; places in [0, 1], and what each setting alone adds to the score there."""

    layouts: tuple[Layout, ...]
    places: Floats
    important: Floats
    unimportant: Floats

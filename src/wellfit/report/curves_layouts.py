"""Figure data: the same number of trials on a grid and at random, where one setting matters and another hardly does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wellfit.record import RunFolder
from wellfit.report.curves import Floats

FILE = "layouts.npz"  # among a run's arrays


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


def keep_layouts(folder: RunFolder, layouts: Layouts) -> None:
    """Put them among a run's arrays, for its page."""
    folder.arrays.mkdir(exist_ok=True)
    each: dict[str, Any] = {
        f"{part}-{layout.name}": value
        for layout in layouts.layouts
        for part, value in (
            ("points", layout.points),
            ("scores", layout.scores),
            ("best", np.array([layout.values, layout.best_on_average])),
        )
    }
    curves: dict[str, Any] = {
        "places": layouts.places,
        "important": layouts.important,
        "unimportant": layouts.unimportant,
    }
    np.savez(folder.arrays / FILE, **curves, **each)


def read_layouts(folder: RunFolder) -> Layouts | None:
    """What `keep_layouts` kept; None where it is missing or cannot be read."""
    try:
        with np.load(folder.arrays / FILE, allow_pickle=False) as file:
            names = [key.removeprefix("points-") for key in file.files if key.startswith("points-")]
            made = tuple(
                Layout(
                    name,
                    file[f"points-{name}"],
                    file[f"scores-{name}"],
                    int(file[f"best-{name}"][0]),
                    float(file[f"best-{name}"][1]),
                )
                for name in names
            )
            return Layouts(made, file["places"], file["important"], file["unimportant"])
    except (OSError, ValueError, KeyError, IndexError):
        return None

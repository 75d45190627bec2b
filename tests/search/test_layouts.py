"""Random against grid on the taught function, and its drawing."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from wellfit.report.static_layouts import draw_layouts
from wellfit.search.layouts import SPACE, compare_layouts, important_part, unimportant_part
from wellfit.search.space import contains


def test_nine_random_trials_try_nine_values_of_the_setting_that_matters_and_a_grid_three() -> None:
    grid, random = compare_layouts(9).layouts
    assert (grid.name, grid.values, len(grid.points)) == ("grid", 3, 9)
    assert (random.name, random.values, len(random.points)) == ("random", 9, 9)
    for layout in (grid, random):
        assert all(contains(SPACE, {"important": x, "unimportant": y}) for x, y in layout.points)
        assert layout.scores == pytest.approx(
            important_part(layout.points[:, 0]) + unimportant_part(layout.points[:, 1])
        )


@pytest.mark.parametrize("count", [4, 9, 16])
def test_random_finds_more_on_average_for_the_same_number_of_trials(count: int) -> None:
    grid, random = compare_layouts(count, functions=300).layouts
    assert random.best_on_average > grid.best_on_average + 0.05


def test_the_average_of_the_grid_is_that_of_its_nearest_line() -> None:
    """By hand: with lines at 0, 0.5 and 1 the best is the hill's height at the nearest line, and up to 0.1 more."""
    hills = np.linspace(0, 1, 500)
    nearest = np.min(np.abs(hills[:, None] - np.array([0.0, 0.5, 1.0])), axis=1)
    expected = np.exp(-0.5 * (nearest / 0.1) ** 2).mean() + unimportant_part(np.array([0.0, 0.5, 1.0])).max()
    assert compare_layouts(9).layouts[0].best_on_average == pytest.approx(expected, abs=1e-12)


def test_the_drawing_is_well_formed_says_both_and_is_the_same_each_time() -> None:
    layouts = compare_layouts(9, functions=20)
    svg = draw_layouts(layouts)
    ElementTree.fromstring(svg)
    assert "grid: 3 values tried" in svg
    assert "random: 9 values tried" in svg
    assert draw_layouts(layouts) == svg

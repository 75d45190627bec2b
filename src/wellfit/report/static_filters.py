"""Draws a network's first filters as one grid of small pictures (SPEC C11)."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from wellfit.report.curves_filters import Filters, columns_for
from wellfit.report.drawing import STYLE, as_svg

_WIDE = 8.4  # inches of a full row
_LARGEST = 0.55  # inches of one filter: a few small ones must not fill the page


def draw_filters(filters: Filters) -> str:
    """The grid as SVG text."""
    return as_svg(lambda figure: _draw(figure, filters), "filters", _inches(filters))


def plot_filters(filters: Filters, figure: Figure | None = None) -> Figure:
    """The grid on a matplotlib figure of its own, or on the one given."""
    style: Any = STYLE
    with mpl.rc_context(style):
        target = Figure(figsize=_inches(filters), layout="constrained") if figure is None else figure
        _draw(target, filters)
    return target


def _inches(filters: Filters) -> tuple[float, float]:
    count, height, width = filters.colours.shape[:3]
    columns = columns_for(count)
    cell = min(_LARGEST, _WIDE / columns)
    return cell * columns + 0.1, cell * height / width * -(-count // columns) + 0.1


def _draw(figure: Figure, filters: Filters) -> None:
    axes = figure.subplots()
    axes.imshow(filters.mosaic(), interpolation="none")
    axes.set_axis_off()

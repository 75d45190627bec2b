"""Draws accuracy against operations for many nets, the area of a mark by parameters (after Canziani et al. 2016)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from wellfit.report.drawing import PALETTE, STYLE, as_percent, as_svg, label, plain_axes

INCHES = (9.5, 6.0)
AREA_PER_MILLION = 5.0  # square points of a mark for each million parameters


@dataclass(frozen=True)
class Point:
    """One net: flops of one image, accuracy in [0, 1], number of parameters."""

    name: str
    flops: int
    accuracy: float
    parameters: int


def draw_models(points: Sequence[Point]) -> str:
    """The figure as SVG text."""
    return as_svg(lambda figure: _draw(figure, points), "models", INCHES)


def draw_models_png(points: Sequence[Point]) -> bytes:
    """The figure as a PNG file, on the page's ground."""
    style: Any = STYLE
    with mpl.rc_context(style):
        figure = Figure(figsize=INCHES, layout="constrained", facecolor=PALETTE["ground"])
        _draw(figure, points)
        for axes in figure.axes:
            axes.set_facecolor(PALETTE["ground"])
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _draw(figure: Figure, points: Sequence[Point]) -> None:
    axes = figure.subplots()
    # Large marks first, so that small ones lie on top of them.
    ordered = sorted(points, key=lambda point: -point.parameters)
    flops = np.array([point.flops for point in ordered], float)
    accuracy = np.array([point.accuracy for point in ordered])
    areas = np.array([point.parameters for point in ordered]) / 1e6 * AREA_PER_MILLION
    best = _front(flops, accuracy)
    for chosen, colour in ((~best, "train"), (best, "validation")):
        ground = PALETTE[colour]
        axes.scatter(flops[chosen], accuracy[chosen], areas[chosen], c=ground, alpha=0.3, lw=0)
        axes.scatter(flops[chosen], accuracy[chosen], 7, c=ground, lw=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _in_billions(value)))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.yaxis.set_major_formatter(as_percent)
    axes.margins(x=0.08, y=0.1)
    plain_axes(axes)
    label(axes, "operations of one image in billions (2 × multiply-adds)", "published top-1 accuracy")
    figure.canvas.draw_idle()
    _name(axes, ordered, best)
    _areas(axes)


def _front(flops: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Which nets no other one beats in accuracy with as few operations: bool (N,)."""
    order = np.lexsort((-accuracy, flops))
    before = np.maximum.accumulate(np.concatenate([[-np.inf], accuracy[order][:-1]]))
    best = np.zeros(len(flops), bool)
    best[order] = accuracy[order] > before
    return best


def _name(axes: Axes, ordered: Sequence[Point], best: np.ndarray) -> None:
    """Write names where there is room for them: those on the front first, then the rest, largest first."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    # A name covers neither another name nor the middle of a mark.
    middles = axes.transData.transform([(point.flops, point.accuracy) for point in ordered]) * 72 / figure.dpi
    taken = [(x - 2, y - 2, x + 2, y + 2) for x, y in middles]
    inside = axes.get_window_extent().padded(-2)
    edges = np.array([inside.x0, inside.x1]) * 72 / figure.dpi
    wanted = sorted(range(len(ordered)), key=lambda i: (not best[i], ordered[i].flops))
    for i in wanted:
        point = ordered[i]
        x, y = middles[i]
        width, height = 5.2 * len(point.name), 11.0
        places = (("left", x + 5, y - 4, (5, -3)), ("right", x - 5 - width, y - 4, (-5, -3)))
        for side, left, below, offset in (*places, ("center", x - width / 2, y + 5, (0, 6))):
            box = (left, below, left + width, below + height)
            if left < edges[0] or left + width > edges[1]:
                continue
            if all(box[2] < t[0] or box[0] > t[2] or box[3] < t[1] or box[1] > t[3] for t in taken):
                taken.append(box)
                style: Any = {"ha": side, "fontsize": 8.5, "color": PALETTE["ink" if best[i] else "muted"]}
                axes.annotate(point.name, (point.flops, point.accuracy), offset, textcoords="offset points", **style)
                break


def _areas(axes: Axes) -> None:
    """A legend of areas, and what the two colours mean."""
    handles = [
        axes.scatter([], [], millions * AREA_PER_MILLION, c=PALETTE["muted"], alpha=0.3, lw=0, label=f"{millions} M")
        for millions in (5, 25, 100)
    ]
    handles.append(axes.scatter([], [], 30, c=PALETTE["validation"], lw=0, label="none better for less"))
    axes.legend(
        handles=handles, title="parameters", loc="lower right", labelspacing=1.4, borderpad=1.2, handletextpad=1.4
    )


def _in_billions(value: float) -> str:
    return f"{value / 1e9:g}"

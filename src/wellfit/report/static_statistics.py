"""Draws histograms of activations side by side, one a layer, as a matplotlib figure or as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from wellfit.report.curves_statistics import Histogram
from wellfit.report.drawing import PALETTE, STYLE, as_svg
from wellfit.report.words import figure as number_text
from wellfit.report.words import plain

COLUMNS = 5
_CELL = (2.1, 1.75)  # inches of one histogram
# A pile of zeros, as every ReLU has, must not flatten the rest: bars end here, and say how high they are.
_TALLEST = 0.3


def plot_histograms(histograms: Sequence[Histogram], figure: Figure | None = None) -> Figure:
    """Histograms on a figure of its own, or on the one given. Reader's settings of matplotlib are left alone."""
    style: Any = STYLE
    with mpl.rc_context(style):
        target = Figure(figsize=_inches(len(histograms)), layout="constrained") if figure is None else figure
        _draw(target, histograms)
    return target


def draw_histograms(histograms: Sequence[Histogram], name: str = "activations") -> str:
    """The same as SVG text, for the page."""
    return as_svg(lambda figure: _draw(figure, histograms), name, _inches(len(histograms)))


def _inches(n: int) -> tuple[float, float]:
    columns = min(n, COLUMNS)
    return _CELL[0] * columns, _CELL[1] * -(-n // COLUMNS) + 0.15


def _draw(figure: Figure, histograms: Sequence[Histogram]) -> None:
    n = len(histograms)
    grid = figure.subplots(-(-n // COLUMNS), min(n, COLUMNS), squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= n:
            axes.set_visible(False)
            continue
        shown = histograms[place]
        edges, shares = shown.edges, shown.shares
        top = _TALLEST if shares.max() > _TALLEST else max(0.02, 1.15 * float(shares.max()))
        axes.bar(edges[:-1], np.minimum(shares, top), np.diff(edges), align="edge", color=PALETTE["train"], lw=0)
        for i in np.flatnonzero(shares > top)[:3]:
            right = edges[i] < (shown.low + shown.high) / 2
            axes.annotate(
                f"{100 * shares[i]:.0f}%",
                (edges[i + 1] if right else edges[i], top),
                (3 if right else -3, -2),
                textcoords="offset points",
                ha="left" if right else "right",
                va="top",
                fontsize=8,
                color=PALETTE["alarm"],
            )
        axes.set_title(plain(shown.name, 24), fontsize=9, color=PALETTE["ink"])
        said = f"mean {number_text(shown.mean)}\nstd {number_text(shown.std)}"
        if shown.gradient_std is not None:
            said += f"\ngradient std {number_text(shown.gradient_std)}"
        axes.text(
            0.97, 0.78 if shares.max() > _TALLEST else 0.95, said, transform=axes.transAxes,
            ha="right", va="top", fontsize=7.5, color=PALETTE["muted"],
        )  # fmt: skip
        axes.set_xlim(shown.low, shown.high)
        axes.set_ylim(0, top)
        axes.set_yticks([])
        axes.set_xticks([shown.low, (shown.low + shown.high) / 2, shown.high])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: number_text(v)))
        axes.tick_params(length=0, labelsize=8)
        axes.spines[["top", "right", "left"]].set_visible(False)

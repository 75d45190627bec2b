"""Draws layouts of trials side by side, with what each setting alone adds to the score along the edges."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wellfit.report.curves_layouts import Layout, Layouts
from wellfit.report.drawing import PALETTE, as_svg, label

_EACH = (4.2, 4.3)  # inches of one layout


def draw_layouts(layouts: Layouts) -> str:
    """One square a layout as SVG text: trials, their shadow on the important setting, and the two hills."""

    def draw(figure: Figure) -> None:
        n = len(layouts.layouts)
        grid = figure.subplots(2, 2 * n, width_ratios=[5, 0.9] * n, height_ratios=[1.5, 5])
        for i, layout in enumerate(layouts.layouts):
            top, corner, square, side = grid[0, 2 * i], grid[0, 2 * i + 1], grid[1, 2 * i], grid[1, 2 * i + 1]
            corner.set_visible(False)
            _square(square, layout)
            _hills(top, side, layouts, layout)

    n = len(layouts.layouts)
    return as_svg(draw, "layouts", (_EACH[0] * n, _EACH[1]))


def _square(axes: Axes, layout: Layout) -> None:
    axes.vlines(layout.points[:, 0], 0, 1.04, color=PALETTE["grid"], lw=1)
    axes.plot(layout.points[:, 0], layout.points[:, 1], "o", ms=7, color=PALETTE["train"], clip_on=False, zorder=3)
    best = layout.points[layout.scores.argmax()]
    axes.plot(*best[:, None], "o", ms=14, mfc="none", mew=1.8, color=PALETTE["ink"], clip_on=False, zorder=3)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.04, 1.04), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_facecolor("none")
    label(axes, "the setting that matters", "the one that hardly does")


def _hills(top: Axes, side: Axes, layouts: Layouts, layout: Layout) -> None:
    colour = PALETTE["validation"]
    top.fill_between(layouts.places, layouts.important, color=colour, alpha=0.25, lw=0)
    top.plot(layouts.places, layouts.important, color=colour, lw=1.6)
    heights = _important_at(layouts, layout)
    top.vlines(layout.points[:, 0], 0, heights, color=PALETTE["train"], lw=1.4)
    top.plot(layout.points[:, 0], heights, "o", ms=4, color=PALETTE["train"], clip_on=False)
    side.fill_betweenx(layouts.places, layouts.unimportant, color=colour, alpha=0.25, lw=0)
    side.plot(layouts.unimportant, layouts.places, color=colour, lw=1.6)
    top.set(xlim=(-0.03, 1.03), ylim=(0, 1.15))
    side.set(ylim=(-0.04, 1.04), xlim=(0, 1.0))
    for axes in (top, side):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    top.set_title(
        f"{layout.name}: {layout.values} values tried, best on average {layout.best_on_average:.2f}",
        fontsize=10.5,
        color=PALETTE["ink"],
        loc="left",
    )


def _important_at(layouts: Layouts, layout: Layout) -> list[float]:
    """Height of the important hill below each trial, by the nearest place of the curve."""
    nearest = [int(abs(layouts.places - x).argmin()) for x in layout.points[:, 0]]
    return [float(layouts.important[i]) for i in nearest]

"""Palette, style and the way to SVG that every figure shares.

Nothing here touches pyplot or the reader's matplotlib settings. The same data give the same bytes: ids
are hashed with the figure's name, so that several figures can stand in one page, and no date is written.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray

from wellfit.report.palette import PALETTE
from wellfit.report.words import figure as number_text

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.usetex": False,
    "text.parse_math": False,  # a class may be called "$x$"
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "axes.edgecolor": PALETTE["muted"],
    "axes.linewidth": 0.8,
    "axes.labelcolor": PALETTE["muted"],
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "text.color": PALETTE["ink"],
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.solid_capstyle": "round",
    "figure.dpi": 72.0,
    "savefig.dpi": 144.0,
    "savefig.bbox": None,
    "image.composite_image": False,
    "path.simplify": True,
}
HALF = (6.0, 4.1)  # inches of a figure that fills half the page
_LEGEND_ROW = 76  # letters that fit above such a figure


def themed(svg: str) -> str:
    """The SVG with the palette's colours as CSS variables (`--train`, …), for a page with a light and a dark side."""
    by_value = {value: name for name, value in PALETTE.items()}
    return re.sub("|".join(by_value), lambda found: f"var(--{by_value[found[0]]})", svg)


def as_svg(draw: Callable[[Figure], None], name: str, inches: tuple[float, float] = HALF) -> str:
    style: Any = {**STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style), warnings.catch_warnings():
        # Text stays text in the SVG, so a glyph that matplotlib's font lacks is drawn by the reader's browser.
        warnings.filterwarnings("ignore", message=r".*[Gg]lyph")
        figure = Figure(figsize=inches, layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    # Groups are numbered from 1 in every figure; only inside tags, so that no text is touched.
    svg = re.sub(
        r"<[a-zA-Z][^>]*>",
        lambda tag: re.sub(r'(\sid="|href="#|url\(#)(?!' + name + "-)", rf"\g<1>{name}-", tag[0]),
        svg,
    )
    return svg.strip()


def plain_axes(*many: Axes) -> None:
    for axes in many:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True)
        axes.tick_params(length=0, which="both")


def label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def legend_above(axes: Axes, **options: Any) -> None:
    """A legend above the axes, where no data can lie under it: in a row, or in columns where names are long."""
    names = [handle.get_label() for handle in options.get("handles", axes.get_legend_handles_labels()[0])]
    letters = [len(str(name)) + 6 for name in names]  # with the key and the gap
    row = sum(letters) <= _LEGEND_ROW or not letters
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.99),
        ncols=4 if row else max(1, _LEGEND_ROW // max(letters)),
        columnspacing=1.1,
        handlelength=1.4,
        handletextpad=0.5,
        **options,
    )


def level(axes: Axes, height: float, text: str, colour: str = "muted") -> None:
    """A dotted line at a height that means something, named at its right end where it is in view.

    Without clipping, a name beyond the limits would be given room by the layout, until none is left for the axes.
    """
    axes.axhline(height, color=PALETTE[colour], lw=1, ls=":")
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(
        text, (1, height), (-2, 3), ha="right", fontsize=9, color=PALETTE[colour], annotation_clip=True, **place
    )


def on_even_steps(steps: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns measured at uneven steps, for a picture whose columns are evenly wide: each is shown until the next."""
    if len(steps) < 3 or np.ptp(np.diff(steps)) == 0:
        return table
    shown = np.linspace(steps[0], steps[-1], min(480, 4 * len(steps)))
    return table[:, np.searchsorted(steps, shown, side="right") - 1]


def as_percent(share: float, _position: float = 0.0) -> str:
    """The name of a tick, with as many digits as the tick has: `0.375` → "37.5%"."""
    return f"{round(100 * share, 6):g}%"


def log_ticks(axes: Axes, which: str, most: int) -> None:
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(numticks=most))
    axis.set_major_formatter(FuncFormatter(lambda v, _: number_text(v)))
    axis.set_minor_formatter(FuncFormatter(lambda v, _: ""))

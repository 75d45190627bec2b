"""Draws the figure data of `curves` as SVG strings with matplotlib: for the page and for paper."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from wellfit.report.curves import AccuracyCurve, Confusion, LossCurve, Reliability, UpdateRatios
from wellfit.report.drawing import (
    HALF,
    PALETTE,
    as_percent,
    as_svg,
    label,
    legend_above,
    level,
    log_ticks,
    on_even_steps,
    plain_axes,
)
from wellfit.report.words import figure as number_text
from wellfit.report.words import percent, plain

# Purple below the healthy value, white at it, orange above.
_RATIO_MAP = "PuOr_r"


def draw_loss(curve: LossCurve) -> str:
    """Loss of each step as dots with its moving average; the learning rate below, on a logarithmic axis."""

    def draw(figure: Figure) -> None:
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        top.plot(curve.steps, curve.losses, ".", ms=4, mew=0, color=PALETTE["train"], alpha=0.4, label="one step")
        top.plot(
            curve.average_steps,
            curve.average,
            color=PALETTE["train"],
            lw=2,
            label=f"average over about {curve.horizon} steps",
        )
        if curve.guessing is not None:
            level(top, curve.guessing, f"even guess {curve.guessing:.2f}")
        for i, step in enumerate(curve.lost[:20]):
            top.axvline(step, color=PALETTE["alarm"], lw=1, label="loss not finite" if i == 0 else None)
        _loss_axis(top, curve)
        legend_above(top)
        rates = curve.lr[curve.lr > 0]
        if len(rates):
            below.plot(curve.lr_steps, np.where(curve.lr > 0, curve.lr, np.nan), color=PALETTE["muted"], lw=1.6)
            below.set_yscale("log")
            if rates.max() < 20 * rates.min():
                below.set_ylim(rates.max() / 30, rates.max() * 2)
            else:
                below.set_ylim(max(rates.min() / 2, rates.max() / 1e4), rates.max() * 2)
            log_ticks(below, "y", 3)
        plain_axes(top, below)
        label(below, "step", "learning rate")

    return as_svg(draw, "loss")


def draw_accuracy(curve: AccuracyCurve) -> str:
    """Train, validation and averaged-weights accuracy; the gap named where it was last measured."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        dots = "o" if len(curve.steps) <= 40 else ""
        lines = (
            ("train", curve.train, "-"),
            ("validation", curve.validation, "-"),
            ("averaged", curve.averaged, "--"),
        )
        names = {"train": "train", "validation": "validation", "averaged": "averaged weights"}
        for name, values, dash in lines:
            seen = np.isfinite(values)
            if seen.any():
                axes.plot(
                    curve.steps[seen],
                    values[seen],
                    dash,
                    marker=dots,
                    ms=3.5,
                    lw=2,
                    color=PALETTE[name],
                    label=names[name],
                )
        if curve.best is not None and curve.best_step is not None:
            axes.plot(
                [curve.best_step],
                [curve.best],
                "*",
                ms=13,
                mew=0,
                color=PALETTE["ink"],
                label=f"best {percent(curve.best)}",
            )
        if curve.gap is not None and curve.gap_step is not None and abs(curve.gap) >= 0.005:
            at = int(np.flatnonzero(curve.steps == curve.gap_step)[-1])
            ends = sorted((curve.train[at], curve.validation[at]))
            low, high = axes.get_ylim()
            under = ends[0] > low + 0.2 * (high - low)  # rising lines leave room below their end
            axes.plot([curve.gap_step] * 2, ends, color=PALETTE["muted"], lw=1.2, marker="_", ms=8)
            axes.annotate(
                f"gap {100 * curve.gap:+.1f} points",
                (curve.gap_step, ends[0] if under else ends[1]),
                (4, -9 if under else 9),
                textcoords="offset points",
                ha="right",
                va="top" if under else "bottom",
                fontsize=9,
                color=PALETTE["ink"],
            )
        if curve.chance is not None:
            level(axes, curve.chance, f"guessing {percent(curve.chance)}")
        low, high = axes.get_ylim()
        axes.set_ylim(max(0.0, low - 0.02), min(1.02, high + 0.02))
        axes.yaxis.set_major_formatter(as_percent)
        legend_above(axes)
        plain_axes(axes)
        label(axes, "step", "accuracy")

    return as_svg(draw, "accuracy")


def draw_update_ratios(ratios: UpdateRatios) -> str:
    """Update / weight size over time: lines for up to 8 parameters, a heat map centred on 1e-3 for more."""
    many = len(ratios.parameters) > 8
    height = 4.3 if not many else min(10.5, 1.4 + 0.15 * len(ratios.parameters))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if many:
            ends = (ratios.steps[0], ratios.steps[-1] if len(ratios.steps) > 1 else ratios.steps[0] + 1)
            image = axes.imshow(
                np.ma.masked_invalid(on_even_steps(ratios.steps, ratios.logs)),
                aspect="auto",
                interpolation="none",
                cmap=_RATIO_MAP,
                norm=Normalize(-6, 0),
                extent=(ends[0], ends[1], len(ratios.parameters) - 0.5, -0.5),
            )
            axes.set_yticks(
                range(len(ratios.parameters)), [plain(name, 40) for name in ratios.parameters], fontsize=7.5
            )
            bar = figure.colorbar(
                image,
                ax=axes,
                pad=0.02,
                aspect=24,
                shrink=0.6 if len(ratios.parameters) > 30 else 1.0,
                anchor=(0.0, 1.0),
                ticks=range(-6, 1),
            )
            bar.ax.set_yticklabels([f"1e{i}" if i else "1" for i in range(-6, 1)])
            bar.set_label("update / weight (healthy: about 1e-3)")
            bar.outline.set_visible(False)
            label(axes, "step", "")
        else:
            names = ("train", "validation", "averaged", "alarm", "ink", "muted")
            for i, (name, row) in enumerate(zip(ratios.parameters, ratios.logs, strict=True)):
                axes.plot(
                    ratios.steps,
                    row,
                    "-" if i < 6 else "--",
                    lw=1.5,
                    color=PALETTE[names[i % 6]],
                    label=plain(name, 40),
                )
            axes.axhline(-3, color=PALETTE["ink"], lw=1.2, ls=":", label="healthy: about 1e-3")
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"1e{v:.0f}" if v else "1"))
            seen = ratios.logs[np.isfinite(ratios.logs)]
            axes.set_ylim(min(-4.2, seen.min() - 0.2), max(-1.8, seen.max() + 0.2))
            axes.legend(loc="best", fontsize=8, ncols=2)
            label(axes, "step", "update / weight")
        plain_axes(axes)
        axes.grid(not many)

    return as_svg(draw, "update-ratios", (9.5 if many else HALF[0], height))


def draw_confusion(matrix: Confusion) -> str:
    """Rows: true class; columns: the answer. Blue on the diagonal is right, orange beside it is wrong."""
    n = len(matrix.classes)
    few = n <= 20
    side = float(np.clip(2.6 + 0.42 * n, 5.0, 9.5)) if few else float(np.clip(0.135 * n + 2.0, 8.5, 15.5))
    letters = 10.0 if n <= 12 else max(5.0, min(8.5, 800 / n))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        shares = matrix.shares
        right = np.eye(n, dtype=bool)
        colours = np.zeros((n, n, 4))
        colours[right, :3] = to_rgb(PALETTE["train"])
        colours[~right, :3] = to_rgb(PALETTE["validation"])
        # The square root lets a share of 1% still be seen.
        colours[..., 3] = np.sqrt(shares)
        if few:
            for i, j in zip(*np.nonzero(matrix.counts), strict=True):
                box = Rectangle((j - 0.5, i - 0.5), 1, 1, lw=0, fc=PALETTE["train" if i == j else "validation"])
                box.set_alpha(float(colours[i, j, 3]) * 0.6)  # numbers stay readable in light and dark
                axes.add_patch(box)
                axes.text(j, i, f"{matrix.counts[i, j]}", ha="center", va="center", fontsize=10 if n <= 12 else 8)
        else:
            axes.imshow(colours, interpolation="none", aspect="equal")
        axes.set_xlim(-0.5, n - 0.5)
        axes.set_ylim(n - 0.5, -0.5)
        axes.set_aspect("equal")
        if n <= 120:
            names = [plain(name, 22) for name in matrix.classes]
            axes.set_xticks(range(n), names, rotation=90 if n > 4 else 0, fontsize=letters)
            axes.set_yticks(range(n), names, fontsize=letters)
        axes.tick_params(length=0)
        label(axes, "answer of the model", "true class")

    return as_svg(draw, "confusion", (side, side))


def draw_reliability(data: Reliability) -> str:
    """Measured accuracy against stated confidence; the diagonal is perfect honesty; images per bin below."""

    def draw(figure: Figure) -> None:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        axes.plot([0, 1], [0, 1], color=PALETTE["muted"], lw=1, ls=":", label="perfectly calibrated")
        axes.vlines(
            data.confidence,
            data.confidence,
            data.accuracy,
            color=PALETTE["validation"],
            lw=2,
            alpha=0.8,
            label="off by",
        )
        axes.plot(data.confidence, data.accuracy, "o-", ms=5, lw=1.6, color=PALETTE["train"], label="model")
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.03)
        axes.xaxis.set_major_formatter(as_percent)
        axes.yaxis.set_major_formatter(as_percent)
        axes.legend(loc="upper left")
        axes.set_ylabel("measured accuracy")
        below.bar(data.confidence, data.images, width=0.035, color=PALETTE["train"], alpha=0.55)
        below.yaxis.set_major_locator(MaxNLocator(2))
        plain_axes(axes, below)
        label(below, "stated confidence", "images")

    return as_svg(draw, "reliability")


def _loss_axis(axes: Axes, curve: LossCurve) -> None:
    limit = curve.limit
    if limit is not None:  # what the axis hides is said
        axes.set_ylim(min(0.0, float(np.min(curve.losses))), limit)
        highest = f"highest: {number_text(float(np.max(curve.losses)))}"
        axes.annotate(highest, (0.01, 0.96), xycoords="axes fraction", fontsize=9, color=PALETTE["alarm"])
    axes.set_ylabel("loss")

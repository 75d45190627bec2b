"""Draws the search: trials over their settings, and the loss of every trial, as SVG strings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from wellfit.report.curves_search import Search, Trial, logarithmic
from wellfit.report.drawing import PALETTE, as_percent, as_svg, label, legend_above, level, plain_axes
from wellfit.report.palette import ACCURACY_COLOURS
from wellfit.report.words import figure as number_text
from wellfit.report.words import plain

ACCURACY_MAP = LinearSegmentedColormap.from_list("accuracy", ACCURACY_COLOURS)


def draw_search_map(search: Search, across: str = "lr", up: str = "weight_decay") -> str:
    """Trials over two settings, coloured by validation accuracy; boxes are the ranges of the stages."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        shown = [t for t in search.trials if across in t.settings and up in t.settings]
        place_on = {}
        for name, set_scale, set_ticks in (
            (across, axes.set_xscale, axes.set_xticks),
            (up, axes.set_yscale, axes.set_yticks),
        ):
            values = [t.settings[name] for t in shown] + [v for r in search.ranges.values() for v in r.get(name, ())]
            place_on[name] = _setting_scale(values, name, set_scale, set_ticks)
        norm = accuracy_norm([t.accuracy for t in shown])

        def place(trial: Trial) -> tuple[float, float]:
            return place_on[across](trial.settings[across]), place_on[up](trial.settings[up])

        for trial in shown:
            _dot(axes, trial, *place(trial), norm)
        for i, (stage, ranges) in enumerate(search.ranges.items()):
            if across in ranges and up in ranges:
                xs, ys = (sorted(place_on[name](v) for v in ranges[name]) for name in (across, up))
                dash = ("-", "--", ":")[i % 3]
                outline = ([xs[0], xs[1], xs[1], xs[0], xs[0]], [ys[0], ys[0], ys[1], ys[1], ys[0]])
                axes.plot(*outline, dash, lw=1.2, color=PALETTE["muted"])
                axes.annotate(
                    plain(stage, 24),
                    (xs[0], ys[1]),
                    (3, -11),
                    textcoords="offset points",
                    fontsize=9.5,
                    color=PALETTE["muted"],
                )
        _search_legend(axes, shown)
        if any(math.isfinite(t.accuracy) for t in shown):
            colours = ScalarMappable(norm, ACCURACY_MAP)
            bar = figure.colorbar(colours, ax=axes, format=FuncFormatter(as_percent), pad=0.02, aspect=30)
            bar.set_label("validation accuracy")
            bar.outline.set_visible(False)
        plain_axes(axes)
        label(axes, setting_name(across), setting_name(up))

    return as_svg(draw, "search-map")


def draw_setting(search: Search, name: str) -> str:
    """Validation accuracy against one setting; the bars below the axis are the ranges of the stages."""

    def draw(figure: Figure) -> None:
        axes, bars = figure.subplots(2, 1, sharex=True, height_ratios=[5, 0.6 + 0.25 * max(1, len(search.ranges))])
        shown = [trial for trial in search.trials if name in trial.settings]
        values = [t.settings[name] for t in shown] + [v for r in search.ranges.values() for v in r.get(name, ())]
        place = _setting_scale(values, name, axes.set_xscale, axes.set_xticks)
        measured = [t.accuracy for t in shown if math.isfinite(t.accuracy)]
        floor = (min(measured) - 0.04 * (max(measured) - min(measured) + 0.05)) if measured else 0.0
        norm = accuracy_norm(measured)
        for trial in shown:
            height = trial.accuracy if math.isfinite(trial.accuracy) else floor
            _dot(axes, trial, place(trial.settings[name]), height, norm)
        for i, (stage, ranges) in enumerate(search.ranges.items()):
            if name in ranges:
                ends = sorted(place(v) for v in ranges[name])
                bars.plot(ends, [-i, -i], lw=5, color=PALETTE["muted"], alpha=0.55, solid_capstyle="butt")
                bars.annotate(
                    plain(stage, 24),
                    (ends[0], -i),
                    (2, 4),
                    textcoords="offset points",
                    fontsize=9,
                    color=PALETTE["muted"],
                )
        bars.set_ylim(-max(1, len(search.ranges)) + 0.4, 0.9)
        bars.set_yticks([])
        axes.yaxis.set_major_formatter(as_percent)
        _search_legend(axes, shown)
        plain_axes(axes, bars)
        bars.spines["left"].set_visible(False)
        bars.grid(False)
        axes.set_ylabel("validation accuracy")
        label(bars, setting_name(name), "")

    return as_svg(draw, f"setting-{re.sub('[^a-z0-9]+', '-', name.lower())}")


def draw_trial_curves(search: Search) -> str:
    """Loss of every trial against the step, coloured by the validation accuracy that it reached."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        norm = accuracy_norm([t.accuracy for t in search.trials])
        shown = [t for t in search.trials if len(t.steps)]
        for trial in sorted(shown, key=lambda t: -1.0 if math.isnan(t.accuracy) else t.accuracy):
            seen = np.isfinite(trial.losses)
            known = math.isfinite(trial.accuracy)
            colour = ACCURACY_MAP(norm(trial.accuracy)) if known else _state_colour(trial.state)
            width = 3.0 if trial.best else 1.3
            axes.plot(trial.steps[seen], trial.losses[seen], "-" if known else "--", lw=width, color=colour, alpha=0.9)
            if trial.state != "finished" and seen.any():
                axes.plot(
                    trial.steps[seen][-1:],
                    trial.losses[seen][-1:],
                    "x",
                    ms=6,
                    mew=1.4,
                    color=_state_colour(trial.state),
                )
        losses = np.concatenate([t.losses for t in shown]) if shown else np.zeros(0)
        positive = losses[np.isfinite(losses) & (losses > 0)]
        if search.limit is not None and search.limit > 0 and len(positive):
            axes.set_yscale("log")
            axes.set_ylim(positive.min() * 0.85, min(positive.max(), 1.6 * search.limit) * 1.1)
            level(axes, search.limit, "3× the first loss", "alarm")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: number_text(v)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        plain_axes(axes)
        label(axes, "step of the trial", "loss")

    return as_svg(draw, "trial-curves")


def _setting_scale(values: Sequence[float], name: str, set_scale: Any, set_ticks: Any) -> Callable[[float], float]:
    """Make the axis of a setting; returns where a value stands on it (on a log axis, 0 has a place of its own)."""
    positive = sorted(v for v in values if v > 0)
    if not logarithmic(name, values):
        return lambda v: v
    set_scale("log")
    low, high = math.floor(math.log10(positive[0])), math.ceil(math.log10(positive[-1]))
    zero = 10.0 ** (low - 1)
    decades = range(low, max(high, low + 1) + 1, max(1, (high - low + 6) // 7))
    ticks, names = [10.0**e for e in decades], [f"1e{e}" if e else "1" for e in decades]
    if any(v == 0 for v in values):
        ticks, names = [zero, *ticks], ["0", *names]
    set_ticks(ticks, names)
    set_ticks([], minor=True)
    return lambda v: v if v > 0 else zero


def setting_name(name: str) -> str:
    """A setting as people call it."""
    return {"lr": "learning rate", "weight_decay": "weight decay"}.get(name, plain(name, 40))


def _dot(axes: Axes, trial: Trial, x: float, y: float, norm: Normalize) -> None:
    """A trial in the colour of its accuracy, ringed where it is the best; a cross where it has none."""
    if math.isfinite(trial.accuracy):
        edge = PALETTE["ink"] if trial.state == "finished" else PALETTE["alarm"]
        colour = ACCURACY_MAP(norm(trial.accuracy))
        axes.plot([x], [y], "o", ms=6.5, color=colour, mec=edge, mew=0.7)
    else:
        axes.plot([x], [y], "x", ms=6, mew=1.4, color=_state_colour(trial.state), clip_on=False)
    if trial.best:
        axes.plot([x], [y], "o", ms=14, mfc="none", mew=1.8, color=PALETTE["ink"])


def _state_colour(state: str) -> str:
    return PALETTE["alarm"] if state == "failed" else PALETTE["muted"]


def accuracy_norm(accuracies: Sequence[float]) -> Normalize:
    """From the lowest accuracy to the highest."""
    finite = [a for a in accuracies if math.isfinite(a)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1e-3)


def _search_legend(axes: Axes, shown: Sequence[Trial]) -> None:
    keys = []
    if any(t.state == "pruned" for t in shown):
        keys.append(Line2D([], [], marker="x", ls="", mew=1.4, color=PALETTE["muted"], label="broken off"))
    if any(t.state == "failed" for t in shown):
        keys.append(Line2D([], [], marker="x", ls="", mew=1.4, color=PALETTE["alarm"], label="failed"))
    if any(t.best for t in shown):
        keys.append(Line2D([], [], marker="o", ls="", ms=9, mfc="none", mew=1.6, color=PALETTE["ink"], label="best"))
    if keys:
        legend_above(axes, handles=keys)

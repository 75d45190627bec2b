"""Draws all settings of a search at once, as parallel coordinates, and the importance of each; SVG strings."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from wellfit.report.curves_search import Search, Trial, logarithmic
from wellfit.report.drawing import PALETTE, as_percent, as_svg, label, plain_axes
from wellfit.report.static_search import ACCURACY_MAP, accuracy_norm, setting_name
from wellfit.report.words import figure as number_text
from wellfit.report.words import percent, plain

MOST_AXES = 8


def draw_parallel(search: Search) -> str:
    """One polyline a trial over upright axes, one a setting and the last the accuracy; at most MOST_AXES settings.

    A setting that a trial has not leaves a gap in its line.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        names = [*search.varied(), *search.chosen_names()][:MOST_AXES]
        scales = [_Scale.of(search, name) for name in names]
        norm = accuracy_norm([trial.accuracy for trial in search.trials])
        across = np.arange(len(names) + 1)
        for trial in sorted(search.trials, key=lambda t: -1.0 if math.isnan(t.accuracy) else t.accuracy):
            known = math.isfinite(trial.accuracy)
            heights = [scale.place(trial) for scale in scales]
            heights.append(float(norm(trial.accuracy)) if known else 0.0)
            colour = ACCURACY_MAP(norm(trial.accuracy)) if known else PALETTE["muted"]
            style, width = ("-", 2.8 if trial.best else 1.1) if known else (":", 0.9)
            axes.plot(across, heights, style, lw=width, color=colour, alpha=0.9)
        for x, scale in enumerate(scales):
            _axis(axes, x, scale.ticks)
        low, high = norm.vmin or 0.0, norm.vmax or 1.0
        _axis(axes, len(names), [(share, percent(low + share * (high - low))) for share in (0.0, 0.5, 1.0)])
        axes.set_xlim(-0.3, len(names) + 0.45)
        axes.set_ylim(-0.06, 1.06)
        axes.set_xticks(across, [*(plain(setting_name(name), 18) for name in names), "accuracy"])
        axes.tick_params(axis="x", length=0)
        axes.set_yticks([])
        plain_axes(axes)
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)

    return as_svg(draw, "parallel-coordinates")


def draw_importance(search: Search) -> str:
    """A bar a setting, the largest on top."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        pairs = sorted(search.importance.items(), key=lambda pair: pair[1])[-MOST_AXES:]
        places = range(len(pairs))
        axes.barh(places, [share for _, share in pairs], height=0.55, color=PALETTE["muted"])
        axes.set_yticks(list(places), [plain(setting_name(name), 24) for name, _ in pairs])
        axes.xaxis.set_major_formatter(FuncFormatter(as_percent))
        axes.set_xlim(0, max(0.01, *(share for _, share in pairs)) * 1.08)
        plain_axes(axes)
        label(axes, "share of the spread of scores", "")

    return as_svg(draw, "importance")


class _Scale:
    """Where the values of one setting stand between 0 and 1, and what to write beside."""

    def __init__(self, name: str, low: float, high: float, logarithmic: bool, choices: list[str]) -> None:
        self.name, self.low, self.high, self.logarithmic, self.choices = name, low, high, logarithmic, choices

    @classmethod
    def of(cls, search: Search, name: str) -> _Scale:
        choices = sorted({trial.choices[name] for trial in search.trials if name in trial.choices})
        values = [trial.settings[name] for trial in search.trials if name in trial.settings]
        if choices or not values:
            return cls(name, 0.0, 1.0, False, choices)
        return cls(name, min(values), max(values), min(values) > 0 and logarithmic(name, values), [])

    def place(self, trial: Trial) -> float:
        if self.choices:
            chosen = trial.choices.get(self.name)
            return math.nan if chosen is None else (self.choices.index(chosen) + 0.5) / len(self.choices)
        value = trial.settings.get(self.name)
        if value is None:
            return math.nan
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        if self.choices:
            return [((i + 0.5) / len(self.choices), plain(name, 14)) for i, name in enumerate(self.choices)]
        middle = math.sqrt(self.low * self.high) if self.logarithmic else (self.low + self.high) / 2
        return [(0.0, number_text(self.low)), (0.5, number_text(middle)), (1.0, number_text(self.high))]


def _axis(axes: Axes, x: float, ticks: list[tuple[float, str]]) -> None:
    axes.plot([x, x], [0, 1], lw=1.0, color=PALETTE["ink"], zorder=3)
    for height, text in ticks:
        axes.plot([x - 0.02, x + 0.02], [height, height], lw=1.0, color=PALETTE["ink"], zorder=3)
        axes.annotate(
            text, (x, height), (4, 3), textcoords="offset points", fontsize=8.5, color=PALETTE["ink"], zorder=4
        )

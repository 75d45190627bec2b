"""Draws a search with Plotly, for a notebook: trials over their settings, and all settings at once, with brushing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wellfit.report.curves_search import Search, Trial, logarithmic
from wellfit.report.interactive_frame import ACCURACY_SCALE, as_text, frame, go, level
from wellfit.report.palette import ACCURACY_COLOURS, PALETTE
from wellfit.report.words import figure as number_text
from wellfit.report.words import percent

MOST_AXES = 8
_CALLED = {"lr": "learning rate", "weight_decay": "weight decay"}


def draw_search_map(search: Search, across: str, up: str) -> go.Figure:
    """Trials over two settings, coloured by validation accuracy; boxes are the ranges of the stages."""
    figure = frame(_called(across), _called(up))
    shown = [trial for trial in search.trials if across in trial.settings and up in trial.settings]
    places = {name: _Place(search, name) for name in (across, up)}
    _dots(figure, shown, *([places[name](t.settings[name]) for t in shown] for name in (across, up)))
    for stage, ranges in search.ranges.items():
        if across in ranges and up in ranges:
            (x0, x1), (y0, y1) = ([places[name](end) for end in sorted(ranges[name])] for name in (across, up))
            figure.add_shape(type="rect", x0=x0, x1=x1, y0=y0, y1=y1, line={"color": PALETTE["muted"], "width": 1.2})
            called: dict[str, Any] = {"text": as_text(stage, 24), "showarrow": False, "font": {"size": 11}}
            figure.add_annotation(
                **called, x=places[across].axis(x0), y=places[up].axis(y1), xanchor="left", yanchor="top"
            )
    figure.update_xaxes(**places[across].axes).update_yaxes(**places[up].axes)
    return figure


def draw_setting(search: Search, name: str) -> go.Figure:
    """Validation accuracy against one setting; crosses at the bottom were broken off before they were measured."""
    figure = frame(_called(name), "validation accuracy", percent=True)
    shown = [trial for trial in search.trials if name in trial.settings]
    measured = [trial.accuracy for trial in shown if math.isfinite(trial.accuracy)]
    floor = min(measured) - 0.04 * (max(measured) - min(measured) + 0.05) if measured else 0.0
    place = _Place(search, name)
    heights = [trial.accuracy if math.isfinite(trial.accuracy) else floor for trial in shown]
    _dots(figure, shown, [place(trial.settings[name]) for trial in shown], heights)
    figure.update_xaxes(**place.axes)
    return figure


def draw_trials(search: Search) -> go.Figure:
    """Loss of every trial against the step, in the colour of the accuracy that it reached; dotted ones have none."""
    figure = frame("step of the trial", "loss")
    low, high = _span(search.trials)
    for trial in sorted(search.trials, key=lambda t: -1.0 if math.isnan(t.accuracy) else t.accuracy):
        if not len(trial.steps):
            continue
        known = math.isfinite(trial.accuracy)
        look = {
            "color": _colour((trial.accuracy - low) / (high - low)) if known else PALETTE["muted"],
            "width": 3 if trial.best else 1.3,
            "dash": "solid" if known else "dot",
        }
        said = [_said(trial)] * len(trial.steps)
        hover = "%{customdata}<br>step %{x}: loss %{y:.3f}<extra></extra>"
        figure.add_scatter(
            x=trial.steps,
            y=trial.losses,
            mode="lines",
            line=look,
            customdata=said,
            hovertemplate=hover,
            showlegend=False,
        )
    losses = np.concatenate([trial.losses for trial in search.trials] or [np.zeros(0)])
    positive = losses[np.isfinite(losses) & (losses > 0)]
    if search.limit is not None and len(positive):
        top = min(float(positive.max()), 1.6 * search.limit) * 1.1
        figure.update_yaxes(type="log", range=[math.log10(float(positive.min()) * 0.85), math.log10(top)])
        level(figure, search.limit, "3× the first loss", "alarm")
    return figure


def draw_parallel(search: Search) -> go.Figure:
    """All settings at once: one line a trial. Drag along an axis to keep the trials within that stretch."""
    figure = frame("", "", height=420)
    shown = [trial for trial in search.trials if math.isfinite(trial.accuracy)]
    names = [*search.varied(), *search.chosen_names()][:MOST_AXES]
    accuracies = [trial.accuracy for trial in shown]
    low, high = _span(shown)
    axes = [_upright(shown, name) for name in names]
    axes.append({"label": "accuracy", "values": accuracies, "range": [low, high], "tickformat": ".1%"})
    figure.add_parcoords(
        dimensions=axes, line={"color": accuracies, "colorscale": ACCURACY_SCALE, "cmin": low, "cmax": high}
    )
    figure.update_layout(margin={"l": 72, "r": 56, "t": 60, "b": 24})
    return figure


def draw_importance(search: Search) -> go.Figure:
    """A bar a setting, the largest on top."""
    pairs = sorted(search.importance.items(), key=lambda pair: pair[1])
    figure = frame("share of the spread of scores", "", height=120 + 34 * len(pairs))
    places = list(range(len(pairs)))
    figure.add_bar(x=[share for _, share in pairs], y=places, orientation="h", marker_color=PALETTE["muted"])
    figure.update_traces(hovertemplate="%{x:.1%}<extra></extra>", width=0.55)
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(tickvals=places, ticktext=[_called(name) for name, _ in pairs], automargin=True)
    return figure


class _Place:
    """Where the values of a setting stand on its axis: on a logarithmic one, 0 has a place of its own."""

    def __init__(self, search: Search, name: str) -> None:
        values = [trial.settings[name] for trial in search.trials if name in trial.settings]
        values += [end for ranges in search.ranges.values() for end in ranges.get(name, ())]
        self.logarithmic = logarithmic(name, values)
        self.zero = 0.1 * min((value for value in values if value > 0), default=1.0)
        self.axes: dict[str, Any] = {}
        if self.logarithmic:
            decades = range(math.floor(math.log10(10 * self.zero)), math.ceil(math.log10(max(values))) + 1)
            ticks = {10.0**e: f"1e{e}" if e else "1" for e in decades}
            if 0 in values:
                ticks = {self.zero: "0", **ticks}
            self.axes = {"type": "log", "tickvals": list(ticks), "ticktext": list(ticks.values())}

    def __call__(self, value: float) -> float:
        return value if value > 0 or not self.logarithmic else self.zero

    def axis(self, place: float) -> float:
        """As an annotation wants it: on a logarithmic axis, its power of ten."""
        return math.log10(place) if self.logarithmic else place


def _dots(figure: go.Figure, trials: Sequence[Trial], xs: list[float], ys: list[float]) -> None:
    """A dot a trial in the colour of its accuracy, crosses where there is none, a ring around the best."""
    known = np.array([math.isfinite(trial.accuracy) for trial in trials], bool)
    low, high = _span(trials)
    bar = {"title": {"text": "accuracy"}, "tickformat": ".1%", "thickness": 14}
    for which, name in ((known, "trial"), (~known, "broken off or failed")):
        at = np.flatnonzero(which).tolist()
        if not len(at):
            continue
        marker: dict[str, Any] = {"symbol": "x", "size": 8, "color": PALETTE["muted"]}
        if name == "trial":
            scale = {"colorscale": ACCURACY_SCALE, "cmin": low, "cmax": high, "colorbar": bar}
            edge = {"color": PALETTE["ink"], "width": 0.7}
            marker = {"size": 9, "color": [trials[i].accuracy for i in at], "line": edge, **scale}
        figure.add_scatter(
            x=[xs[i] for i in at],
            y=[ys[i] for i in at],
            mode="markers",
            marker=marker,
            customdata=[_said(trials[i]) for i in at],
            hovertemplate="%{customdata}<extra></extra>",
            name=name,
        )
    for trial, x, y in zip(trials, xs, ys, strict=True):
        if trial.best:
            ring = {"size": 17, "color": "rgba(0,0,0,0)", "line": {"color": PALETTE["ink"], "width": 2}}
            figure.add_scatter(x=[x], y=[y], mode="markers", marker=ring, name="best", hoverinfo="skip")


def _upright(trials: Sequence[Trial], name: str) -> dict[str, Any]:
    """One axis of the parallel coordinates. A trial without the setting stands at the axis' lower end, at "–"."""
    values: list[float]
    chosen = sorted({trial.choices[name] for trial in trials if name in trial.choices})
    if chosen:
        values = [chosen.index(t.choices[name]) if name in t.choices else -1.0 for t in trials]
        ticks = {float(i): as_text(choice, 14) for i, choice in enumerate(chosen)}
        missing = -1.0
    else:
        had = {trial.settings[name] for trial in trials if name in trial.settings}
        powers = logarithmic(name, sorted(had))
        least = min((value for value in had if value > 0), default=1.0)
        # On a logarithmic axis 0 has a place of its own, half a decade below the rest.
        scaled = {v: (math.log10(v) if v else math.log10(least) - 0.5) if powers else v for v in had}
        spread = [height for value, height in scaled.items() if value or not powers] or [0.0]
        low, high = min(spread), max(spread)
        ends = np.linspace(low, high, 5 if high > low else 1).tolist()
        ticks = {end: number_text(10.0**end if powers else end) for end in ends}
        if powers and 0 in had:
            ticks = {scaled[0]: "0", **ticks}
        missing = min(ticks) - 0.15 * ((max(ticks) - min(ticks)) or 1.0)
        values = [scaled[t.settings[name]] if name in t.settings else missing for t in trials]
    if missing in values:
        ticks = {missing: "–", **ticks}
    return {
        "label": _called(name),
        "values": values,
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "range": [min(ticks), max(ticks)] if len(ticks) > 1 else [min(ticks) - 0.5, max(ticks) + 0.5],
    }


def _span(trials: Sequence[Trial]) -> tuple[float, float]:
    finite = [trial.accuracy for trial in trials if math.isfinite(trial.accuracy)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    return low, high if high > low else low + 1e-3


def _colour(share: float) -> str:
    """The colour at a share of the scale, as Plotly wants it for a line."""
    ends = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in ACCURACY_COLOURS])
    at = np.linspace(0, 1, len(ends))
    return f"rgb({','.join(f'{np.interp(share, at, ends[:, i]):.0f}' for i in range(3))})"


def _said(trial: Trial) -> str:
    reached = percent(trial.accuracy) if math.isfinite(trial.accuracy) else as_text(trial.state, 20)
    return f"trial {as_text(trial.number, 20)} ({as_text(trial.stage, 24)}): {reached}<br>{as_text(trial.named, 300)}"


def _called(name: str) -> str:
    return _CALLED.get(name) or as_text(name, 40)

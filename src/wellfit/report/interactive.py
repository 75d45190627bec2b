"""Draws the figure data of `curves` with Plotly, for a notebook: each function returns a `plotly` Figure.

The data are those of the page's drawings (`static`); what moves here is the look at them: zoom, hover, hidden lines.
"""

from __future__ import annotations

import numpy as np

from wellfit.report.curves import AccuracyCurve, Confusion, LossCurve, Reliability, UpdateRatios
from wellfit.report.curves_filters import Filters
from wellfit.report.curves_transfer import ProbeCurve
from wellfit.report.interactive_frame import HEIGHT, SERIES, as_text, frame, go, level
from wellfit.report.palette import PALETTE
from wellfit.report.words import figure as number_text
from wellfit.report.words import percent

FEW = 8  # parameters that are still drawn as lines
MOST_NAMED = 120  # classes whose names stand beside a confusion matrix
_DEEPEST = 1.3  # a row that is all in one place is still light enough for the number on it
# Purple below the healthy value, white at it, orange above: from 1e-6 over 1e-3 to 1.
_RATIO_SCALE = [[0.0, "#542788"], [0.25, "#998ec3"], [0.5, "#f7f7f7"], [0.75, "#f1a340"], [1.0, "#b35806"]]


def draw_loss(curve: LossCurve) -> go.Figure:
    """Loss of each step as dots with its moving average."""
    figure = frame("step", "loss")
    colour = PALETTE["train"]
    dots = {"size": 4, "color": colour, "opacity": 0.4}
    figure.add_scatter(x=curve.steps, y=curve.losses, mode="markers", marker=dots, name="one step")
    name = f"average over about {curve.horizon} steps"
    figure.add_scatter(
        x=curve.average_steps, y=curve.average, mode="lines", line={"color": colour, "width": 2}, name=name
    )
    if curve.guessing is not None:
        level(figure, curve.guessing, f"even guess {curve.guessing:.2f}")
    for step in curve.lost[:20]:
        figure.add_vline(x=step, line={"color": PALETTE["alarm"], "width": 1})
    if curve.lost:
        key = {"color": PALETTE["alarm"], "width": 1}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=key, name="loss not finite")
    if curve.limit is not None:
        figure.update_yaxes(range=[min(0.0, float(curve.losses.min())), curve.limit])
        said = f"highest: {number_text(float(curve.losses.max()))}"
        where = {"xref": "paper", "yref": "paper", "x": 0.01, "y": 0.98, "showarrow": False}
        figure.add_annotation(text=said, font={"color": PALETTE["alarm"], "size": 11}, **where)
    return figure


def draw_rates(curve: LossCurve) -> go.Figure:
    """The learning rate of each step, on a logarithmic axis; steps at rate 0 leave a gap."""
    figure = frame("step", "learning rate", height=280)
    rates = np.where(curve.lr > 0, curve.lr, np.nan)
    line = {"color": PALETTE["muted"], "width": 2}
    figure.add_scatter(x=curve.lr_steps, y=rates, mode="lines", line=line, showlegend=False)
    figure.update_yaxes(type="log", exponentformat="power", dtick=1)
    low, high = float(np.nanmin(rates)), float(np.nanmax(rates))
    shown = max(low / 2, high / 1e4) if high >= 20 * low else high / 30
    figure.update_yaxes(range=[np.log10(shown), np.log10(high * 2)])
    return figure


def draw_accuracy(curve: AccuracyCurve) -> go.Figure:
    """Train, validation and averaged-weights accuracy; the gap named where it was last measured."""
    figure = frame("step", "accuracy", percent=True)
    mode = "lines+markers" if len(curve.steps) <= 40 else "lines"
    lines = (
        ("train", curve.train, "train", "solid"),
        ("validation", curve.validation, "validation", "solid"),
        ("averaged", curve.averaged, "averaged weights", "dash"),
    )
    for colour, values, name, dash in lines:
        seen = np.isfinite(values)
        if seen.any():
            look = {"color": PALETTE[colour], "width": 2, "dash": dash}
            hover = "%{y:.2%}"
            figure.add_scatter(
                x=curve.steps[seen], y=values[seen], mode=mode, line=look, name=name, hovertemplate=hover
            )
    if curve.best is not None:
        star = {"symbol": "star", "size": 13, "color": PALETTE["ink"]}
        name = f"best {percent(curve.best)}"
        figure.add_scatter(
            x=[curve.best_step], y=[curve.best], mode="markers", marker=star, name=name, hoverinfo="skip"
        )
    if curve.gap is not None and curve.gap_step is not None and abs(curve.gap) >= 0.005:
        at = int(np.flatnonzero(curve.steps == curve.gap_step)[-1])
        ends = sorted((float(curve.train[at]), float(curve.validation[at])))
        look = {"color": PALETTE["muted"], "width": 1.2}
        figure.add_shape(type="line", x0=curve.gap_step, x1=curve.gap_step, y0=ends[0], y1=ends[1], line=look)
        said = f"gap {100 * curve.gap:+.1f} points"
        figure.add_annotation(
            text=said, x=curve.gap_step, y=ends[0], xanchor="right", yanchor="top", showarrow=False, font={"size": 11}
        )
    if curve.chance is not None:
        level(figure, curve.chance, f"guessing {percent(curve.chance)}")
    figure.update_layout(hovermode="x unified")
    return figure


def draw_updates(ratios: UpdateRatios) -> go.Figure:
    """Update / weight size over time: lines for a few parameters, a heat map centred on 1e-3 for more."""
    names = [as_text(name, 40) for name in ratios.parameters]
    if len(names) <= FEW:
        figure = frame("step", "update / weight")
        for i, (name, row) in enumerate(zip(names, ratios.logs, strict=True)):
            look = {"color": SERIES[i % len(SERIES)], "width": 1.5, "dash": "solid" if i < len(SERIES) else "dash"}
            figure.add_scatter(x=ratios.steps, y=10.0**row, mode="lines", line=look, name=name)
        figure.update_yaxes(type="log", exponentformat="power", dtick=1)
        level(figure, 1e-3, "healthy: about 1e-3", "ink")
        return figure
    figure = frame("step", "", height=min(1100, 130 + 17 * len(names)))
    bar = {
        "title": {"text": "update / weight"},
        "tickvals": list(range(-6, 1)),
        "len": min(1.0, 400 / (17 * len(names))),
    }
    bar["ticktext"] = [f"1e{i}" if i else "1" for i in range(-6, 1)]
    figure.add_heatmap(
        x=ratios.steps,
        y=list(range(len(names))),
        z=ratios.logs,
        zmin=-6,
        zmax=0,
        colorscale=_RATIO_SCALE,
        colorbar=bar,
        customdata=np.broadcast_to(np.array(names, dtype=object)[:, None], ratios.logs.shape).tolist(),
        hovertemplate="%{customdata}<br>step %{x}: 10^%{z:.1f}<extra></extra>",
        hoverongaps=False,
    )
    # By place, not by name: two long names may be the same once they are cut.
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, autorange="reversed", tickfont_size=9.5)
    figure.update_yaxes(automargin=True, showgrid=False)
    return figure


def draw_confusion(matrix: Confusion) -> go.Figure:
    """Rows: true class; columns: the answer. Blue on the diagonal is right, orange beside it is wrong."""
    n = len(matrix.classes)
    side = int(np.clip(240 + 30 * n, 360, 1000))
    figure = frame("answer of the model", "true class", height=side)
    names, places = [as_text(name, 22) for name in matrix.classes], list(range(n))
    # The square root lets a share of 1% still be seen.
    depth = np.where(np.eye(n, dtype=bool), 1, -1) * np.sqrt(matrix.shares)
    figure.add_heatmap(
        x=places,
        y=places,
        z=np.where(matrix.counts > 0, depth, np.nan),
        zmin=-_DEEPEST,
        zmax=_DEEPEST,
        colorscale=[[0, PALETTE["validation"]], [0.5, PALETTE["ground"]], [1, PALETTE["train"]]],
        showscale=False,
        customdata=_pairs(matrix) if n <= MOST_NAMED else None,
        hovertemplate=(
            "true: %{customdata[0]}<br>answer: %{customdata[1]}<br>"
            "%{customdata[2]} images, %{customdata[3]:.1%} of the class<extra></extra>"
            if n <= MOST_NAMED
            else "true: class %{y}<br>answer: class %{x}<extra></extra>"
        ),
        text=[[f"{c:,}" if c else "" for c in row] for row in matrix.counts.tolist()] if n <= 20 else None,
        texttemplate="%{text}" if n <= 20 else None,
        hoverongaps=False,
    )
    ticks = {"tickvals": places, "ticktext": names, "automargin": True, "showgrid": False}
    if n <= MOST_NAMED:
        figure.update_xaxes(**ticks, tickangle=-90 if n > 4 else 0).update_yaxes(**ticks)
    figure.update_xaxes(range=[-0.5, n - 0.5], constrain="domain")
    figure.update_yaxes(range=[n - 0.5, -0.5], scaleanchor="x", constrain="domain")
    return figure


def draw_reliability(data: Reliability) -> go.Figure:
    """Measured accuracy against stated confidence; the diagonal is perfect honesty."""
    figure = frame("stated confidence", "measured accuracy", percent=True)
    look = {"color": PALETTE["muted"], "width": 1, "dash": "dot"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=look, name="perfectly calibrated", hoverinfo="skip")
    figure.add_scatter(
        x=data.confidence,
        y=data.accuracy,
        mode="lines+markers",
        line={"color": PALETTE["train"], "width": 2},
        customdata=data.images,
        hovertemplate="says %{x:.0%}, right %{y:.1%}<br>%{customdata:,.0f} images<extra></extra>",
        name="model",
    )
    figure.update_xaxes(range=[0, 1.01], tickformat=".0%").update_yaxes(range=[0, 1.03])
    return figure


def draw_filters(filters: Filters) -> go.Figure:
    """The first convolution's filters in rows, each on its own scale; grey is 0."""
    figure = frame("", "", height=HEIGHT)
    sheet = filters.mosaic()
    figure.add_image(z=(255 * sheet).round().astype(np.uint8), colormodel="rgba256", hoverinfo="skip")
    figure.update_xaxes(visible=False, constrain="domain").update_yaxes(visible=False, constrain="domain")
    return figure


def draw_probe(curve: ProbeCurve) -> go.Figure:
    """The score of the classifiers on frozen features against their strength; a ring at the one taken."""
    figure = frame("strength", curve.metric, percent=True)
    for i, line in enumerate(curve.shown):
        look = {"color": SERIES[i % len(SERIES)], "width": 2}
        figure.add_scatter(
            x=line.strengths,
            y=line.scores,
            mode="lines+markers",
            line=look,
            name=line.name,
            customdata=line.losses,
            hovertemplate="strength %{x:.2g}: %{y:.2%}, loss %{customdata:.3g}",
        )
    if curve.chosen is not None:
        ring = {"size": 16, "color": "rgba(0,0,0,0)", "line": {"color": PALETTE["ink"], "width": 2}}
        at = {"x": [curve.chosen.strength], "y": [curve.chosen.score]}
        figure.add_scatter(**at, mode="markers", marker=ring, name="taken", hoverinfo="skip")
    figure.update_xaxes(type="log", exponentformat="power", dtick=1)
    return figure


def _pairs(matrix: Confusion) -> list[list[tuple[str, str, int, float]]]:
    """What is said of each field: true class, answer, images, share of the class."""
    names, shares = [as_text(name) for name in matrix.classes], matrix.shares
    return [
        [(true, answer, int(matrix.counts[i, j]), float(shares[i, j])) for j, answer in enumerate(names)]
        for i, true in enumerate(names)
    ]

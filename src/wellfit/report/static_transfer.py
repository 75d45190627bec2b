"""Draws the classifiers on frozen features: score and loss against their strength, as SVG strings."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from wellfit.report.curves_transfer import ProbeCurve
from wellfit.report.drawing import PALETTE, as_percent, as_svg, label, legend_above, log_ticks, plain_axes

_COLOURS = ("train", "validation", "averaged", "muted")


def draw_probe_scores(curve: ProbeCurve) -> str:
    """The score that is maximised against the strength, one line an image size and layer; a ring at the one taken."""
    return _draw(curve, "score")


def draw_probe_losses(curve: ProbeCurve) -> str:
    """The loss against the strength, one line an image size and layer; a ring at the one taken."""
    return _draw(curve, "loss")


def _draw(curve: ProbeCurve, what: str) -> str:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, line in enumerate(curve.shown):
            values = line.scores if what == "score" else line.losses
            seen = np.isfinite(values)
            axes.plot(
                line.strengths[seen],
                values[seen],
                "-" if i < len(_COLOURS) else "--",
                marker="o",
                ms=4.5,
                lw=2,
                color=PALETTE[_COLOURS[i % len(_COLOURS)]],
                label=line.name,
            )
        axes.set_xscale("log")
        log_ticks(axes, "x", 9)
        taken = curve.chosen
        if taken is not None:
            at = [taken.strength], [taken.score if what == "score" else taken.loss]
            axes.plot(*at, "o", ms=14, mfc="none", mew=1.8, color=PALETTE["ink"], label="taken", ls="")
        axes.margins(y=0.15)
        if what == "score":
            axes.yaxis.set_major_formatter(as_percent)
        legend_above(axes)
        plain_axes(axes)
        label(axes, "strength", curve.metric if what == "score" else "loss")

    return as_svg(draw, f"probe-{what}")

"""Draws `curves_layers` as SVG: lines for a few layers, a map with a row a layer for many."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure

from wellfit.report.curves_layers import LayerTracks
from wellfit.report.drawing import HALF, PALETTE, as_percent, as_svg, label, level, log_ticks, on_even_steps, plain_axes
from wellfit.report.words import figure as number_text
from wellfit.report.words import plain

FEW = 6
_COLOURS = ("train", "validation", "averaged", "alarm", "ink", "muted")


def draw_tracks(tracks: LayerTracks, what: str, name: str, limit: float | None = None) -> str:
    """what: the measured figure, for the axis. name: short and unlike that of the page's other drawings.

    limit: the share above which a layer is sick, dotted where lines are drawn.
    """
    many = len(tracks.names) > FEW
    inches = (9.5, min(10.5, 1.5 + 0.17 * len(tracks.names))) if many else HALF

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if many:
            _map(figure, axes, tracks, what)
        else:
            _lines(axes, tracks, what, limit)
        plain_axes(axes)
        axes.grid(not many)

    return as_svg(draw, name, inches)


def _lines(axes: Axes, tracks: LayerTracks, what: str, limit: float | None) -> None:
    dots = "o" if len(tracks.steps) <= 40 else ""
    for name, row, colour in zip(tracks.names, tracks.values, _COLOURS, strict=False):
        seen = np.isfinite(row)
        axes.plot(
            tracks.steps[seen],
            row[seen],
            marker=dots,
            ms=3,
            lw=1.6,
            color=PALETTE[colour],
            label=plain(name, 30),
        )
    if limit is not None:
        level(axes, limit, f"sick above {limit:.0%}")
    if tracks.scale == "share":
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(as_percent)
    else:
        axes.set_yscale("log")
        low, high = float(np.nanmin(tracks.values)), float(np.nanmax(tracks.values))
        axes.set_ylim(min(low / 1.5, high / 30), high * 1.5)
        log_ticks(axes, "y", 6)
    # Above the axes: lines of many layers leave no free corner.
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=3, handlelength=1.4, fontsize=8.5)
    label(axes, "step", what)


def _map(figure: Figure, axes: Axes, tracks: LayerTracks, what: str) -> None:
    n, steps = len(tracks.names), tracks.steps
    extent = (float(steps[0]), float(steps[-1] if len(steps) > 1 else steps[0] + 1), n - 0.5, -0.5)
    style: dict[str, Any] = {"aspect": "auto", "interpolation": "none", "extent": extent}
    if tracks.scale == "share":
        # A tint that is stronger the larger the share: it reads the same on a light and on a dark page.
        shares = on_even_steps(steps, tracks.values)
        colours = np.empty((*shares.shape, 4))
        colours[..., :3] = to_rgb(PALETTE["alarm"])
        colours[..., 3] = np.nan_to_num(0.06 + 0.94 * shares)
        axes.imshow(colours, **style)
        worst = np.nanmax(tracks.values, axis=1)
        names = [f"{plain(name, 34)}  ≤ {share:.0%}" for name, share in zip(tracks.names, worst, strict=True)]
    else:
        logs = np.log10(on_even_steps(steps, tracks.values))
        low, high = float(np.nanmin(logs)), float(np.nanmax(logs))
        norm = Normalize(min(low, high - 1), high)
        image = axes.imshow(np.ma.masked_invalid(logs), cmap="viridis", norm=norm, **style)
        bar = figure.colorbar(
            image, ax=axes, pad=0.02, aspect=24, shrink=0.6 if n > 30 else 1.0, anchor=(0.0, 1.0), ticks=_ticks(norm)
        )
        bar.ax.set_yticklabels([number_text(10.0**tick) for tick in _ticks(norm)])
        bar.set_label(what)
        bar.outline.set_visible(False)
        names = [plain(name, 40) for name in tracks.names]
    axes.set_yticks(range(n), names, fontsize=7.5)
    label(axes, "step", "")


def _ticks(norm: Normalize) -> list[float]:
    low, high = float(norm.vmin or 0), float(norm.vmax or 0)
    whole = np.arange(np.ceil(low), np.floor(high) + 1)
    return [float(t) for t in whole[:: max(1, len(whole) // 6)]] or [low, high]

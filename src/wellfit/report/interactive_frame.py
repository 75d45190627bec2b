"""What every Plotly figure shares: its look, and how foreign text gets into it as text.

Plotly reads `<b>`, `<a href=…>` and the like in any text, and hands `$…$` to MathJax where a page has it. Every name
from a record goes through `as_text`, and never into a hover template, where `%{…}` is a reference besides.
"""

from __future__ import annotations

from typing import Any

from wellfit.errors import UserError
from wellfit.report.palette import ACCURACY_COLOURS, PALETTE
from wellfit.report.words import plain

try:
    import plotly.graph_objects as go
except ImportError as error:
    raise UserError(
        "figures in a notebook are drawn by Plotly, which is not installed; pip install 'wellfit[notebook]'"
    ) from error

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif'
HEIGHT = 400  # pixels
ACCURACY_SCALE = [[i / (len(ACCURACY_COLOURS) - 1), colour] for i, colour in enumerate(ACCURACY_COLOURS)]
SERIES = tuple(PALETTE[name] for name in ("train", "validation", "averaged", "alarm", "ink", "muted"))

_AS_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})


def as_text(value: object, limit: int = 60) -> str:
    """A name as Plotly shows it letter by letter: no markup, no formula, no control characters; cut at `limit`.

    >>> as_text("<b>$x$</b>")
    '&lt;b&gt;&#36;x&#36;&lt;/b&gt;'
    """
    return plain(value, limit).translate(_AS_TEXT)


def frame(x: str, y: str, *, height: int = HEIGHT, percent: bool = False) -> go.Figure:
    """An empty figure with named axes; `percent`: the upright one holds shares in [0, 1]."""
    axis: dict[str, Any] = {
        "gridcolor": PALETTE["grid"],
        "linecolor": PALETTE["muted"],
        "zeroline": False,
        "tickfont": {"color": PALETTE["muted"]},
        "title": {"font": {"color": PALETTE["muted"]}},
    }
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 16, "t": 40, "b": 48},
        font={"family": FONT, "size": 13, "color": PALETTE["ink"]},
        paper_bgcolor=PALETTE["ground"],
        plot_bgcolor=PALETTE["ground"],
        hoverlabel={"font": {"family": FONT}},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    )
    figure.update_xaxes(**axis).update_yaxes(**axis)
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y, tickformat=".0%" if percent else None)
    return figure


def level(figure: go.Figure, height: float, text: str, colour: str = "muted") -> None:
    """A dotted line across the figure at a height that means something, named at its right end."""
    figure.add_hline(
        y=height,
        line={"color": PALETTE[colour], "width": 1, "dash": "dot"},
        annotation={"text": text, "font": {"color": PALETTE[colour], "size": 11}},
        annotation_position="top right",
    )

"""A run as a notebook shows it: the verdict, the curves in small, where to look next. No script, no request.

A notebook's page belongs to somebody else: nothing here names a colour of its ground or its letters, and no style
sheet could leak out of the cell.
"""

from __future__ import annotations

import math

import numpy as np

from wellfit.record import RunFolder
from wellfit.report.curves import Floats, accuracy_curve, evenly, loss_curve
from wellfit.report.history import History, read_history
from wellfit.report.markup import Html, name, prose, tag
from wellfit.report.settled import model_name
from wellfit.report.verdict import judge, state_sentences
from wellfit.report.words import duration, figure, number, percent, plain

WIDTH, HEIGHT = 220, 44  # of a small curve, in pixels
MOST_POINTS = 110
MOST_FINDINGS = 6
_QUIET = "opacity:.7;font-size:.9em"
# Between the page's colours for light and for dark grounds: a notebook may have either.
_COLOURS = {"train": "#4a86cf", "validation": "#d0701c", "error": "#cf3f52", "warning": "#d0701c"}


def card(folder: RunFolder) -> Html:
    """The run, in any state, as one element of HTML: what `run` shows as the last line of a notebook's cell."""
    history = read_history(folder)
    verdict = judge(history)
    seconds = number(history.end.get("seconds"))
    took = f" in {duration(seconds)}" if math.isfinite(seconds) else ""
    head = (tag("b", name(folder.path.name, 80)), f" · {model_name(history)}, {history.status}{took}")
    said = (("How good", verdict.good), ("How sure", verdict.sure), ("What next", verdict.next))
    return tag(
        "div",
        tag("p", *head, style="margin:0 0 .5em"),
        *(tag("p", tag("b", f"{term}. "), prose(text), style="margin:.3em 0") for term, text in said),
        *(tag("p", prose(text), style=f"margin:.3em 0;{_QUIET}") for text in state_sentences(history)),
        _curves(history),
        _findings(history),
        tag("p", _places(folder), style=f"margin:.6em 0 0;{_QUIET}"),
        style="max-width:76ch;line-height:1.45",
    )


def _curves(history: History) -> Html | None:
    loss, accuracy = loss_curve(history), accuracy_curve(history)
    small = []
    if loss is not None:
        small.append(_curve("loss", [(loss.average_steps, loss.average, "train")], figure(loss.average[-1])))
    if accuracy is not None:
        lines = [(accuracy.steps, accuracy.train, "train"), (accuracy.steps, accuracy.validation, "validation")]
        reached = f"best validation {percent(accuracy.best)}" if accuracy.best is not None else ""
        small.append(_curve("accuracy", lines, reached))
    shown = [curve for curve in small if curve is not None]
    return tag("div", *shown, style="display:flex;flex-wrap:wrap;gap:6px 28px;margin:.6em 0") if shown else None


def _curve(title: str, lines: list[tuple[Floats, Floats, str]], end: str) -> Html | None:
    """Lines in one small frame, each (steps, values, colour): from their lowest value to their highest."""
    seen = [(x[np.isfinite(y)], y[np.isfinite(y)], colour) for x, y, colour in lines]
    seen = [(x, y, colour) for x, y, colour in seen if len(x) > 1]
    if not seen:
        return None
    left, right = min(x[0] for x, _, _ in seen), max(x[-1] for x, _, _ in seen)
    low, high = min(y.min() for _, y, _ in seen), max(y.max() for _, y, _ in seen)
    paths = []
    for steps, values, colour in seen:
        kept = evenly(len(steps), MOST_POINTS)
        xs = 2 + (WIDTH - 4) * (steps[kept] - left) / max(1.0, right - left)
        ys = HEIGHT - 2 - (HEIGHT - 4) * (values[kept] - low) / ((high - low) or 1.0)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        style = {"fill": "none", "stroke": _COLOURS[colour], "stroke_width": 1.8, "stroke_linejoin": "round"}
        paths.append(tag("polyline", points=points, **style))
    text = f"{title}, {end}" if end else title
    key = (
        [tag("span", f"{colour} ", style=f"color:{_COLOURS[colour]}") for _, _, colour in seen]
        if len(seen) > 1
        else None
    )
    frame = {"width": WIDTH, "height": HEIGHT, "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria_label": text}
    return tag("div", tag("svg", *paths, **frame), tag("div", key, text, style=_QUIET))


def _findings(history: History) -> Html | None:
    loud = [line for line in history.findings if line.get("severity") != "info"]
    rows = []
    for line in loud[:MOST_FINDINGS]:
        kind = str(line.get("severity"))
        called = tag("b", plain(kind, 10), style=f"color:{_COLOURS.get(kind, 'inherit')}")
        rows.append(
            tag("li", called, " ", tag("code", plain(line.get("id"), 60)), ": ", prose(line.get("message"), 400))
        )
    if len(loud) > MOST_FINDINGS:
        rows.append(tag("li", f"… and {len(loud) - MOST_FINDINGS} more in run.findings", style=_QUIET))
    return tag("ul", *rows, style="margin:.4em 0;padding-left:1.3em") if rows else None


def _places(folder: RunFolder) -> str:
    if folder.report.exists():
        return f"The whole report: {plain(folder.report)}"
    return plain(folder.path)

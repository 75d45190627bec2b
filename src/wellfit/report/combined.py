"""What an ensemble is made of, what each member and each view brought on validation, and what it costs."""

from __future__ import annotations

import math

from wellfit.report.history import History, Line, rows
from wellfit.report.markup import MOST_ROWS, Html, badge, join, name, nothing, prose, table, tag
from wellfit.report.words import count, counted, figure, number, percent, plain, points


def combined(history: History) -> Html | None:
    """The section on ensemble and views; None for a run that has tried neither."""
    if not history.ensemble and not history.views:
        return None
    parts: list[Html | None] = []
    for step, what in (("averages", "Averaged weights"), ("snapshots", "Snapshots"), ("ensemble", "Ensemble")):
        parts.append(_said(history, step, what))
    if history.ensemble:
        parts += [_cost(history.ensemble), _members(history.ensemble), _steps(history.ensemble)]
    parts.append(_said(history, "views", "Views at test time"))
    if history.views:
        parts.append(_views(history.views))
    return join(*parts)


def _said(history: History, step: str, what: str) -> Html | None:
    line = history.recipe_step(step)
    reason = plain(line.get("reason"), 600)
    return tag("p", f"{what}: ", prose(reason), ".") if reason else None


def _cost(line: Line) -> Html | None:
    given = line.get("milliseconds")
    times = [number(value) for value in given] if isinstance(given, list) else []
    if len(times) != 2 or not all(map(math.isfinite, times)):
        return None
    members = counted(len(rows(line, "members")), "member")
    return tag(
        "p",
        f"{members}, {percent(line.get('score'))} on {count(line.get('images'))} validation images where the best "
        f"alone has {percent(line.get('single'))}; an image takes {times[1]:.2f} ms instead of {times[0]:.2f} ms.",
    )


def _members(line: Line) -> Html:
    shares = {str(member.get("name")): member.get("share") for member in rows(line, "members")}
    body = [
        (
            name(row.get("name"), 60),
            plain(row.get("kind"), 20),
            percent(row.get("score")),
            percent(shares[str(row.get("name"))]) if str(row.get("name")) in shares else "",
            badge("good", "member") if str(row.get("name")) in shares else "",
        )
        for row in rows(line, "tried")[:MOST_ROWS]
    ]
    head = ("network", "kind", "alone", "share", "")
    return table(head, body, numeric=(2, 3), caption="What was tried, each alone on validation")


def _steps(line: Line) -> Html:
    body = [
        (
            name(row.get("name"), 60),
            percent(row.get("score")),
            points(row.get("gain")) if i else "",
            figure(row.get("loss")),
            f"{figure(row.get('loss_gain'))} ± {figure(row.get('loss_error'))}" if i else "",
        )
        for i, row in enumerate(rows(line, "steps")[:MOST_ROWS])
    ]
    head = ("added", "together", "gain", "log loss", "it falls by")
    return table(head, body, numeric=(1, 2, 3, 4), caption="Members added one by one, as long as the log loss falls")


def _views(lines: list[Line]) -> Html:
    if not lines:
        return nothing("No views were tried.")
    body = [
        (
            plain(line.get("name"), 20),
            count(line.get("passes")),
            percent(line.get("score")),
            points(line.get("gain")),
            figure(line.get("milliseconds")),
            badge("good", "kept") if line.get("kept") is True else "",
        )
        for line in lines[:MOST_ROWS]
    ]
    head = ("views", "passes", "validation", "gain", "ms an image", "")
    return table(head, body, numeric=(1, 2, 3, 4), caption="Views tried, from the cheapest to the dearest")

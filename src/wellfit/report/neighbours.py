"""The section on neighbours: training images nearest to a few test images, and those that stand among strangers."""

from __future__ import annotations

from wellfit.report.history import History, Line, rows
from wellfit.report.markup import MOST_ROWS, Html, join, more, name, nothing, table, tag
from wellfit.report.thumbnails import Thumbnails
from wellfit.report.words import count, counted, figure, number, percent, plain


def neighbours(history: History) -> Html | None:
    """None for a run that has looked for no neighbours."""
    line = history.neighbours
    if not line:
        return None
    thumbnails = Thumbnails(history.folder.arrays)
    examples, suspects = rows(line, "examples"), rows(line, "suspects")
    parts: list[Html] = []
    if examples:
        text = (
            "What the network holds for alike: each test image and the training images nearest to it, by straight (L2) "
            f"distance of the {count(line.get('features'))} numbers that enter its last layer. A coloured frame marks "
            "another label than the image's own."
        )
        parts += [
            tag("h3", "Nearest to test images"),
            tag("p", text),
            *(_strip(row, thumbnails) for row in examples[:20]),
        ]
    parts.append(tag("h3", "Perhaps mislabelled"))
    if not suspects:
        parts.append(nothing(f"Each of {_looked_at(line)} has one of its own label among its nearest."))
        return join(*parts)
    n = int(number(line.get("suspects_in_all")))
    text = (
        f"Of {_looked_at(line)}, {counted(n, 'image')} {'has' if n == 1 else 'have'} only images of one other class "
        f"for their {count(line.get('k'))} nearest, the least likely label first. Either the label is a slip or the "
        "picture looks like the other class; only an eye can tell."
    )
    parts.append(tag("p", text))
    parts += [_strip(row, thumbnails) for row in suspects if row.get("thumbnail")]
    body = [
        (name(row.get("file"), 120), name(row.get("label"), 60), name(row.get("neighbours_label"), 60))
        for row in suspects[:MOST_ROWS]
    ]
    listed = table(("file", "labelled", "its neighbours"), body, label="Perhaps mislabelled")
    left = nothing(f"… and {n - len(suspects):,} more.") if n > len(suspects) else None
    summary = tag("summary", f"{'The first' if left else 'All'} {counted(len(suspects), 'file')}")
    parts.append(tag("details", summary, listed, left, more(suspects)))
    return join(*parts)


def _looked_at(line: Line) -> str:
    looked, images = number(line.get("looked_at")), number(line.get("images"))
    if looked < images:
        return f"the {count(looked)} training images whose labels the network finds least likely"
    return f"{count(images)} training images"


def _strip(row: Line, thumbnails: Thumbnails) -> Html:
    """An image, then its neighbours, nearest first."""
    said: list[Html] = []
    right = row.get("label") == row.get("predicted")
    if "predicted" in row:
        answer = name(row.get("predicted"), 40), f" {percent(row.get('probability'), 0)}"
        said.append(tag("span", tag("b", "right: " if right else "wrong: "), *answer))
    if not right:
        said.append(tag("span", "is " if "predicted" in row else "labelled ", name(row.get("label"), 40)))
    first = _picture(row, thumbnails, "card asked", *said)
    others = [
        _picture(
            other,
            thumbnails,
            "card" if other.get("label") == row.get("label") else "card other",
            name(other.get("label"), 40),
            tag("span", f"at {figure(other.get('distance'))}", class_="label"),
        )
        for other in rows(row, "neighbours")[:12]
    ]
    return tag("div", first, *others, class_="cards strip")


def _picture(row: Line, thumbnails: Thumbnails, kind: str, *said: object) -> Html:
    uri = thumbnails.uri(row.get("thumbnail"))
    alt = f"{plain(row.get('file'))}: {plain(row.get('label'))}"
    shown = tag("img", src=uri, alt=alt, loading="lazy") if uri else tag("div", "no picture", class_="absent")
    text = tag("figcaption", *said, tag("span", name(row.get("file"), 30), class_="file"))
    return tag("figure", shown, text, class_=kind)

"""HTML by construction: text is escaped unless it was built here, so no foreign name can become markup."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sized

from wellfit.report.words import figure, plain

MOST_ROWS = 400  # of any table or list of the page

_VOID = frozenset({"meta", "img", "br"})


class Html(str):
    """Text that is markup already. Made by `tag`, `join`, and from the texts of this package; never from a record."""

    __slots__ = ()


def escape(value: object, limit: int = 300) -> Html:
    """Any value as text of the page; control characters replaced, cut at `limit` characters."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(plain(value, limit)))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element; children that are no `Html` are escaped, None is left out, iterables are joined.

    A trailing underscore of an attribute is dropped, an inner one becomes "-"; a value of None leaves it out.

    >>> tag("td", "<b>", class_="name")
    '<td class="name">&lt;b&gt;</td>'
    """
    inside = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(plain(value, 1_000_000))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{inside}>") if name in _VOID else Html(f"<{name}{inside}>{join(*children)}</{name}>")


def join(*children: object) -> Html:
    """Children one after the other, escaped where needed."""
    return Html("".join(_flat(children)))


def prose(value: object, limit: int = 2000) -> Html:
    """A sentence as text of the page, with what stands between backticks set as code."""
    parts = plain(value, limit).split("`")
    if len(parts) % 2 == 0:  # an odd backtick is one that was meant
        return escape(value, limit)
    return join(
        *(
            tag("code", part, class_="short" if len(part) < 30 else None) if i % 2 else escape(part, limit)
            for i, part in enumerate(parts)
        )
    )


def name(value: object, limit: int = 120) -> Html:
    """A foreign name (class, file): kept apart from the direction of the text around it, full text on hover."""
    text = plain(value, 2000)
    return tag("bdi", escape(text, limit), title=text if len(text) > limit else None)


def block(text: str, limit: int = 60_000) -> Html:
    """Preformatted text: lines and tabs kept, everything else as in `escape`; a cut is said."""
    lines = [html.escape(plain(line.expandtabs(4), 2000)) for line in text[:limit].splitlines()]
    if len(text) > limit:
        lines.append("… cut here; the file in the run folder goes on")
    return tag("div", tag("pre", Html("\n".join(lines))), class_="scroll", tabindex=0)


def table(
    head: Iterable[object],
    body: Iterable[Iterable[object]],
    *,
    numeric: Iterable[int] = (),
    caption: str = "",
    label: str = "",
) -> Html:
    """A table in a box of its own that scrolls; columns in `numeric` (from 0) are set flush right.

    caption: heading of the table. label: its name for screen readers, where a heading stands above it already.
    """
    right = set(numeric)

    def cells(kind: str, row: Iterable[object]) -> Html:
        return join(*(tag(kind, cell, class_="number" if i in right else None) for i, cell in enumerate(row)))

    titles = list(head)
    heads = tag("thead", tag("tr", cells("th", titles))) if any(titles) else None
    rows = tag("tbody", *(tag("tr", cells("td", row)) for row in body))
    inside = tag("table", tag("caption", caption) if caption else None, heads, rows)
    # Focusable, so that a keyboard can scroll it.
    return tag("div", inside, class_="scroll", tabindex=0, role="region", aria_label=label or caption or "table")


def nothing(text: str) -> Html:
    """The one line of a section that has nothing to show."""
    return tag("p", text, class_="quiet")


def badge(kind: str, text: str) -> Html:
    """A short word on a tinted ground; the word carries the meaning, the colour only repeats it."""
    return tag("span", text, class_=f"badge {kind}")


def bar(share: float) -> Html | None:
    """A small bar behind a figure, `share` of its full length."""
    if not math.isfinite(share):
        return None
    width = f"width:{100 * min(1.0, max(0.0, share)):.1f}%"
    return tag("span", tag("span", style=width), class_="bar", aria_hidden="true")


def more(items: Sized) -> Html | None:
    """What a list that was cut at MOST_ROWS leaves out."""
    n = len(items)
    return nothing(f"… and {n - MOST_ROWS:,} more in record.jsonl.") if n > MOST_ROWS else None


def cell(value: object) -> Html:
    """Any value of the record as the content of a table's cell; "–" where there is none."""
    if value is None:
        return escape("–")
    if isinstance(value, bool):
        return escape("yes" if value else "no")
    if isinstance(value, float):
        return escape(figure(value))
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return escape(value)


def _flat(children: Iterable[object]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, str) or not isinstance(child, Iterable):
            yield escape(child, 20_000)
        else:
            yield from _flat(child)

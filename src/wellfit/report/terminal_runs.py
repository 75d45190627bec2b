"""The table of `wellfit runs`: as many columns as fit, the least important ones left out first."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from wellfit.report.listing import Row
from wellfit.report.terminal import sparkline
from wellfit.report.words import duration, percent, plain

SPARK = 14
SHORTEST_NAME = 12
_SPLITS = {"validation": " val"}

# Heading, what a row has there, and its rank: the highest is left out first where the terminal is narrow.
_COLUMNS: tuple[tuple[str, Callable[[Row], str], int], ...] = (
    ("state", lambda row: row.state, 0),
    ("accuracy", lambda row: percent(row.accuracy) + _SPLITS.get(row.split, ""), 1),
    ("validation", lambda row: sparkline(row.scores, SPARK), 3),
    ("loss", lambda row: sparkline(row.losses, SPARK), 5),
    ("model", lambda row: plain(row.model, 24) or "–", 2),
    ("data", lambda row: plain(row.data, 20) or "–", 6),
    ("time", lambda row: duration(row.seconds), 4),
    ("started", lambda row: _here(row.started), 7),
)


def table(
    rows: Sequence[Row], root: Path, width: int | None, styled: Callable[[str, str], str] = lambda text, state: text
) -> str:
    """The rows as text without a final line break. width: columns of the terminal, None where there is none.

    styled(text, state): the word for the state as the terminal is to show it.
    """
    names = [_name(row.path, root) for row in rows]
    chosen, longest = _fitting(rows, max(_cells(name) for name in names), width)
    columns = [("run", [_cut(name, longest) for name in names])]
    columns += [(heading, [cell(row) for row in rows]) for heading, cell, _ in chosen]
    widths = [max(map(_cells, (heading, *cells))) for heading, cells in columns]
    lines = ["  ".join(_padded(heading, w) for (heading, _), w in zip(columns, widths, strict=True)).rstrip()]
    for i, row in enumerate(rows):
        cells = [_padded(cells[i], w) for (_, cells), w in zip(columns, widths, strict=True)]
        cells[1] = styled(cells[1], row.state)
        lines.append("  ".join(cells).rstrip())
    told = [f"{name}: {row.note}" for name, row in zip(names, rows, strict=True) if row.note]
    lines += [""] if told else []
    for note in told:
        lines += textwrap.wrap(note, max(40, width or 100), subsequent_indent="  ")
    return "\n".join(lines)


def _fitting(
    rows: Sequence[Row], name: int, width: int | None
) -> tuple[list[tuple[str, Callable[[Row], str], int]], int]:
    """The columns that fit beside the names, and how long a name may be. Columns with nothing in them are left out."""
    filled = [c for c in _COLUMNS if c[2] == 0 or any(c[1](row).strip(" –") for row in rows)]
    while width is not None:
        taken = sum(2 + max(_cells(c[0]), *(_cells(c[1](row)) for row in rows)) for c in filled)
        if name + taken <= width:
            break
        dispensable = max(filled, key=lambda column: column[2])
        if taken + SHORTEST_NAME <= width and (dispensable[2] <= 3 or name <= SHORTEST_NAME):
            return filled, width - taken
        if dispensable[2] == 0:
            return filled, max(SHORTEST_NAME, width - taken)
        filled.remove(dispensable)
    return filled, name


def _here(started: float) -> str:
    """The time by the clock of whoever looks."""
    try:
        return datetime.fromtimestamp(started).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "–"


def _name(path: Path, root: Path) -> str:
    inside = path.relative_to(root) if path.is_relative_to(root) else path
    return plain(inside if str(inside) != "." else path, 120)


def _cells(text: str) -> int:
    """Columns that the text takes in a terminal: East Asian characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _cut(text: str, width: int) -> str:
    """The end of a name that is too long: runs of one kind differ there."""
    if _cells(text) <= width:
        return text
    while text and _cells(text) > width - 1:
        text = text[1:]
    return "…" + text


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _cells(text))

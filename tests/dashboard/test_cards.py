"""The grid's cards: what is fetched, and when, while many come into sight at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.dashboard.conftest import Page, Served, append, opening, step

MOST = 12  # curves that one answer holds, which are parsed and kept in one task of the page


def test_curves_come_in_small_pieces_and_only_for_cards_in_sight(
    chromium: Any, serve: Callable[..., Served], tmp_path: Path
) -> None:
    for i in range(80):
        append(tmp_path / "runs" / f"run-{i:02d}", opening(), *(step(s, 2.0 - s / 10) for s in range(1, 9)))
    served = serve()
    served.runs(lambda runs: len(runs) == 80 and all(run["read"] for run in runs.values()))
    page = Page(chromium, served)
    page.open(height=2400)
    drawn = (
        "[...document.querySelectorAll('#grid-view .card canvas')].filter((c) => ![0, 300].includes(c.width)).length"
    )
    page.until(f"document.querySelectorAll('#grid-view .card').length === 80 && {drawn} >= 32")
    asked = page.js(
        "performance.getEntriesByType('resource').map((e) => new URL(e.name))"
        ".filter((u) => u.pathname === '/api/curves').map((u) => u.searchParams.get('keys').split(',').length)"
    )
    assert max(asked) <= MOST
    assert len(asked) >= 32 / MOST
    assert page.js(drawn) < 80  # those further down wait until somebody scrolls there
    page.js("scrollTo(0, document.documentElement.scrollHeight)")
    page.until(f"{drawn} === 80")
    page.driver.get("about:blank")

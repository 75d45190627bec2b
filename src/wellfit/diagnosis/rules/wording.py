"""How findings list things."""

from __future__ import annotations

from collections.abc import Sequence


def listed(items: Sequence[object], most: int = 5) -> str:
    """The first of them, and an ellipsis where there are more."""
    return f"{', '.join(map(str, items[:most]))}{', …' if len(items) > most else ''}"

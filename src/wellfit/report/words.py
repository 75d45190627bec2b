"""Numbers and foreign text, written for people."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

# Control characters, lone surrogates, and overrides of the writing direction, which could make a file
# name read as something else ("gpj.exe").
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def number(value: Any) -> float:
    """A float from a field of the record: None, text that is no number, and non-numbers become NaN.

    >>> number("inf"), number(True), number(None)
    (inf, 1.0, nan)
    """
    if isinstance(value, int | float | str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return math.nan
    return math.nan


def plain(value: Any, limit: int = 300) -> str:
    """Text that can be shown anywhere: control characters and direction overrides replaced, cut at `limit`."""
    shown = _UNSHOWABLE.sub("\ufffd", "" if value is None else str(value)[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1].rstrip() + "…"


def percent(share: Any, digits: int = 1) -> str:
    """`0.9163` → "91.6%"; "–" where there is no number. Only a share of exactly 1 reads as 100%."""
    share = number(share)
    if not math.isfinite(share):
        return "–"
    text = f"{100 * share:.{digits}f}"
    # A model with one mistake in ten thousand must not be shown as perfect.
    if share < 1 and float(text) >= 100:
        text = f"{100 - 10**-digits:.{digits}f}"
    if share > 0 and float(text) == 0:
        return f"<{10**-digits:g}%"
    return text + "%"


def interval(low: Any, high: Any) -> str:
    """`(0.91, 0.92)` → "91.0–92.0%"."""
    return f"{percent(low).removesuffix('%')}–{percent(high)}"


def points(difference: Any) -> str:
    """A difference of two shares, in signed percentage points: `0.012` → "+1.2 points"."""
    difference = number(difference)
    return f"{100 * difference:+.1f} points" if math.isfinite(difference) else "–"


def count(value: Any) -> str:
    """`10000` → "10,000"; "–" where there is no number."""
    value = number(value)
    return f"{round(value):,}" if math.isfinite(value) else "–"


def counted(value: int, noun: str, plural: str = "") -> str:
    """`(1, "image")` → "1 image"; `(2000, "image")` → "2,000 images"."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def figure(value: Any) -> str:
    """Three significant digits, small and large ones in scientific form: `0.0003` → "3e-4"."""
    value = number(value)
    if not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def moment(value: Any) -> str:
    """Seconds since 1970 → "2025-01-07 10:21 UTC"; text stays as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M UTC")
        except (ValueError, OverflowError, OSError):
            return "–"
    return plain(value, 60) or "–"


def duration(seconds: Any) -> str:
    """`252.3` → "4 min 12 s"."""
    seconds = number(seconds)
    if not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

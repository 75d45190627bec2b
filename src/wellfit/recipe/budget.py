"""Time: what the user gave, and what is left of it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from wellfit.errors import UserError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
SMALLEST = 20.0  # seconds: below it not even the start, the checks and an evaluation fit


def parse_duration(text: str | float) -> float:
    """Seconds of "90s", "10m", "1h30m" or a plain number of seconds; UserError otherwise.

    >>> parse_duration("1h30m")
    5400.0
    """
    rule = "a duration is a number with s, m or h, such as 90s, 10m or 2h"
    if isinstance(text, int | float) and not isinstance(text, bool):
        seconds = float(text)
    else:
        text = str(text).strip().lower()
        parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
        if re.fullmatch(r"\d+(\.\d+)?", text):
            seconds = float(text)
        elif parts and "".join(a + b for a, b in parts) == text.replace(" ", ""):
            seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
        else:
            raise UserError(f"{rule}, got '{text}'; write for instance --budget 10m")
    if not (0 < seconds < math.inf):
        raise UserError(f"{rule}, and more than 0, got '{text}'; write for instance --budget 10m")
    return seconds


def parse_budget(text: str | float) -> float:
    """As `parse_duration`, refused below the smallest sensible budget."""
    seconds = parse_duration(text)
    if seconds < SMALLEST:
        raise UserError(
            f"a budget of {seconds:g} s is too small for anything: starting, checking and evaluating alone take about "
            f"{SMALLEST:g} s; the smallest sensible one is --budget {SMALLEST:g}s"
        )
    return seconds


def in_words(seconds: float) -> str:
    """ "45 s", "7 min 30 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass(frozen=True)
class Budget:
    """The time of one run, counted from the start of the command; `seconds` None: no deadline."""

    seconds: float | None
    started: float
    clock: Callable[[], float] = time.monotonic

    @property
    def spent(self) -> float:
        return self.clock() - self.started

    @property
    def deadline(self) -> float | None:
        """On the clock's scale."""
        return None if self.seconds is None else self.started + self.seconds

    @property
    def left(self) -> float:
        """Seconds until the deadline, never negative; infinity without one."""
        return math.inf if self.seconds is None else max(0.0, self.seconds - self.spent)

"""The space of settings: named ranges that are drawn from, narrowed and widened (SPEC S2, S4, S5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from wellfit.errors import UserError


@dataclass(frozen=True)
class LogUniform:
    """A number drawn as 10^U(log low, log high); 0 < low < high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise UserError(
                f"a log-uniform range needs 0 < low < high, got {self.low:g} to {self.high:g}; "
                "use a positive lower end, or a choice"
            )

    def around(self, value: float, factor: float) -> LogUniform:
        """The range [value / factor, value · factor]."""
        return LogUniform(value / factor, value * factor)

    def edge(self, value: float, share: float = 0.1) -> str | None:
        """ "low" or "high" when the value lies within `share` of that end (in the logarithm), else None."""
        place = math.log(value / self.low) / math.log(self.high / self.low)
        return "low" if place < share else "high" if place > 1 - share else None

    def __str__(self) -> str:
        return f"{self.low:.2g} to {self.high:.2g}"


@dataclass(frozen=True)
class Choice:
    """One of a few values (numbers or names), drawn evenly."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise UserError(f"a choice needs at least two values, got {list(self.values)}; fix the setting instead")

    def __str__(self) -> str:
        return " | ".join(map(str, self.values))


Space = dict[str, LogUniform | Choice]


def ranges(space: Space) -> dict[str, list[Any]]:
    """JSON form: [low, high] of a range, the values of a choice."""
    return {
        name: [kind.low, kind.high] if isinstance(kind, LogUniform) else list(kind.values)
        for name, kind in space.items()
    }

"""The kinds of ranges that a setting is drawn from. Each maps the unit interval onto its values, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from wellfit.errors import UserError

# The values that other settings must have for this one to be drawn: {"optimizer": ("momentum", "nesterov")}.
Condition = dict[str, tuple[Any, ...]]
EDGE = 0.1  # share of a range that counts as its edge
DIGITS = 6  # significant ones of a drawn number: the last bits of a logarithm differ between machines


@dataclass(frozen=True)
class LogUniform:
    """A number drawn as 10^U(log low, log high); 0 < low < high. only_with: see `Condition`."""

    low: float
    high: float
    only_with: Condition = field(default_factory=dict, hash=False, kw_only=True)
    kind: ClassVar[str] = "log_uniform"

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise UserError(
                f"a log-uniform range needs 0 < low < high, got {self.low:g} to {self.high:g}; "
                + (
                    "give the one value as `fixed`"
                    if self.low == self.high
                    else "use a positive lower end, or a choice"
                )
            )

    def at(self, place: float) -> float:
        """The value at a place in [0, 1], evenly in the logarithm."""
        return _within(math.exp(math.log(self.low) + place * math.log(self.high / self.low)), self.low, self.high)

    def place(self, value: float) -> float:
        """Where a value stands: 0 at the low end, 1 at the high one, outside of both beyond the range."""
        return math.log(value / self.low) / math.log(self.high / self.low)

    def around(self, value: float, factor: float) -> LogUniform:
        """The range [value / factor, value · factor]."""
        return LogUniform(value / factor, value * factor, only_with=self.only_with)

    def edge(self, value: float, share: float = EDGE) -> str | None:
        """ "low" or "high" when the value lies within `share` of that end (in the logarithm), else None."""
        return _edge(self.place(value), share)

    def __str__(self) -> str:
        return f"{self.low:.2g} to {self.high:.2g}"


@dataclass(frozen=True)
class Uniform:
    """A number drawn evenly between two ends; low < high."""

    low: float
    high: float
    only_with: Condition = field(default_factory=dict, hash=False, kw_only=True)
    kind: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise UserError(
                f"a uniform range needs two finite ends, low < high, got {self.low:g} to {self.high:g}; "
                "put the smaller one first, or use fixed for one value"
            )

    def at(self, place: float) -> float:
        """The value at a place in [0, 1]."""
        return _within(self.low + place * (self.high - self.low), self.low, self.high)

    def place(self, value: float) -> float:
        """Where a value stands: 0 at the low end, 1 at the high one, outside of both beyond the range."""
        return (value - self.low) / (self.high - self.low)

    def edge(self, value: float, share: float = EDGE) -> str | None:
        """ "low" or "high" when the value lies within `share` of that end, else None."""
        return _edge(self.place(value), share)

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True)
class Integer:
    """A whole number drawn evenly from low to high, both included; low < high."""

    low: int
    high: int
    only_with: Condition = field(default_factory=dict, hash=False, kw_only=True)
    kind: ClassVar[str] = "integer"

    def __post_init__(self) -> None:
        if not (isinstance(self.low, int) and isinstance(self.high, int) and self.low < self.high):
            raise UserError(
                f"an integer range needs two whole numbers, low < high, got {self.low} to {self.high}; "
                "put the smaller one first, or use fixed for one value"
            )

    def at(self, place: float) -> int:
        """The value at a place in [0, 1]: each whole number has an equal part of it."""
        return min(self.high, self.low + int(place * (self.high - self.low + 1)))

    def place(self, value: float) -> float:
        """The middle of the part of [0, 1] that belongs to a value."""
        return (value - self.low + 0.5) / (self.high - self.low + 1)

    def edge(self, value: float, share: float = EDGE) -> str | None:
        """ "low" or "high" for the outermost numbers: those within `share` of an end, or the end itself."""
        reach = share * (self.high - self.low)
        return "low" if value - self.low <= reach else "high" if self.high - value <= reach else None

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


@dataclass(frozen=True)
class Choice:
    """One of a few values (numbers or names), drawn evenly."""

    values: tuple[Any, ...]
    only_with: Condition = field(default_factory=dict, hash=False, kw_only=True)
    kind: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise UserError(f"a choice needs at least two values, got {list(self.values)}; fix the setting instead")
        twice = [value for i, value in enumerate(self.values) if value in self.values[:i]]
        if twice:
            raise UserError(f"a choice names each value once, got {list(self.values)}; leave one {twice[0]!r} out")

    def at(self, place: float) -> Any:
        """The value at a place in [0, 1]: each has an equal part of it."""
        return self.values[min(len(self.values) - 1, int(place * len(self.values)))]

    def place(self, value: Any) -> float:
        """The middle of the part of [0, 1] that belongs to a value; ValueError where it is none of them."""
        return (self.values.index(value) + 0.5) / len(self.values)

    def __str__(self) -> str:
        return " | ".join(map(str, self.values))


@dataclass(frozen=True)
class Fixed:
    """One value for all trials: what a narrowing leaves of a choice."""

    value: Any
    only_with: Condition = field(default_factory=dict, hash=False, kw_only=True)
    kind: ClassVar[str] = "fixed"

    def at(self, place: float) -> Any:
        """The value, wherever."""
        return self.value

    def place(self, value: Any) -> float:
        """The middle, for every value."""
        return 0.5

    def __str__(self) -> str:
        return str(self.value)


Kind = LogUniform | Uniform | Integer | Choice | Fixed


def _edge(place: float, share: float) -> str | None:
    return "low" if place < share else "high" if place > 1 - share else None


def _within(value: float, low: float, high: float) -> float:
    return min(high, max(low, float(f"{value:.{DIGITS}g}")))

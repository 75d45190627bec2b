"""What every check hands back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wellfit.findings import Finding


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check.

    check: the finding id that stands for it. passed: whether the recipe may go on.
    value, expected: the figure seen and the one wanted, None where there is no single one.
    message: one sentence for people, with the numbers.
    finding: set when there is something to say beyond "passed"; "error" severity where the recipe must stop.
    seconds: how long it took. finished: False when the time ran out before the check could decide.
    """

    check: str
    passed: bool
    value: float | None
    expected: float | None
    message: str
    finding: Finding | None
    seconds: float
    finished: bool = True

    @property
    def stops(self) -> bool:
        """Whether the recipe must not go on: failed, and not merely for want of time."""
        return not self.passed and self.finding is not None and self.finding.severity == "error"

    def as_dict(self) -> dict[str, Any]:
        """Fields of the record's "check" line."""
        names = ("check", "passed", "value", "expected", "message", "seconds", "finished")
        return {name: getattr(self, name) for name in names}

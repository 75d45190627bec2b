"""A finding: what was seen, the evidence, and one next action. The same type everywhere.

The texts behind `wellfit explain ID` stand in `explanations.toml`, in root-cause order: a cause
is listed above its consequences, and `root_cause_first` sorts by that order.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from wellfit.errors import WellfitError, unknown_name

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One thing seen in data, a check, a training or a search.

    id: stable public name, a key of `explanations.toml`.
    message: one sentence with the numbers in it.
    evidence: JSON-serialisable values that the message rests on.
    action: one next step, in the imperative.
    reference: SPEC row, lecture or paper.
    """

    id: str
    severity: Severity
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    action: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity is one of {SEVERITIES}, got {self.severity!r}")
        if self.id not in explanations():
            raise ValueError(f"finding '{self.id}' has no entry in explanations.toml")

    def __str__(self) -> str:
        action = f" → {self.action}" if self.action else ""
        return f"[{self.severity}] {self.id}: {self.message}{action}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class GateFailed(WellfitError):
    """A check failed and the recipe stopped; `findings` say in words what was seen."""

    exit_code = 1

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = list(findings)
        super().__init__("; ".join(f"{f.id}: {f.message}" for f in self.findings))


@cache
def explanations() -> dict[str, dict[str, str]]:
    """All findings by id, root causes first; each has `title`, `text`, `action`, `reference`."""
    text = resources.files("wellfit").joinpath("explanations.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def explain(finding_id: str) -> str:
    """The paragraph that `wellfit explain ID` prints."""
    known = explanations()
    if finding_id not in known:
        raise unknown_name("finding", finding_id, known)
    entry = known[finding_id]
    return (
        f"{finding_id}: {entry['title']}\n\n{entry['text'].strip()}\n\n"
        f"What to do: {entry['action']}\nReference: {entry['reference']}"
    )


def root_cause_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by the order of `explanations.toml`, worst severity first among equals."""
    rank = {name: i for i, name in enumerate(explanations())}
    return sorted(findings, key=lambda f: (rank[f.id], -SEVERITIES.index(f.severity)))

"""A finding: what was seen, the evidence, and one next action. The same type everywhere.

The texts behind `wellfit explain ID` stand in `explanations.toml`, in root-cause order: a cause
is listed above its consequences, and `root_cause_first` sorts by that order.
"""

from __future__ import annotations

import html
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from wellfit.errors import WellfitError, unknown_name

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")

# Of a notebook: readable on a light and on a dark ground, and apart for colour-blind readers.
_COLOURS = {"info": "#4a86cf", "warning": "#d0701c", "error": "#cf3f52"}
# Control characters, and overrides of the writing direction.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def _text(value: str, limit: int = 2000) -> str:
    escaped = html.escape(_UNSHOWABLE.sub("\ufffd", value[:limit]))
    return re.sub("`([^`]+)`", r"<code>\1</code>", escaped)


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

    def _repr_html_(self) -> str:
        """What a notebook shows: message, action, and the explanation and evidence to be unfolded. No script."""
        known = explanations()[self.id]
        evidence = json.dumps(self.evidence, indent=1, ensure_ascii=False, default=str)
        more = f"<p>{_text(known['text'])}</p>" + (f"<pre>{_text(evidence, 4000)}</pre>" if self.evidence else "")
        reference = self.reference or known["reference"]
        return (
            f'<div style="border-left:4px solid {_COLOURS[self.severity]};padding:.1em 1em;margin:.4em 0">'
            f"<p style='margin:.3em 0'><b>{self.severity}: {_text(known['title'])}</b> <code>{self.id}</code></p>"
            f"<p style='margin:.3em 0'><bdi>{_text(self.message)}</bdi></p>"
            + (f"<p style='margin:.3em 0'>→ <bdi>{_text(self.action)}</bdi></p>" if self.action else "")
            + f"<details><summary>What this means</summary>{more}<p>Reference: {_text(reference)}</p></details></div>"
        )


class Findings(list[Finding]):
    """A list of findings that a notebook shows one below the other."""

    def _repr_html_(self) -> str:
        return "".join(finding._repr_html_() for finding in self) or "<p>No findings.</p>"


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


def root_cause_first(findings: Iterable[Finding]) -> Findings:
    """Sort by the order of `explanations.toml`, worst severity first among equals."""
    rank = {name: i for i, name in enumerate(explanations())}
    return Findings(sorted(findings, key=lambda f: (rank[f.id], -SEVERITIES.index(f.severity))))

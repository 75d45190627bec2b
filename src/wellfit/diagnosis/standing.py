"""Where a monitored training stands, in a few lines: for `print(monitor)` and for a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wellfit.diagnosis.history import History
from wellfit.diagnosis.rules import RULES
from wellfit.diagnosis.rules.needs import NOT_HERE
from wellfit.findings import Finding, explanations


@dataclass(frozen=True)
class Watched:
    """What is watched, in words: class names of the network and of its optimizers."""

    network: str
    optimizers: Sequence[str]


def clean_name(model: Any) -> str:
    """The class of the network itself, inside what torch.compile and DistributedDataParallel put around it."""
    while (inner := getattr(model, "_orig_mod", None) or _wrapped(model)) is not None:
        model = inner
    return type(model).__name__


def headline(findings: Sequence[Finding], unjudged: dict[str, str]) -> str:
    """The verdict in a few words: the root cause, or that none was seen."""
    sick = [f for f in findings if f.severity != "info"]
    if sick:
        return explanations()[sick[0].id]["title"]
    if len(unjudged) > len(RULES) / 2:
        return "Nothing wrong was seen so far; most is still to be judged"
    return "Nothing wrong was seen"


def in_words(
    h: History, watched: Watched, findings: Sequence[Finding], unjudged: dict[str, str], *, closed: bool
) -> str:
    """One line on what is watched and how far it is, one on the verdict, then a line a finding."""
    lines = [f"wellfit.Monitor of {_stand(h, watched, closed=closed)}"]
    if not len(h.losses):
        return lines[0]
    lines.append(f"{headline(findings, unjudged)}. {_share(unjudged)}")
    return "\n".join([*lines, *(f"  {finding}" for finding in findings), *(f"  note: {note}" for note in h.notes)])


def as_html(
    h: History, watched: Watched, findings: Sequence[Finding], unjudged: dict[str, str], *, closed: bool
) -> str:
    """The same for a notebook."""
    said = f"<p><b>wellfit.Monitor</b> of {html.escape(_stand(h, watched, closed=closed))}</p>"
    if not len(h.losses):
        return said
    said += f"<p><b>{html.escape(headline(findings, unjudged))}.</b> {html.escape(_share(unjudged))}</p>"
    items = [
        f"<li><b>{html.escape(f.severity)}</b> <code>{html.escape(f.id)}</code>: {html.escape(f.message)}"
        f"<br/>→ {html.escape(f.action)}</li>"
        for f in findings
    ]
    said += f"<ol>{''.join(items)}</ol>" if items else ""
    return said + "".join(f"<p>Note: {html.escape(note)}</p>" for note in h.notes)


def _stand(h: History, watched: Watched, *, closed: bool) -> str:
    what = f"{watched.network}, trained by {', '.join(watched.optimizers)}"
    if not len(h.losses):
        return f"{what}: no step yet" + ("; closed" if closed else "")
    tail, bad = h.finite_loss[-20:], h.first_bad_step
    now = f"{np.median(tail):.4g}" if bad is None else f"{h.loss[bad]} since step {bad}"
    epochs = f", {len(h.epochs)} epochs" if h.epochs else ""
    return f"{what}: {len(h.losses)} steps{epochs}, loss {h.loss[0]:.4g} → {now}" + ("; closed" if closed else "")


def _share(unjudged: dict[str, str]) -> str:
    foreign = sum(reason.startswith(NOT_HERE) for reason in unjudged.values())
    beside = f" {foreign} do not apply to this network." if foreign else ""
    return f"{len(RULES) - len(unjudged)} of {len(RULES)} questions could be judged.{beside}"


def _wrapped(model: Any) -> Any:
    """What a data-parallel wrapper holds; None for a network."""
    return getattr(model, "module", None) if type(model).__name__.endswith("DataParallel") else None

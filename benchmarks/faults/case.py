"""What a case is: a training (or a check, or an audit) with one planted fault or with none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wellfit.diagnosis.history import History
from wellfit.findings import Finding

Ground = Literal["training", "check", "audit"]
Half = Literal["calibrate", "report"]


@dataclass(frozen=True)
class Watched:
    """One training as the monitor saw it. validation_accuracy: at its end, in [0, 1]; seconds: of wall time."""

    history: History
    validation_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Case:
    """One setting. Made cheaply: data is read and weights are drawn when `run` is called.

    name: unique and telling, such as "healthy/lenet/digits/adam/cosine/0.003/0".
    fault: id of the planted finding, "" for a healthy case.
    ground: who is to see it: the monitor ("training"), the gates ("check") or the audit ("audit").
    run: a training gives a `Watched`, a check or an audit its findings.
    at_least: validation accuracy in [0, 1] below which a healthy case is none; set before any finding is looked at.
    module: the file that defines it, filled in by `all_cases.py`.
    """

    name: str
    fault: str
    ground: Ground
    run: Callable[[], Watched | list[Finding]]
    at_least: float | None = None
    module: str = ""

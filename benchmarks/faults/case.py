"""What a case is: a training (or a check, or an audit) with one planted fault or with none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
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
    module: the file that defines it, filled in by `all_cases`.
    """

    name: str
    fault: str
    ground: Ground
    run: Callable[[], Watched | list[Finding]]
    at_least: float | None = None
    module: str = ""


@cache
def all_cases() -> dict[str, Case]:
    """Every case by its name. ValueError where two share one."""
    from faults import healthy, healthy_apart, healthy_checks, sick

    found: dict[str, Case] = {}
    for module in (healthy, healthy_apart, healthy_checks, *sick.modules()):
        for case in _of(module):
            if case.name in found:
                raise ValueError(f"two cases are called '{case.name}'; the name is what their results are kept under")
            found[case.name] = case
    return found


def _of(module: ModuleType) -> list[Case]:
    return [replace(case, module=module.__file__ or "") for case in module.cases()]


def split(cases: Iterable[Case]) -> dict[str, Half]:
    """The half of each case by name: within each fault, sorted by a hash of the name, every other one."""
    halves: dict[str, Half] = {}
    by_fault: dict[str, list[Case]] = {}
    for case in cases:
        by_fault.setdefault(case.fault, []).append(case)
    for of_fault in by_fault.values():
        for place, case in enumerate(sorted(of_fault, key=_draw)):
            halves[case.name] = "report" if place % 2 else "calibrate"
    return halves


def _draw(case: Case) -> tuple[str, str]:
    # Ground by ground, so that a fault that several are to see is halved in each.
    return case.ground, hashlib.sha256(case.name.encode()).hexdigest()


@cache
def _halves() -> dict[str, Half]:
    return split(all_cases().values())


def half(case: Case) -> Half:
    """Whether the rules may be calibrated on the case, or are reported on it."""
    return _halves()[case.name]

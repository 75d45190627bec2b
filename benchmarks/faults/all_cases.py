"""Every case there is, and its two halves: one to calibrate the rules on, one to report them on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from types import ModuleType

from faults import healthy, healthy_apart, healthy_checks, sick
from faults.case import Case, Half


@cache
def all_cases() -> dict[str, Case]:
    """Every case by its name. ValueError where two share one."""
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

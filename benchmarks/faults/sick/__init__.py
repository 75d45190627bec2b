"""Trainings with one mistake each. Every module here that offers `cases()` adds to them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from faults.case import Case


def modules() -> Iterator[ModuleType]:
    """The modules of this folder that plant faults, by name."""
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        module = importlib.import_module(f"{__name__}.{found.name}")
        if hasattr(module, "cases"):
            yield module


def cases() -> list[Case]:
    """All sick cases."""
    return [case for module in modules() for case in module.cases()]

"""wellfit: labelled images and a time budget in; a model, a report and the evidence out.

Names are loaded when first used, so that `import wellfit` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wellfit.checks.gradients import gradient_check as gradient_check
    from wellfit.config import Config as Config
    from wellfit.diagnosis.monitor import Monitor as Monitor
    from wellfit.diagnosis.statistics import activation_statistics as activation_statistics
    from wellfit.errors import Interrupted as Interrupted
    from wellfit.errors import UserError as UserError
    from wellfit.errors import WellfitError as WellfitError
    from wellfit.findings import Finding as Finding
    from wellfit.findings import GateFailed as GateFailed
    from wellfit.findings import explain as explain
    from wellfit.models.complexity import complexity as complexity
    from wellfit.recipe.api import audit as audit
    from wellfit.recipe.api import check as check
    from wellfit.recipe.api import fit as fit
    from wellfit.recipe.api import resume as resume
    from wellfit.recipe.api import train as train
    from wellfit.recipe.joining import ensemble as ensemble
    from wellfit.recipe.run import Run as Run
    from wellfit.recipe.searching import search as search

__version__ = "0.1.0"

_HOMES = {
    "Config": "wellfit.config",
    "Finding": "wellfit.findings",
    "GateFailed": "wellfit.findings",
    "Interrupted": "wellfit.errors",
    "Monitor": "wellfit.diagnosis.monitor",
    "Run": "wellfit.recipe.run",
    "UserError": "wellfit.errors",
    "WellfitError": "wellfit.errors",
    "activation_statistics": "wellfit.diagnosis.statistics",
    "audit": "wellfit.recipe.api",
    "check": "wellfit.recipe.api",
    "complexity": "wellfit.models.complexity",
    "ensemble": "wellfit.recipe.joining",
    "explain": "wellfit.findings",
    "fit": "wellfit.recipe.api",
    "gradient_check": "wellfit.checks.gradients",
    "resume": "wellfit.recipe.api",
    "search": "wellfit.search",
    "train": "wellfit.recipe.api",
}
__all__ = sorted(["__version__", *_HOMES])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wellfit' has no attribute '{name}'")
    home = import_module(_HOMES[name])
    value = home if name == "search" else getattr(home, name)  # that package can be called
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

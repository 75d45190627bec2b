"""The public surface: what `import wellfit` promises, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import wellfit

NAMES = [
    "Config",
    "Finding",
    "GateFailed",
    "Interrupted",
    "Monitor",
    "Run",
    "UserError",
    "WellfitError",
    "__version__",
    "activation_statistics",
    "audit",
    "check",
    "complexity",
    "ensemble",
    "explain",
    "fit",
    "gradient_check",
    "resume",
    "search",
    "train",
]
HEAVY = ("torch", "torchvision", "timm", "matplotlib", "pandas", "sklearn", "scipy", "optuna", "numpy", "PIL", "rich")


def test_exported_names_are_these() -> None:
    assert wellfit.__all__ == NAMES
    assert dir(wellfit) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_exported_name_can_be_had(name: str) -> None:
    assert getattr(wellfit, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        getattr(wellfit, "fit" + "t")


def imported_by(*arguments: str) -> set[str]:
    """Top-level packages that a fresh Python has loaded at the end of the command."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    lines = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {name.partition(".")[0] for name in lines}


@pytest.mark.parametrize("module", ["", ".errors", ".findings", ".record", ".config", ".randomness", ".cli.commands"])
def test_import_budget_of_the_bottom_floor(module: str) -> None:
    allowed = {"numpy"} if module == ".randomness" else set()
    loaded = imported_by("-c", f"import wellfit{module}")
    assert "wellfit" in loaded
    assert loaded & set(HEAVY) == allowed


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fit", "--help"], ["explain", "lr-too-high"]])
def test_import_budget_of_the_command(arguments: list[str]) -> None:
    loaded = imported_by("-m", "wellfit", *arguments)
    assert "click" in loaded
    assert not loaded & set(HEAVY)

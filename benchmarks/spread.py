"""What the programs of this folder print beside their figures: median and range, machine and versions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from importlib.metadata import version

from wellfit.recipe.machine import machine

PACKAGES = ("wellfit", "torch", "torchvision", "numpy", "pillow", "simplejpeg")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """ "1.20 (1.10-1.31)": median and range."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def versions() -> str:
    """The machine and the packages, on one line."""
    here = machine()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{here['processor']}, {here['cores']} cores, {here['system']}, Python {here['python']}, {packages}"

"""Every public name stands in the reference, and nothing stands there that is not to be had."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import wellfit
from wellfit.data.augmentations.table import AUGMENTATIONS
from wellfit.models.init import INITIALISATIONS
from wellfit.models.layers.activations import ACTIVATIONS
from wellfit.models.layers.dropout import DROPOUTS
from wellfit.models.layers.normalization import NORMALIZATIONS
from wellfit.models.zoo import OWN
from wellfit.training.optimizers import OPTIMIZERS
from wellfit.training.regularize import CRITERIA
from wellfit.training.schedules import SCHEDULES

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
TABLES = {
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "regularisation": CRITERIA,
    "augmentations": AUGMENTATIONS,
    "layers": {**ACTIVATIONS, **NORMALIZATIONS, **DROPOUTS, **INITIALISATIONS},
    "models": OWN,
}
NAMES = [(page, name) for page, table in TABLES.items() for name in table]
DOCUMENTED = re.compile(r"^\.\. auto(?:function|class|exception|data):: ([\w.]+)$", re.MULTILINE)


def text_of(page: str) -> str:
    return (REFERENCE / f"{page}.md").read_text(encoding="utf-8")


def first_cells(page: str) -> set[str]:
    """Names in code type in the first column of the page's tables; `_bn` stands for a suffix of those before it."""
    found: set[str] = set()
    for line in text_of(page).splitlines():
        if line.startswith("| "):
            names = re.findall(r"`([^`]+)`", line.split("|")[1])
            found |= set(names) | {name + suffix for suffix in names if suffix.startswith("_") for name in names}
    return found


@pytest.mark.parametrize(("page", "name"), NAMES)
def test_each_name_of_a_table_is_documented(page: str, name: str) -> None:
    assert name in first_cells(page)


@pytest.mark.parametrize("name", wellfit.__all__)
def test_each_public_name_is_documented(name: str) -> None:
    assert f"wellfit.{name}" in [*DOCUMENTED.findall(text_of("wellfit")), "wellfit.__version__"]
    assert f"wellfit.{name}" in text_of("wellfit")


@pytest.mark.parametrize("page", sorted(path.stem for path in REFERENCE.glob("*.md")))
def test_what_is_documented_can_be_had_and_says_what_it_is(page: str) -> None:
    for path in DOCUMENTED.findall(text_of(page)):
        module, _, name = path.rpartition(".")
        assert getattr(import_module(module), name).__doc__, path


def test_a_name_that_is_missing_would_be_noticed() -> None:
    assert "sgdd" not in first_cells("optimizers")
    assert "vgg16_bn" in first_cells("models")

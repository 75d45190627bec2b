"""The step between this project's docstrings and Sphinx."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "docs" / "_extensions" / "plain_docstrings.py"


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain_docstrings", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("λΣ|w|", r"λΣ\|w\|"),
        ("a*b", r"a\*b"),
        ("`a*b` and a*b", r"`a*b` and a\*b"),
        ("**Which one.** a*b", r"**Which one.** a\*b"),
        ("x_ and x_y", r"x\_ and x_y"),
        ("plain words", "plain words"),
    ],
)
def test_formulas_are_escaped_and_code_is_left(plain: ModuleType, text: str, expected: str) -> None:
    assert plain.escape(text) == expected


def test_arguments_become_a_list_with_their_second_lines(plain: ModuleType) -> None:
    lines = ["A thing.", "", "lr: the rate,", "    at least 0.", "low, high: its ends.", "", "Raises UserError."]
    assert plain.as_restructured_text(lines) == [
        "A thing.",
        "",
        "",
        "- `lr`: the rate,",
        "  at least 0.",
        "- `low, high`: its ends.",
        "",
        "Raises UserError.",
    ]


def test_an_indented_block_is_kept_as_it_stands(plain: ModuleType) -> None:
    lines = ["Rules:", "", "    sgd   x ← x − lr·g", "    adam  |m|*2", "", "After."]
    assert plain.as_restructured_text(lines) == [
        "Rules:",
        "",
        "::",
        "",
        "    sgd   x ← x − lr·g",
        "    adam  |m|*2",
        "",
        "After.",
    ]


def test_a_doctest_is_not_touched(plain: ModuleType) -> None:
    lines = ["It is so.", "", ">>> 2 * 3", "6", "", "a*b"]
    assert plain.as_restructured_text(lines) == ["It is so.", "", ">>> 2 * 3", "6", "", r"a\*b"]


def test_a_colon_within_a_sentence_begins_no_list(plain: ModuleType) -> None:
    lines = ["The two are one", "thing: a pair."]
    assert plain.as_restructured_text(lines) == lines

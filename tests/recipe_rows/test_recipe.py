"""docs/recipe.md is true: each row has names that can be had, tests that pass, and a test that notices a wrong part.

All tests of the table and all mutations of tests/mutations.toml run in one process of their own (`judging`).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import import_module
from typing import Any

import pytest

from tests.recipe_rows.mutating import ROOT, read_mutations
from wellfit.config import config_from_dict
from wellfit.recipe.names import refuse_unknown_names

PAGE = ROOT / "docs" / "recipe.md"
CELL = re.compile(r"`([^`]+)`")
SETTING = re.compile(r"([a-z_.0-9]+) = (.+)")


def numbered(letter: str, *numbers: int) -> list[str]:
    return [f"{letter}{number}" for number in numbers]


SLIPS = numbered("Z", *range(1, 20))
MUTATED = [
    *numbered("D", 2, 4, *range(9, 15)),
    *numbered("N", *range(1, 11)),
    *numbered("O", *range(1, 14)),
    *numbered("R", *range(1, 6)),
    *numbered("C", 1, 7, 8, 11),
    *SLIPS,
]
EARLIER = [
    *numbered("D", 1, 3, 5, 6, 7, 8),
    *numbered("C", 2, 3, 4, 5, 6, 9, 10),
    *numbered("S", *range(1, 8)),
    *numbered("T", *range(7)),
    *numbered("E", 1, 2, 3, 4),
]
ROWS = [*MUTATED, *EARLIER]


@cache
def table() -> dict[str, tuple[str, list[str], list[str]]]:
    """What, names and tests of each row of the page."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and re.fullmatch(r"[A-Z]\d+", cells[0]):
            row, what, names, tests = cells
            assert row not in found, f"{row} stands there twice"
            found[row] = what, CELL.findall(names), CELL.findall(tests.removesuffix("|"))
    return found


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    results = tmp_path_factory.mktemp("recipe") / "verdicts.json"
    nodes = sorted({node for _, _, tests in table().values() for node in tests})
    done = subprocess.run(
        [sys.executable, "-m", "tests.recipe_rows.judging", str(results), *nodes],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=1800,
        check=False,
    )
    assert results.is_file(), f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return json.loads(results.read_text(encoding="utf-8"))


def test_the_table_has_these_rows_and_no_other() -> None:
    assert sorted(table()) == sorted(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_each_name_can_be_had(row: str) -> None:
    what, names, tests = table()[row]
    assert len(what) > 10
    assert tests
    settings = [match for name in names if (match := SETTING.fullmatch(name))]
    paths = [name for name in names if not SETTING.fullmatch(name)]
    assert paths, "at least one name that Python can import"
    for path in paths:
        assert is_there(path), path
    for setting in settings:
        accept(setting.group(0))


def is_there(path: str) -> bool:
    module, _, name = path.rpartition(".")
    return hasattr(import_module(module), name)


def accept(setting: str) -> None:
    """Raises UserError where a configuration cannot hold the line (or two), or names something unknown."""
    refuse_unknown_names(config_from_dict(tomllib.loads(setting.replace("; ", "\n"))))


@pytest.mark.parametrize("row", ROWS)
def test_its_tests_pass(row: str, verdicts: dict[str, Any]) -> None:
    tests = {node: verdicts["tests"][node] for node in table()[row][2]}
    for node, verdict in tests.items():
        assert verdict["outcome"] in ("passed", "skipped"), f"{node}: {verdict['outcome']} ({verdict['reason']})"
        # Without the data that it needs a test may skip where another of the row does not; where data are required,
        # conftest turns such a skip into a failure.
        lacks_data = "WELLFIT_TEST_DATA" in verdict["reason"]
        assert verdict["outcome"] == "passed" or lacks_data, f"{node}: {verdict['reason']}"
    assert any(verdict["outcome"] == "passed" for verdict in tests.values())


@pytest.mark.parametrize("row", MUTATED)
def test_a_wrong_part_is_noticed(row: str, verdicts: dict[str, Any]) -> None:
    chosen = [
        (mutation, verdict)
        for mutation, verdict in zip(read_mutations(), verdicts["mutations"], strict=True)
        if mutation.row == row
    ]
    assert chosen, "no mutation"
    for mutation, verdict in chosen:
        sound = verdicts["tests"][mutation.test]
        assert sound["outcome"] == "passed", f"{mutation.test} without any mutation: {sound['outcome']}"
        assert verdict["outcome"] == "failed", (
            f"{mutation}, and {mutation.test} {verdict['outcome']}: {verdict['reason']}"
        )


def test_every_mutation_belongs_to_a_row_and_to_one_of_its_tests() -> None:
    for mutation in read_mutations():
        assert mutation.row in ROWS
        assert mutation.test in table()[mutation.row][2], f"{mutation}: {mutation.test} is not in the row"


@pytest.mark.parametrize("wrong", ["wellfit.training.optimizers.build_optimiser", "wellfit.models.Vgg"])
def test_a_name_that_is_not_there_would_be_noticed(wrong: str) -> None:
    assert not is_there(wrong)

"""The rules of the test run itself: with the data at hand, no test may skip for want of it; long files come first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import LONG, pytest_collection_modifyitems

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

def test_on_real_data(test_data):
    assert test_data.is_dir()

def test_for_another_reason():
    pytest.skip("only on Windows")
"""


@pytest.mark.parametrize(
    ("given", "required", "code", "closing"),
    [
        (False, "", 0, "2 skipped"),
        (False, "1", 1, "1 skipped, 1 error"),
        (True, "1", 0, "1 passed, 1 skipped"),
    ],
)
def test_a_skip_for_want_of_data_fails_where_data_are_required(
    tmp_path: Path, given: bool, required: str, code: int, closing: str
) -> None:
    (tmp_path / "test_inner.py").write_text(TESTS)
    (tmp_path / "data").mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WELLFIT_")}
    environment |= {"PYTHONPATH": str(ROOT), "WELLFIT_REQUIRE_DATA": required, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    if given:
        environment["WELLFIT_TEST_DATA"] = str(tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "test_inner.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    assert closing in done.stdout.splitlines()[-1]


def test_workers_begin_with_the_long_files_and_leave_all_else_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def item(name: str, number: int) -> SimpleNamespace:
        return SimpleNamespace(path=ROOT / "tests" / name, number=number)

    collected = [
        item("a.py", 0),
        item(LONG[1], 1),
        item("b.py", 2),
        item(LONG[0], 3),
        item(LONG[1], 4),
        item("a.py", 5),
    ]
    items: list = list(collected)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytest_collection_modifyitems(items)
    assert items == collected
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    pytest_collection_modifyitems(items)
    assert [item.number for item in items] == [3, 1, 4, 0, 2, 5]


@pytest.mark.parametrize("name", LONG)
def test_a_file_that_is_said_to_be_long_is_there(name: str) -> None:
    assert (ROOT / "tests" / name).is_file()

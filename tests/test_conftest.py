"""The rule of the test run itself: with the data at hand, no test may skip for want of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    environment |= {"PYTHONPATH": str(ROOT), "WELLFIT_REQUIRE_DATA": required}
    if given:
        environment["WELLFIT_TEST_DATA"] = str(tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "test_inner.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    assert closing in done.stdout.splitlines()[-1]

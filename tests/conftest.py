"""Real data for tests, caches of their own, and the rule that continuous integration skips nothing for want of data.

WELLFIT_TEST_DATA names a folder with `data/` and `weights/` in it. Unset, the tests that need it skip and say so.
With WELLFIT_REQUIRE_DATA=1 such a skip is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

DATA = "WELLFIT_TEST_DATA"
REQUIRED = "WELLFIT_REQUIRE_DATA"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder that holds `data/` and `weights/`; skips where there is none."""
    given = os.environ.get(DATA)
    if not given:
        pytest.skip(f"needs real data: {DATA} is not set")
    if not (Path(given) / "data").is_dir():
        pytest.skip(f"needs real data: {DATA} names '{given}', which has no folder data/")
    return Path(given)


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's caches of pixels and of weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WELLFIT_CACHE", str(tmp_path_factory.mktemp("wellfit-cache")))
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch-home")))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # A skip's report carries (file, line, reason).
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    if DATA in reason and os.environ.get(REQUIRED) == "1":
        report.outcome = "failed"
        report.longrepr = f"{reason} ({REQUIRED}=1 turns this skip into a failure)"
    return report

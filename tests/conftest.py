"""Real data for tests, caches of their own, and the rule that continuous integration skips nothing for want of data.

WELLFIT_TEST_DATA names a folder with `data/` and `weights/` in it. Unset, the tests that need it skip and say so.
With WELLFIT_REQUIRE_DATA=1 such a skip is a failure.

Where several workers share the files (`make test`), the long ones are begun first.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

DATA = "WELLFIT_TEST_DATA"
REQUIRED = "WELLFIT_REQUIRE_DATA"
# Files of ten seconds and more, the longest first: a worker that begins one of them at the end leaves the others idle.
LONG = (
    "recipe_rows/test_recipe.py",
    "recipe/test_fit.py",
    "inference/test_export.py",
    "recipe/test_transfer.py",
    "search/test_shared_command.py",
    "search/test_many_workers.py",
    "recipe/test_combining.py",
    "recipe/test_sharing.py",
    "cli/test_commands.py",
    "recipe/test_joining.py",
    "recipe/test_searching.py",
    "dashboard/test_browser.py",
    "data/test_store_processes.py",
    "recipe/test_alarms.py",
    "diagnosis/test_standing_costs.py",
    "recipe_rows/test_mutating.py",
    "recipe/test_folds.py",
    "benchmarks/faults/test_run_all.py",
    "training/test_distributed.py",
)


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:  # one process alone keeps the usual order
        place = {Path(__file__).parent / name: number for number, name in enumerate(LONG)}
        items.sort(key=lambda item: place.get(item.path, len(LONG)))


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

"""Data and plan on the built-in digits, for tests of single steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipe.jobs import job_in
from tests.recipe.plans import small_plan
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.prepare import Prepared, prepare


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The digits, audited and split. Not to be changed."""
    job = job_in(tmp_path_factory.mktemp("digits") / "run")
    try:
        return prepare(job)
    finally:
        job.record.close()


@pytest.fixture(scope="session")
def material(digits: Prepared) -> Material:
    """The digits with the small plan. Not to be changed."""
    return Material.of(digits, small_plan())


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = job_in(tmp_path / "run")
    yield made
    made.record.close()

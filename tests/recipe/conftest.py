"""Data and plan on the built-in digits, for tests of single steps."""

from __future__ import annotations

import time

import pytest

from tests.recipe.plans import small_plan
from wellfit.config import Config
from wellfit.recipe.budget import Budget
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.prepare import Prepared, prepare
from wellfit.record import Record, RunFolder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The digits, audited and split. Not to be changed."""
    folder = RunFolder(tmp_path_factory.mktemp("digits"))
    job = Job("digits", Config(), folder, Record(folder.record), Budget(None, time.monotonic()))
    try:
        return prepare(job)
    finally:
        job.record.close()


@pytest.fixture(scope="session")
def material(digits: Prepared) -> Material:
    """The digits with the small plan. Not to be changed."""
    return Material.of(digits, small_plan())

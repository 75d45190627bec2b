"""The digits as the benchmark's data: small enough for real trials in tests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from wellfit.config import Config
from wellfit.engine import Engine
from wellfit.recipe.budget import Budget
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.plan import ChecksPlan, ModelPlan, OptimizerPlan, Plan, SearchPlan, TrainingPlan
from wellfit.recipe.prepare import prepare
from wellfit.record import Record, RunFolder

PLAN = Plan(
    seed=0,
    metric="accuracy",
    loss="cross-entropy",
    schedule="constant",
    augment=(),
    reasons=("made by hand",),
    model=ModelPlan("mlp", "none", 8, 8, "none", 0, {"hidden": 16}),
    optimizer=OptimizerPlan("momentum", 0.03, 0.0),
    engine=Engine("cpu", "float32", "contiguous", 1),
    checks=ChecksPlan(100, 10),
    search=SearchPlan(),
    training=TrainingPlan(steps=60, batch_size=128, steps_per_epoch=9, evaluate_every=9),
)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Digits at 8 pixels and a net of 16 units, with a test split. Not to be changed."""
    folder = RunFolder(tmp_path_factory.mktemp("digits"))
    job = Job("digits", Config(), folder, Record(folder.record), Budget(None, time.monotonic()))
    try:
        data = prepare(job)
    finally:
        job.record.close()
    return Material.of(data, PLAN)


@pytest.fixture
def pool_file(tmp_path: Path) -> Path:
    return tmp_path / "pool.jsonl"

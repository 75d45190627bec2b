"""Plans of few steps, for tests that run the whole recipe in a second or two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wellfit.engine import Engine
from wellfit.recipe import steps
from wellfit.recipe.plan import ChecksPlan, ModelPlan, OptimizerPlan, Plan, SearchPlan, TrainingPlan, save_plan


def small_plan(**changes: Any) -> Plan:
    """Digits at 16 pixels: a search of some trials of 4 to 9 steps, then 60 steps. changes: fields of Plan, by name."""
    plan = Plan(
        seed=0,
        metric="accuracy",
        loss="cross-entropy",
        schedule="one_cycle",
        augment=("crop",),
        reasons=("made by hand",),
        model=ModelPlan("whitened", "none", 16, 16, "none", 0, {"widths": [16, 32, 64]}),
        optimizer=OptimizerPlan("adamw", 3e-3, 5e-2),
        engine=Engine("cpu", "float32", "channels_last", 1),
        checks=ChecksPlan(200, 10),
        search=SearchPlan(4, 4, 4, 9, 100),
        training=TrainingPlan(steps=60, batch_size=32, steps_per_epoch=39, evaluate_every=20),
    )
    return plan.replace(**changes)


def write_plan(path: Path, **changes: Any) -> Path:
    save_plan(path, small_plan(**changes))
    return path


def longer(steps: int, **more: Any) -> TrainingPlan:
    return replace(small_plan().training, steps=steps, **more)


@contextmanager
def without_page() -> Iterator[None]:
    """Runs end without drawing their page: it takes as long as these trainings, and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "write_report", lambda folder: None)
        yield

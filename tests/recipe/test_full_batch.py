"""optimizer.name = "lbfgs" in a configuration: settled, refused in one sentence, trained end to end on real digits."""

from __future__ import annotations

from pathlib import Path

import pytest

import wellfit
from wellfit.config import Config, load_config
from wellfit.errors import UserError
from wellfit.recipe.full_batch import settle
from wellfit.recipe.optimizer_advice import advice
from wellfit.record import read_record


def asked(**changes: object) -> Config:
    return Config().replace(**{"optimizer.name": "lbfgs", **changes})


def test_auto_becomes_what_a_full_batch_needs() -> None:
    config = settle(asked())
    assert config.augment == ("none",)
    assert (config.schedule, config.engine.dtype, config.model.name) == ("constant", "float32", "lenet5")
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.training.average) == (1.0, 0.0, 0.0)
    assert settle(config) == config
    assert settle(Config()) == Config()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"augment": ("flip",)}, "same images at each step"),
        ({"training.balance": "sampler"}, "each image once a step"),
        ({"training.batch_size": 64}, "whole training split"),
        ({"schedule": "cosine"}, "line search"),
        ({"optimizer.weight_decay": 0.1}, "training.l2"),
        ({"engine.dtype": "bfloat16"}, "float32"),
        ({"model.name": "resnet20"}, "BatchNorm"),
        ({"model.name": "lenet5", "model.options": {"dropout": 0.3}}, r"model.options.dropout = 0.3"),
    ],
)
def test_what_cannot_go_with_it_is_said_before_data_are_read(changes: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        wellfit.fit("digits", config=asked(**changes), out=tmp_path / "run", budget="30s")
    assert not (tmp_path / "run").exists()


def test_a_run_with_lbfgs_from_end_to_end(tmp_path: Path) -> None:
    config = asked(**{"training.epochs": 25.0})
    run = wellfit.fit("digits", config=config, out=tmp_path / "run", budget="60s")
    assert run.test_accuracy is not None
    assert run.test_accuracy > 0.85
    lines = list(read_record(run.folder.record))
    steps = [line["loss"] for line in lines if line["kind"] == "step"]
    assert len(steps) <= 25
    assert steps == sorted(steps, reverse=True)
    search = next(line for line in lines if line["kind"] == "recipe_step" and line["name"] == "search")
    assert (search["status"], "line search" in search["reason"]) == ("skipped", True)
    plan = next(line for line in lines if line["kind"] == "plan")
    assert plan["batch_size"] == 1259
    assert "augmentation is off" in plan["reason"]
    written = load_config(run.folder.config)
    assert settle(written) == written
    assert written.training.batch_size == 1259


@pytest.mark.parametrize(("k", "schedule", "becomes"), [(4, "cosine", "warmup+cosine"), (4, "auto", "one_cycle")])
def test_a_scaled_batch_scales_the_rate_and_warms_up(k: int, schedule: str, becomes: str, tmp_path: Path) -> None:
    from wellfit.recipe.plan import OptimizerPlan
    from wellfit.recipe.planning import _scaled

    reasons: list[str] = []
    config = Config(schedule=schedule).replace(**{"training.batch_scale": k})
    optimizer, name = _scaled(config, OptimizerPlan("momentum", 0.1, 5e-4), 32, reasons)
    assert (optimizer.lr, name) == (pytest.approx(0.4), becomes)
    assert f"scaled by {k}, from 32 to 128 images" in reasons[0]
    plain, name = _scaled(Config(schedule=schedule), OptimizerPlan("momentum", 0.1, 5e-4), 32, reasons)
    assert (plain.lr, len(reasons)) == (0.1, 1)


def test_a_batch_scale_below_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"training.batch_scale lies between 1"):
        Config().replace(**{"training.batch_scale": 0})


@pytest.mark.parametrize(
    ("name", "words"),
    [("auto", "good default"), ("adam", "good default"), ("nesterov", "fewest knobs"), ("lbfgs", "full")],
)
def test_the_choice_comes_with_advice(name: str, words: str) -> None:
    assert words in " ".join(advice(name))

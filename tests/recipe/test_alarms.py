"""What the monitor sees is said while the training still runs, and settled at its end."""

from __future__ import annotations

from pathlib import Path

import wellfit
from tests.recipe.plans import without_page
from wellfit.config import Config
from wellfit.record import read_record


@without_page()
def test_an_alarm_comes_before_the_training_has_ended(tmp_path: Path) -> None:
    config = Config().replace(
        **{
            "model.name": "lenet5",
            "optimizer.name": "adamw",
            "optimizer.lr": 1.0,
            "optimizer.weight_decay": 0.0,
            "training.epochs": 6.0,
        }
    )
    heard: list[str] = []
    run = wellfit.train(
        "digits",
        config,
        out=tmp_path / "run",
        budget="60s",
        force=True,
        listener=lambda kind, fields: heard.append(kind),
    )
    lines = list(read_record(run.folder.record))
    alarms = [line for line in lines if line["kind"] == "alarm"]
    assert "lr-too-high" in {line["id"] for line in alarms}
    assert len({line["id"] for line in alarms}) == len(alarms)
    epochs = [line["step"] for line in lines if line["kind"] == "epoch"]
    assert alarms[0]["step"] < epochs[-1]
    assert "alarm" in heard
    settled = {line["id"] for line in lines if line["kind"] == "finding"}
    assert "lr-too-high" in settled


@without_page()
def test_a_sound_training_is_silent(tmp_path: Path) -> None:
    config = Config().replace(**{"model.name": "lenet5", "training.epochs": 8.0, "optimizer.lr": 3e-3})
    run = wellfit.train("digits", config, out=tmp_path / "run", budget="60s")
    assert not [line for line in read_record(run.folder.record) if line["kind"] == "alarm"]

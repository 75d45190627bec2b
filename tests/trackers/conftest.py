"""A small run's lines, handed to a tool as a record would hand them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wellfit.record import Record, RunFolder
from wellfit.trackers import feed, feeds

STEPS = 6
Play = Callable[..., list[str]]


def lines(first: int = 1, spent: float = 0.0) -> list[tuple[str, dict[str, Any]]]:
    """A run of STEPS steps with an epoch, a finding and an evaluation; from step `first` where it is resumed."""
    run = {"command": "wellfit fit photos", "request": {"data": "/x/photos"}, "spent_before": spent}
    said: list[tuple[str, dict[str, Any]]] = [("run", {**run, "versions": {"wellfit": "0.1.0"}})]
    for step in range(first, STEPS + 1):
        loss = float("nan") if step == 3 else 1 / step
        ratios = {"update_ratio": {"stem.weight": 1e-3 * step}} if step % 2 else {}
        said.append(("step", {"step": step, "loss": loss, "lr": 0.1, "images_per_second": 100, "wait": 0.0, **ratios}))
    accuracy = {"train_accuracy": 0.75, "validation_accuracy": 0.5, "averaged_validation_accuracy": None}
    said.append(("epoch", {"epoch": 1, "step": STEPS, "train_loss": 0.5, "validation_loss": 0.7, **accuracy}))
    finding = {"id": "overfitting", "severity": "warning", "message": "<b>0.75</b> against 0.5", "action": "Stop."}
    said.append(("finding", finding))
    said.append(("evaluation", {"split": "test", "accuracy": 0.8, "interval": [0.7, 0.9], "macro_f1": 0.79}))
    return [*said, ("end", {"status": "done", "seconds": 3.0})]


def trials() -> list[tuple[str, dict[str, Any]]]:
    """A search of two trials."""
    run = {"command": "wellfit search photos", "request": {"data": "digits", "search": {}}}
    said: list[tuple[str, dict[str, Any]]] = [("run", run)]
    for number, lr in enumerate((0.1, 0.01)):
        fields = {"stage": "coarse", "state": "finished", "curve": [[1, 2.0], [2, 1.0 + lr]]}
        score = {"validation_accuracy": 0.5 + number / 10, "validation_loss": 0.9, "epochs": 1.0, "seconds": 2.0}
        said.append(("trial", {"trial": number, "settings": {"lr": lr, "optimizer": "sgd"}, **fields, **score}))
    said.append(("best", {"trial": 1, "validation_accuracy": 0.6}))
    return [*said, ("end", {"status": "done", "seconds": 9.0})]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """play(tool, lines): a record that the tool follows, in the folder "first"; returns what was said meanwhile."""
    monkeypatch.setattr(feed, "PATIENCE", 600.0)  # on a busy machine MLflow takes minutes to make a database

    def run(tool: str, said: list[tuple[str, dict[str, Any]]]) -> list[str]:
        folder = RunFolder(tmp_path / "first")
        folder.path.mkdir(exist_ok=True)
        folder.config.write_text('seed = 3\nmetric = "accuracy"\n[optimizer]\nname = "sgd"\nlr = 0\n', encoding="utf-8")
        heard: list[str] = []
        record = Record(folder.record, None, feeds([tool], folder, heard.append))
        for kind, fields in said:
            if kind == "end":  # the run has settled what was left to it
                text = folder.config.read_text(encoding="utf-8").replace("lr = 0", "lr = 0.25")
                folder.config.write_text(text, encoding="utf-8")
            record.write(kind, **fields)
        record.close()
        return heard

    return run

"""The feed: whatever happens in a tool, the record is written and the run goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.trackers.conftest import STEPS, lines, trials
from wellfit.errors import UserError
from wellfit.record import Record, RunFolder, read_record
from wellfit.trackers import check_trackers, feed, feeds
from wellfit.trackers.figures import of_epoch, of_evaluation, of_step, settings_of
from wellfit.trackers.memory import remember, remembered


class Noted:
    """A tool that keeps what it is told, and breaks where it is asked to."""

    def __init__(self, breaks: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.breaks = breaks
        self.gate = threading.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        if name not in ("begin", "scalars", "trial", "text", "end"):
            raise AttributeError(name)

        def call(*values: Any) -> str:
            self.gate.wait(10)
            if name == self.breaks:
                raise OSError("no route\nto host")
            self.calls.append((name, *values))
            return "look here"

        return call


def follow(tool: Noted, monkeypatch: pytest.MonkeyPatch, folder: RunFolder, **how: Any) -> tuple[Record, list[str]]:
    monkeypatch.setattr(feed, "_make", lambda name: tool)
    for name, value in how.items():
        monkeypatch.setattr(feed, name, value)
    heard: list[str] = []
    return Record(folder.record, None, feeds(["mlflow"], folder, heard.append)), heard


def test_lines_arrive_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool, folder = Noted(), RunFolder(tmp_path)
    record, heard = follow(tool, monkeypatch, folder)
    for kind, fields in lines():
        record.write(kind, **fields)
    names = [call[0] for call in tool.calls]
    assert names == ["begin", *["scalars"] * (STEPS + 1), "text", "scalars", "end"]
    assert [call[1] for call in tool.calls if call[0] == "scalars"] == [*range(1, STEPS + 1), STEPS, STEPS]
    assert tool.calls[-1][1] == "done"
    assert tool.calls[-1][3] == {
        "test/accuracy": 0.8,
        "test/macro_f1": 0.79,
        "test/accuracy_low": 0.7,
        "test/accuracy_high": 0.9,
    }
    assert heard == ["look here"]
    record.close()


@pytest.mark.parametrize("breaks", ["begin", "scalars", "text", "end"])
def test_a_tool_that_breaks_is_said_once_and_the_record_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    tool, folder = Noted(breaks), RunFolder(tmp_path)
    record, heard = follow(tool, monkeypatch, folder)
    for kind, fields in lines():
        record.write(kind, **fields)
    record.close()
    said = [text for text in heard if text != "look here"]
    assert said == ["logging to MLflow broke off and the run goes on without it: no route to host"]
    assert len(list(read_record(folder.record))) == len(lines())


def test_a_tool_that_hangs_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool, folder = Noted(), RunFolder(tmp_path)
    tool.gate.clear()
    record, heard = follow(tool, monkeypatch, folder, PATIENCE=0.1, LONGEST_QUEUE=4)
    made = record._follower
    for kind, fields in lines()[:-1]:
        record.write(kind, **fields)
    assert made is not None
    made.close()
    record.close()
    assert len(list(read_record(folder.record))) == len(lines()) - 1
    assert sum("more slowly than they come" in text for text in heard) == 1
    assert sum("left to itself" in text for text in heard) == 1
    tool.gate.set()


def test_lines_for_the_eye_alone_are_not_logged_but_workers_trials_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, folder = Noted(), RunFolder(tmp_path)
    record, _ = follow(tool, monkeypatch, folder)
    run, first, second, best, end = trials()
    record.write(run[0], **run[1])
    record.tell("step", step=1, loss=1.0)  # of another network of an ensemble
    record.tell(first[0], **first[1])  # a worker process wrote it
    record.write(second[0], **second[1])
    record.write(best[0], **best[1])
    record.write(end[0], **end[1])
    record.close()
    assert [call[0] for call in tool.calls] == ["begin", "trial", "trial", "end"]
    assert tool.calls[1][1:3] == (0, {"lr": 0.1, "optimizer": "sgd"})
    assert tool.calls[-1][3] == {"best/validation_accuracy": 0.6}


def test_figures_of_lines_and_what_is_no_figure() -> None:
    step = {"step": 3, "loss": float("inf"), "lr": None, "wait": True, "update_ratio": {"a": "nan", "b": 1e-3}}
    assert of_step(step) == {"loss": float("inf"), "update_ratio/b": 1e-3}
    assert of_epoch({"train_loss": "nan", "train_accuracy": 0.5}).keys() == {"train/loss", "train/accuracy"}
    assert of_evaluation({"split": "validation", "accuracy": 1, "interval": None}) == {"validation/accuracy": 1.0}


def test_settings_are_those_that_are_settled(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert settings_of(folder) == {}
    text = 'seed = 0\nviews = "auto"\ndeterministic = false\n[optimizer]\nname = "sgd"\nlr = 0.1\n'
    text += "[model]\nwidths = [8, 16]\n"
    folder.config.write_text(text, encoding="utf-8")
    expected = {"deterministic": False, "optimizer.name": "sgd", "optimizer.lr": 0.1, "model.widths": "[8, 16]"}
    assert settings_of(folder) == expected


def test_each_tool_keeps_its_own_memory(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    remember(folder, "wandb", id="a1")
    remember(folder, "mlflow", run="b2", uri="sqlite:///x.db")
    assert remembered(folder, "wandb") == {"id": "a1"}
    assert remembered(folder, "mlflow") == {"run": "b2", "uri": "sqlite:///x.db"}
    (tmp_path / "logged.json").write_text("[torn", encoding="utf-8")
    assert remembered(folder, "wandb") == {}


def test_names_are_looked_up_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_installed", lambda library: library == "wandb")
    assert check_trackers("wandb") == ("wandb",)
    assert check_trackers(["wandb", "wandb"]) == ("wandb",)
    assert check_trackers(None) == ()
    with pytest.raises(UserError, match="did you mean 'tensorboard'"):
        check_trackers(["tensorbord"])
    with pytest.raises(UserError, match=r"MLflow, which is not installed; pip install 'wellfit\[mlflow\]'"):
        check_trackers("mlflow")


def test_a_run_that_nobody_follows_starts_no_thread(tmp_path: Path) -> None:
    assert feeds([], RunFolder(tmp_path)) is None

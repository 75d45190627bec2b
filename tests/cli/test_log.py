"""`--log TOOL`: a whole fit and a search into TensorBoard, and the sentences where that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.recipe.plans import write_plan
from wellfit.record import read_record
from wellfit.trackers import feed


def events_of(place: Path) -> Any:
    pytest.importorskip("tensorboard", reason="logging into TensorBoard is tested with it: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place), size_guidance={"scalars": 0})
    events.Reload()
    return events


def test_a_fit_is_logged_as_it_is_recorded(wellfit: Command, tmp_path: Path) -> None:
    events_of(tmp_path)
    plan = write_plan(tmp_path / "small.toml")
    ended = wellfit("fit", "digits", "--plan", plan, "--out", "run", "--log", "tensorboard", "--json")
    assert ended.code == 0
    assert "tensorboard --logdir run" in ended.err
    lines = list(read_record(tmp_path / "run" / "record.jsonl"))
    assert lines[0]["request"]["log"] == ["tensorboard"]  # a resumed run goes on logging
    events = events_of(tmp_path / "run" / "tensorboard")
    steps = {line["step"]: line["loss"] for line in lines if line["kind"] == "step"}
    logged = {event.step: event.value for event in events.Scalars("loss")}
    assert logged == pytest.approx(steps, rel=1e-5)
    (accuracy,) = events.Scalars("test/accuracy")
    assert accuracy.value == pytest.approx(ended.json["test_accuracy"])
    assert list((tmp_path / "run" / "tensorboard" / "trials").iterdir()) or not any(
        line["kind"] == "trial" for line in lines
    )


@pytest.mark.parametrize("command", [["fit", "digits"], ["train", "digits", "c.toml"], ["search", "digits"]])
def test_a_missing_library_is_one_sentence_and_leaves_no_folder(
    wellfit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (tmp_path / "c.toml").write_text("seed = 1\n", encoding="utf-8")
    monkeypatch.setattr(feed, "_installed", lambda library: False)
    ended = wellfit(*command, "--out", "run", "--log", "wandb")
    assert ended.code == 2
    assert ended.sentence == (
        "--log wandb needs Weights & Biases, which is not installed; pip install 'wellfit[wandb]'"
    )
    assert not (tmp_path / "run").exists()


def test_an_unknown_tool_names_its_neighbour(wellfit: Command, tmp_path: Path) -> None:
    ended = wellfit("fit", "digits", "--out", "run", "--log", "tensorbord")
    assert ended.code == 2
    assert "did you mean 'tensorboard'?" in ended.sentence
    assert not (tmp_path / "run").exists()

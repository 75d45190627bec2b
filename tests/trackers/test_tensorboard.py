"""Event files written by the real TensorBoard and read back by it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.trackers.conftest import STEPS, Play, lines, trials

pytest.importorskip("tensorboard", reason="logging into TensorBoard is tested with it: pip install tensorboard")


def read(place: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def values(events: Any, name: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(name)}


def test_a_run_is_read_back(play: Play, tmp_path: Path) -> None:
    heard = play("tensorboard", lines())
    assert heard == [f"TensorBoard: tensorboard --logdir {tmp_path / 'first' / 'tensorboard'}"]
    events = read(tmp_path / "first" / "tensorboard")
    losses = values(events, "loss")
    assert list(losses) == list(range(1, STEPS + 1))
    assert losses[2] == 0.5
    assert math.isnan(losses[3])
    assert values(events, "update_ratio/stem.weight") == pytest.approx({1: 1e-3, 3: 3e-3, 5: 5e-3})
    assert values(events, "validation/accuracy") == {STEPS: 0.5}
    assert values(events, "test/accuracy") == pytest.approx({STEPS: 0.8})
    text = events.Tensors("finding/overfitting/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "    warning: <b>0.75</b> against 0.5 Stop."
    from tensorboard.plugins.hparams import plugin_data_pb2

    stored = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    given = plugin_data_pb2.HParamsPluginData.FromString(stored).session_start_info.hparams
    assert given["optimizer.lr"].number_value == 0.25
    assert given["optimizer.name"].string_value == "sgd"


def test_steps_that_a_resume_repeats_are_there_once(play: Play, tmp_path: Path) -> None:
    play("tensorboard", lines()[:-1])
    play("tensorboard", lines(first=4, spent=2.0))
    events = read(tmp_path / "first" / "tensorboard")
    assert [event.step for event in events.Scalars("loss")] == list(range(1, STEPS + 1))


def test_each_trial_is_a_run_of_its_own(play: Play, tmp_path: Path) -> None:
    play("tensorboard", trials())
    events = read(tmp_path / "first" / "tensorboard" / "trials" / "1")
    assert values(events, "loss") == pytest.approx({1: 2.0, 2: 1.01})
    assert values(events, "trial/validation_accuracy") == pytest.approx({0: 0.6})

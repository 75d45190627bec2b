"""What a card shows of a run, from its lines."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.dashboard.conftest import opening, step
from wellfit.dashboard.summary import Summary
from wellfit.randomness import generator

CONFIG = """
seed = 3
metric = "accuracy"
augment = ["crop", "flip"]
[data]
image_column = "image"
[model]
name = "auto"
image_size = 0
[model.options]
widths = [16, 32]
[optimizer]
name = "adamw"
lr = 0.0
weight_decay = 0.05
[training]
epochs = 0.0
"""
PLAN = """
[model]
name = "whitened"
image_size = 32
[optimizer]
name = "sgd"
lr = 0.003
[training]
batch_size = 64
"""


def encoded(*lines: dict[str, Any], compact: bool = False) -> list[bytes]:
    separators = (",", ":") if compact else (", ", ": ")
    return [json.dumps(line, separators=separators).encode() for line in lines]


def test_the_quick_way_to_read_steps_says_what_the_parser_says() -> None:
    """Lines written without spaces do not fit the pattern, so they are parsed; the summaries must be equal."""
    draw = generator(0, "summary")
    lines: list[dict[str, Any]] = [opening()]
    for i in range(1, 501):
        loss: Any = float(draw.normal(1.0, 10.0 ** float(draw.integers(-12, 12))))
        if i % 97 == 0:
            loss = ("nan", "inf", "-inf")[i // 97 % 3]
        more: dict[str, Any] = {"images_per_second": float(draw.random())}
        if i % 20 == 0:  # a parameter may be called as a field is
            more |= {"update_ratio": {"loss": 0.5, "lr": 2.0}, "layers": {"a": {"std": 1.0}}}
        lines.append(step(i, loss, **more))
        if i == 300:
            lines.append(step(250, 1.0))
    quick, parsed = Summary(), Summary()
    quick.take(encoded(*lines))
    parsed.take(encoded(*lines, compact=True))
    assert quick.curves() == parsed.curves()
    assert quick.as_dict() == parsed.as_dict()
    assert quick.curve.lost == 5
    assert quick.results["step"] == 500


def test_settings_are_what_was_asked_and_where_that_was_open_what_was_decided() -> None:
    summary = Summary()
    summary.configured(CONFIG, PLAN)
    assert summary.settings == {
        "seed": 3,
        "metric": "accuracy",
        "augment": "crop, flip",
        "model": "whitened",
        "image_size": 32,
        "optimizer": "adamw",
        "lr": 0.003,
        "weight_decay": 0.05,
        "batch_size": 64,
        "widths": "16, 32",
    }


@pytest.mark.parametrize("text", ["", "= 3", "a = [", "x = 1\nx = 2", "model = 3", "\x00"])
def test_a_damaged_configuration_says_nothing(text: str) -> None:
    summary = Summary()
    summary.configured(text, text)
    assert set(summary.settings) <= {"model"}


def test_results_and_state() -> None:
    summary = Summary()
    assert summary.status(0) == "starting"
    assert summary.status(1000) == "silent"
    summary.take([b"no line of ours"])
    assert summary.status(0) == "starting"
    summary.take(encoded(opening()))
    assert summary.status(0) == "running"
    assert summary.progress is None
    summary.take(encoded(opening(), step(1, 2.0), step(500, 1.0)))
    assert summary.progress == pytest.approx(0.5)
    epoch = {"kind": "epoch", "step": 500, "train_accuracy": 0.9, "validation_accuracy": 0.7, "seconds": 5}
    summary.take(
        encoded(epoch, {**epoch, "step": 600, "validation_accuracy": 0.6, "averaged_validation_accuracy": 0.75})
    )
    summary.take(encoded({**epoch, "step": 700, "validation_accuracy": 0.5}))
    assert summary.results["validation_accuracy"] == 0.75
    assert summary.results["gap"] == pytest.approx(0.4)
    assert summary.status(1000) == "silent"
    summary.take(encoded({"kind": "evaluation", "split": "test", "accuracy": 0.71}, {"kind": "end", "status": "done"}))
    assert summary.status(1000) == "done"
    assert summary.results["test_accuracy"] == 0.71
    summary.take(encoded(opening()))  # resumed
    assert summary.status(0) == "running"


def test_a_search_is_judged_by_its_best_trial() -> None:
    summary = Summary()
    scores = [0.2, 0.6, None, 0.5]
    trials = [{"kind": "trial", "trial": i, "validation_accuracy": score} for i, score in enumerate(scores)]
    summary.take(encoded(opening(request={"search": {}}), *trials))
    assert summary.search
    assert summary.results["validation_accuracy"] == 0.6
    assert summary.as_dict()["trials"] == 4
    assert summary.curves()["scores"] == [0.2, 0.6, 0.5]


def test_an_alarm_and_the_finding_that_settles_it_count_once() -> None:
    summary = Summary()
    found = {"id": "overfitting", "severity": "warning"}
    summary.take(
        encoded(
            {"kind": "alarm", **found},
            {"kind": "finding", **found},
            {"kind": "finding", "id": "x", "severity": "error"},
        )
    )
    assert (summary.as_dict()["errors"], summary.as_dict()["warnings"]) == (1, 1)


HOSTILE = [
    b"", b"null", b"[]", b"{}", b'{"kind": 3}', b'{"kind": "step"}', b'{"kind": "step", "step": "x", "loss": []}',
    b'{"kind": "step", "step": 99999999999999999999999, "lr": 1e999, "loss": -1e999}',
    b'{"kind": "epoch", "step": null}',
    b'{"kind": "run", "started": {}, "request": [], "command": 7}', b'{"kind": "end", "status": ["done"]}',
    b'{"kind": "evaluation", "split": {}, "accuracy": "high"}', b'{"kind": "finding", "severity": ["error"], "id": {}}',
    b'{"kind": "trial", "validation_accuracy": "NaN"}', b'{"kind": "plan", "model": {"a": 1}, "steps": "many"}',
    b'{"kind": ["run"]}', b'{"kind": "step", "step": true, "loss": true}', b"[" * 5000, b"\xff\xfe\x00",
]  # fmt: skip


def test_no_line_ends_it() -> None:
    summary = Summary()
    summary.take(HOSTILE)
    shown = json.dumps([summary.as_dict(), summary.curves()], allow_nan=False)
    assert json.loads(shown)[0]["results"].keys() <= {"step", "loss"}
    assert summary.status(0) in ("running", "silent")


def test_it_stays_small_however_long_the_training() -> None:
    summary = Summary()
    summary.take(encoded(*(step(i, 1.0) for i in range(1, 5000))))
    summary.take(encoded(*({"kind": "epoch", "step": i, "validation_accuracy": 0.5} for i in range(1, 3000))))
    curves = summary.curves()
    assert len(curves["loss"]) <= 200
    assert len(curves["epochs"]["steps"]) <= 400
    assert curves["epochs"]["steps"][-1] == 2999
    assert math.isclose(summary.results["loss"], 1.0)

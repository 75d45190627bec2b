"""The section on ensembles and views: what was tried, what it brought, what it costs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.report.conftest import RunMaker
from wellfit.record import Record, RunFolder
from wellfit.report.combined import combined
from wellfit.report.history import read_history
from wellfit.report.page import render
from wellfit.report.verdict import judge

ENSEMBLE: dict[str, Any] = {
    "members": [
        {"name": "network 1", "kind": "best", "share": 0.6667, "score": 0.91, "loss": 0.3},
        {"name": "<b>two</b>", "kind": "seed", "share": 0.3333, "score": 0.9, "loss": 0.32},
    ],
    "steps": [
        {"name": "network 1", "score": 0.91, "loss": 0.3, "gain": 0.0, "loss_gain": 0.0, "loss_error": 0.0},
        {"name": "<b>two</b>", "score": 0.925, "loss": 0.27, "gain": 0.015, "loss_gain": 0.03, "loss_error": 0.004},
    ],
    "tried": [
        {"name": "network 1", "kind": "best", "score": 0.91},
        {"name": "<b>two</b>", "kind": "seed", "score": 0.9},
        {"name": "snapshot at 70%", "kind": "snapshot", "score": 0.88},
    ],
    "images": 400,
    "gain": 0.015,
    "single": 0.91,
    "score": 0.925,
    "milliseconds": [0.5, 1.0],
}
VIEW: dict[str, Any] = {
    "name": "flip",
    "passes": 2,
    "images": 400,
    "score": 0.93,
    "loss": 0.25,
    "gain": 0.005,
    "loss_gain": 0.01,
    "milliseconds": 2.1,
    "plain_milliseconds": 1.0,
    "kept": True,
}


def with_lines(folder: RunFolder, *lines: tuple[str, dict[str, Any]]) -> RunFolder:
    record = Record(folder.record)
    for kind, fields in lines:
        record.write(kind, **fields)
    record.close()
    return folder


def test_a_run_of_one_network_has_no_such_section(make_run: RunMaker) -> None:
    history = read_history(make_run())
    assert combined(history) is None
    assert "Ensemble and views" not in render(history)
    assert "one training" in judge(history).sure


def test_members_steps_and_cost_are_told(make_run: RunMaker) -> None:
    folder = with_lines(make_run(), ("ensemble", ENSEMBLE), ("views", VIEW))
    history = read_history(folder)
    page = str(combined(history))
    for said in ("92.5%", "91.0%", "+1.5", "66.7%", "1.00 ms instead of 0.50 ms", "snapshot at 70%", "flip"):
        assert said in page, said
    assert "<b>two" not in page
    assert "&lt;b&gt;two" in page
    assert page.count("member</span>") == 2
    assert "an ensemble of 2 networks" in judge(history).sure
    assert "Ensemble and views" in render(history)


def test_the_last_line_of_each_view_holds(make_run: RunMaker) -> None:
    again = VIEW | {"score": 0.5, "kept": False}
    history = read_history(with_lines(make_run(), ("views", VIEW), ("views", VIEW | {"name": "ten"}), ("views", again)))
    assert [(line["name"], line["kept"]) for line in history.views] == [("ten", True), ("flip", False)]


@pytest.mark.parametrize(
    "torn",
    [
        {},
        {"members": "x", "steps": 3, "tried": None, "milliseconds": "fast"},
        {"members": [1], "steps": [None], "tried": [{}], "milliseconds": [1]},
        {"score": "nan", "single": None, "milliseconds": ["nan", 2]},
    ],
)
def test_torn_lines_leave_gaps_and_no_error(make_run: RunMaker, torn: dict[str, Any]) -> None:
    history = read_history(with_lines(make_run(), ("ensemble", torn), ("views", {"name": 3, **torn})))
    assert "Ensemble and views" in render(history)


def test_an_ensemble_of_runs_has_no_training_of_its_own(make_run: RunMaker) -> None:
    folder = make_run(until="step")
    with_lines(folder, ("run", {"schema": 1, "request": {"ensemble": ["a", "b"]}}), ("ensemble", ENSEMBLE))
    page = render(read_history(folder))
    assert 'id="training"' not in page
    assert 'id="combined"' in page

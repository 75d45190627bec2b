"""A search's page and its lines in the terminal: every worker's trials, stages, reasons, importance, the best."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wellfit.record import Record, RunFolder
from wellfit.report.curves_layouts import Layout, Layouts, keep_layouts, read_layouts
from wellfit.report.curves_search import search
from wellfit.report.history import read_history
from wellfit.report.page import write_report
from wellfit.report.static_search_lines import draw_importance, draw_parallel
from wellfit.report.terminal import show
from wellfit.report.terminal_search import closing

OPTIMIZERS = ("adamw", "nesterov")


def trial(number: int, **changes: Any) -> dict[str, Any]:
    lr, optimizer = 10.0 ** (-4 + 3 * number / 11), OPTIMIZERS[number % 2]
    accuracy = 0.4 + 0.5 * number / 11 if number < 8 else 0.85 - 0.1 * (number - 8)
    settings: dict[str, Any] = {"lr": lr, "optimizer": optimizer}
    if optimizer == "nesterov":
        settings["momentum"] = 0.8 + 0.01 * number
    return {
        "stage": "coarse" if number < 8 else "fine",
        "trial": number,
        "rung": 0,
        "epochs": 1.0 if number < 8 else 4.0,
        "continues": None,
        "settings": settings,
        "state": "finished",
        "validation_accuracy": accuracy,
        "validation_loss": 2 * (1 - accuracy),
        "error": 0.01,
        "reason": "",
        "curve": [[step, 2.3 - accuracy * step / 40] for step in range(1, 41)],
        "findings": [],
        "seconds": 2.0,
        "worker": "1",
        **changes,
    }


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A search of 12 trials by two workers: 7 was taken up again after its worker died."""
    made = RunFolder(tmp_path / "s")
    record = Record(made.record)
    workers = [Record(made.workers / f"{name}.jsonl") for name in ("1-100", "2-101")]
    record.write("run", schema=1, command="wellfit search photos", seed=0, request={"data": "photos", "search": {}})
    record.write("audit", images=100, classes={"a": 50, "b": 50}, splits={"train": 80, "validation": 20}, left_out=[])
    record.write("plan", model="lenet5", parameters=1000, image_size=16)
    first = {"name": "coarse", "rung": 0, "first": 0, "ranges": {"lr": [1e-4, 0.1], "optimizer": list(OPTIMIZERS)}}
    record.write("stage", **first, reason="the space as given")
    for number in range(8):
        changes: dict[str, Any] = {}
        if number == 3:
            changes = {"state": "pruned", "validation_accuracy": None, "validation_loss": None}
            changes |= {"reason": "the loss rose to 9 at step 20, above 3 × 2.3", "findings": ["lr-too-high"]}
        workers[number % 2].write("trial", **trial(number, **changes))
    workers[0].write("trial", **trial(7))
    fine = {"name": "fine", "ranges": {"lr": [0.003, 0.03], "optimizer": list(OPTIMIZERS)}}
    record.write("stage", **fine, rung=0, first=8, reason="best of 8 trials: trial 7 (0.718)")
    for number in (8, 9, 10):
        workers[number % 2].write("trial", **trial(number, continues=7 if number == 8 else None))
    record.write("stage", **fine, rung=1, first=11, reason="the best of 11 trials go on to 8 epochs: trials 9")
    # Of another machine: no curve, in the search's own record.
    record.write("trial", **trial(11, epochs=8.0, continues=9, validation_accuracy=0.84, curve=None, worker="far"))
    record.write("importance", stage="coarse", trials=8, shares={"lr": 0.62, "optimizer": 0.38, "momentum": 0.0})
    record.write("importance", stage="fine", trials=12, shares={"lr": 0.8, "optimizer": 0.15, "momentum": 0.05})
    record.write("best", trial=11, settings=trial(11)["settings"], validation_accuracy=0.84, reason="the limit")
    record.write("end", status="done", seconds=60.0)
    for each in (record, *workers):
        each.close()
    made.config.write_text("seed = 0\n")
    made.best.write_text("seed = 0\n")
    return made


def test_trials_of_all_workers_are_there_once_in_the_order_of_their_numbers(folder: RunFolder) -> None:
    history = read_history(folder)
    assert [line["trial"] for line in history.trials] == list(range(12))
    assert history.is_search
    assert history.status == "done"


def test_the_best_is_the_one_that_the_search_chose(folder: RunFolder) -> None:
    """Not the highest of many scores, which is partly luck: trial 8 has 0.85."""
    found = search(read_history(folder))
    assert found is not None
    assert found.best is not None
    assert (found.best.number, found.best.continues, found.best.accuracy) == ("11", "9", 0.84)
    assert found.ranges["fine"]["lr"] == (0.003, 0.03)
    assert found.reasons["fine"] == [
        "best of 8 trials: trial 7 (0.718)",
        "the best of 11 trials go on to 8 epochs: trials 9",
    ]
    assert found.chosen_names() == ["optimizer"]
    assert found.importance == {"lr": 0.8, "optimizer": 0.15, "momentum": 0.05}


def test_importance_stands_beside_each_stage(folder: RunFolder) -> None:
    for text in (show(folder), re.sub(r"<[^>]+>", "", write_report(folder).read_text(encoding="utf-8"))):
        together = " ".join(text.split())
        assert "importance by the trials up to here: lr 62%, optimizer 38%, momentum 0%" in together
        assert "importance by the trials up to here: lr 80%, optimizer 15%, momentum 5%" in together


def test_the_page_shows_all_of_it(folder: RunFolder) -> None:
    page = write_report(folder).read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", " ", page)
    for part in (
        "Search: 84.0% on validation",
        "the best of 11 trials go on to 8 epochs: trials 9",
        "All settings at once",
        "Importance of the settings",
        "Accuracy against learning rate",
        "Trials, step by step",
        "lr-too-high; the loss rose to 9 at step 20, above 3 × 2.3",
        "wellfit train photos",
    ):
        assert part in text, part
    assert "<script" not in page
    # What belongs to a model is left out, and not missed.
    for absent in ("Confusion", "test images, looked at", "lacks"):
        assert absent not in text, absent


def test_the_page_shows_random_against_grid_where_the_search_kept_it(folder: RunFolder) -> None:
    heading = "Why settings are drawn at random"
    assert heading not in write_report(folder).read_text(encoding="utf-8")
    places = np.linspace(0, 1, 11)
    points = np.array([[0.1, 0.2], [0.7, 0.4]])
    made = tuple(
        Layout(name, points, np.array([0.1, 1.0]), values, 0.5 + 0.123 * values)
        for name, values in (("grid", 1), ("random", 2))
    )
    layouts = Layouts(made, places, places**2, 0.1 * places)
    keep_layouts(folder, layouts)
    back = read_layouts(folder)
    assert back is not None
    for one, other in zip(back.layouts, made, strict=True):
        assert (one.name, one.values, one.best_on_average) == (other.name, other.values, other.best_on_average)
        assert np.array_equal(one.points, other.points)
        assert np.array_equal(one.scores, other.scores)
    assert np.array_equal(back.important, layouts.important)
    page = write_report(folder).read_text(encoding="utf-8")
    assert heading in page
    assert "random: 2 values tried, best on average 0.75" in re.sub(r"<[^>]+>", "", page)
    (folder.arrays / "layouts.npz").write_bytes(b"torn")
    assert heading not in write_report(folder).read_text(encoding="utf-8")


def test_parallel_coordinates_have_a_line_a_trial_and_an_axis_a_setting(folder: RunFolder) -> None:
    found = search(read_history(folder))
    assert found is not None
    svg = draw_parallel(found)
    for name in ("learning rate", "momentum", "optimizer", "accuracy", "adamw", "nesterov"):
        assert name in svg, name
    # 12 trials; those without momentum have a gap, so that their line is in two parts.
    lines = [path for path in re.findall(r"<path d=\"([^\"]+)\"", svg) if path.count("L") >= 1]
    assert len(lines) >= 12
    assert all(name in draw_importance(found) for name in ("learning rate", "optimizer", "momentum", "80"))


def test_the_terminal_shows_stages_trials_importance_and_the_best(folder: RunFolder) -> None:
    text = show(folder)
    lines = text.splitlines()
    table = lines[lines.index("trials, best first") + 1 :]
    assert table[0].split()[:5] == ["trial", "stage", "epochs", "accuracy", "loss"]
    assert table[1].split()[:3] == ["11", "←", "9"]
    assert "best" in table[1]
    assert "84.0%" in table[1]
    pruned = next(line for line in table if line.split()[:2] == ["3", "coarse"])
    assert "pruned; lr-too-high; the loss rose to 9" in pruned
    assert any(re.fullmatch(r"  lr +80%  █+", line) for line in table)
    assert "fine: 4 trials" in text
    assert "best: 84.0% on validation with lr" in text
    end = closing(folder)
    assert f"wellfit train photos {folder.best}" in end
    assert "12 trials, 1 broken off, 24 s of training" in end


def test_a_search_without_a_trial_can_be_shown(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "s")
    record = Record(folder.record)
    record.write("run", schema=1, command="wellfit search x", request={"data": "x", "search": {}})
    record.close()
    assert "No trial has finished yet" in show(folder)
    assert "No search is recorded" in write_report(folder).read_text(encoding="utf-8")
    assert closing(folder) == "no trial ended"

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.conftest import RunMaker
from wellfit.errors import UserError
from wellfit.record import Record, RunFolder
from wellfit.report.history import check_outcome, confusion_of, read_history


def written(path: Path, *lines: dict[str, Any]) -> RunFolder:
    folder = RunFolder(path)
    record = Record(folder.record)
    for line in lines:
        record.write(**line)
    record.close()
    return folder


def step(number: int, loss: float) -> dict[str, Any]:
    return {"kind": "step", "step": number, "loss": loss}


def test_a_resume_takes_back_the_steps_after_its_checkpoint(tmp_path: Path) -> None:
    first = [step(i, 1.0) for i in range(1, 8)]
    epochs = [{"kind": "epoch", "step": i, "validation_accuracy": 0.5} for i in (3, 6)]
    # Killed after step 7, resumed from a checkpoint at step 4, ended by the deadline at step 5.
    again = [step(5, 2.0)]
    history = read_history(written(tmp_path / "r", *first[:3], epochs[0], *first[3:6], epochs[1], *first[6:], *again))
    assert [(line["step"], line["loss"]) for line in history.steps] == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2)]
    assert [line["step"] for line in history.epochs] == [3]


def test_later_lines_replace_earlier_ones_of_the_same_name(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    for turn in (1, 2):
        lines += [
            {"kind": "trial", "stage": "coarse", "trial": 0, "validation_accuracy": 0.1 * turn},
            {"kind": "trial", "stage": "fine", "trial": 0, "validation_accuracy": 0.2 * turn},
            {"kind": "check", "check": "initial-loss", "passed": turn == 2},
            {"kind": "recipe_step", "name": "audit", "seconds": turn},
            {"kind": "finding", "id": "plateau", "severity": "info", "message": "the same"},
            {"kind": "evaluation", "split": "test", "accuracy": 0.3 * turn},
        ]
    history = read_history(written(tmp_path / "r", *lines))
    assert [line["validation_accuracy"] for line in history.trials] == [0.2, 0.4]
    assert [line["passed"] for line in history.checks] == [True]
    assert [line["seconds"] for line in history.recipe_steps] == [2]
    assert len(history.findings) == 1
    assert history.evaluation["accuracy"] == 0.6


def test_what_was_done_before_a_resume_is_not_replaced_by_its_being_skipped(tmp_path: Path) -> None:
    done = {"kind": "recipe_step", "name": "checks", "status": "done", "seconds": 4, "reason": "2 of 2 passed"}
    skipped = {**done, "status": "skipped", "seconds": 0, "reason": "already passed"}
    check = {"kind": "check", "check": "initial-loss", "passed": True}
    history = read_history(written(tmp_path / "a", check, done, skipped))
    assert [line["reason"] for line in history.recipe_steps] == ["2 of 2 passed"]
    assert [line["check"] for line in history.checks] == ["initial-loss"]
    failed = {**done, "status": "failed"}
    assert read_history(written(tmp_path / "b", failed, skipped)).recipe_step("checks")["status"] == "skipped"
    assert read_history(written(tmp_path / "c", done, failed)).recipe_step("checks")["status"] == "failed"
    assert read_history(written(tmp_path / "d", check)).recipe_step("checks") == {}


@pytest.mark.parametrize(
    ("passed", "finished", "outcome"),
    [(True, True, "passed"), (True, False, "passed"), (False, True, "failed"), (False, False, "undecided")],
)
def test_a_check_that_was_cut_short_without_passing_is_undecided(passed: bool, finished: bool, outcome: str) -> None:
    assert check_outcome({"passed": passed, "finished": finished}) == outcome


def test_an_end_that_was_resumed_from_is_no_end(tmp_path: Path) -> None:
    end = {"kind": "end", "status": "interrupted", "seconds": 3}
    assert read_history(written(tmp_path / "a", step(1, 1.0), end)).status == "interrupted"
    assert read_history(written(tmp_path / "b", step(1, 1.0), end, step(2, 1.0))).status == "unfinished"
    later = {"kind": "evaluation", "split": "other", "accuracy": 1.0}
    assert read_history(written(tmp_path / "c", step(1, 1.0), {**end, "status": "done"}, later)).status == "done"


def test_findings_stand_root_cause_first_and_unknown_ids_last(tmp_path: Path) -> None:
    names = ["from-the-future", "overfitting", "nan", "train-val-leak"]
    lines = [{"kind": "finding", "id": name, "severity": "warning", "message": name} for name in names]
    history = read_history(written(tmp_path / "r", *lines))
    assert [line["id"] for line in history.findings] == ["train-val-leak", "nan", "overfitting", "from-the-future"]


def test_a_torn_last_line_is_left_out(make_run: RunMaker) -> None:
    folder = make_run(steps=20)
    whole = len(read_history(folder).steps)
    text = folder.record.read_text(encoding="utf-8")
    cut = text.index('"kind": "finding"') - 30  # inside the last step or epoch before the findings
    folder.record.write_text(text[:cut], encoding="utf-8")
    history = read_history(folder)
    assert history.status == "unfinished"
    assert whole - 1 <= len(history.steps) <= whole


def test_the_test_evaluation_comes_before_any_other(tmp_path: Path) -> None:
    lines = [{"kind": "evaluation", "split": split, "accuracy": 0.5} for split in ("photos/", "validation", "test")]
    assert read_history(written(tmp_path / "a", *lines)).evaluation["split"] == "test"
    assert read_history(written(tmp_path / "b", *lines[:2])).evaluation["split"] == "validation"
    assert read_history(written(tmp_path / "c", lines[0])).evaluation["split"] == "photos/"


def test_confusion_is_found_in_arrays_where_the_line_has_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.arrays.mkdir()
    counts = np.arange(9).reshape(3, 3)
    np.savez(folder.arrays / "evaluation-test.npz", confusion=counts)
    line = {"split": "test", "confusion": None}
    np.testing.assert_array_equal(confusion_of(folder, line), counts)
    assert confusion_of(folder, {"split": "other"}) is None
    (folder.arrays / "evaluation-torn.npz").write_bytes(b"PK\x03\x04 half a file")
    assert confusion_of(folder, {"split": "torn"}) is None


@pytest.mark.parametrize("matrix", [[[1, 2]], [[1, "x"], [2, 3]], [[1], [2, 3]], [[-1, 0], [0, 1]], [[[1]]], []])
def test_a_matrix_that_is_none_is_not_drawn(tmp_path: Path, matrix: object) -> None:
    assert confusion_of(RunFolder(tmp_path), {"split": "test", "confusion": matrix}) is None


def test_broken_side_files_are_empty(make_run: RunMaker) -> None:
    folder = make_run(steps=5, trials=0)
    folder.model_card.write_text("{ half", encoding="utf-8")
    folder.config.unlink()
    history = read_history(folder)
    assert history.card == {}
    assert history.config_text == ""
    assert history.config == {}
    folder.config.write_text("seed = ", encoding="utf-8")
    assert read_history(folder).config == {}
    folder.model_card.write_text(json.dumps(["a list"]), encoding="utf-8")
    assert read_history(folder).card == {}


def test_a_folder_that_is_no_run_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run"):
        read_history(RunFolder(tmp_path))

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from tests.report.conftest import RunMaker, write_run
from wellfit.errors import UserError
from wellfit.record import Record, RunFolder
from wellfit.report.history import read_history
from wellfit.report.listing import MOST_STEPS, SILENT_SECONDS, Row, list_runs, read_row
from wellfit.report.terminal_runs import table


def began(folder: RunFolder, **fields: object) -> Record:
    record = Record(folder.record)
    record.write(
        "run", **{"schema": 1, "started": 1000.0, "spent_before": 0.0, "request": {"data": "/x/photos"}} | fields
    )
    return record


def test_a_finished_run_has_its_figures(make_run: RunMaker) -> None:
    folder = make_run(steps=100)
    row = read_row(folder.path, time.time())
    history = read_history(folder)
    assert (row.state, row.note, row.model) == ("finished", "", "resnet18")
    assert row.accuracy == history.evaluation["accuracy"]
    assert row.split == "test"
    assert row.seconds == history.end["seconds"]
    np.testing.assert_array_equal(row.losses, [line["loss"] for line in history.steps])
    assert row.steps == 100
    assert len(row.scores) == len(history.epochs)


@pytest.mark.parametrize(("status", "state"), [("done", "finished"), ("interrupted", "stopped"), ("failed", "failed")])
def test_states_of_runs_that_ended(make_run: RunMaker, status: str, state: str) -> None:
    assert read_row(make_run(steps=5, status=status).path, time.time()).state == state


def test_a_run_without_an_end_is_running_until_it_falls_silent(make_run: RunMaker) -> None:
    folder = make_run(steps=20, until="evaluation")
    written = folder.record.stat().st_mtime
    running = read_row(folder.path, written + SILENT_SECONDS / 2)
    assert (running.state, running.note) == ("running", "")
    silent = read_row(folder.path, written + 2 * SILENT_SECONDS)
    assert silent.state == "silent"
    assert "wellfit resume" in silent.note
    assert silent.split == "validation"


def test_a_torn_last_line_is_said_where_nobody_writes_any_more(make_run: RunMaker) -> None:
    folder = make_run(steps=20, until="evaluation")
    whole = read_row(folder.path, time.time() + 1e4)
    with folder.record.open("a") as file:
        file.write('{"kind": "step", "ste')
    torn = read_row(folder.path, time.time() + 1e4)
    assert "its last line is torn" in torn.note
    np.testing.assert_array_equal(torn.losses, whole.losses)
    assert "torn" not in read_row(folder.path, time.time()).note


def test_a_resumed_run_goes_on_after_its_end_and_repeats_no_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    record = began(folder)
    for step in (1, 2, 3, 4):
        record.write("step", step=step, loss=float(step), lr=0.1)
    record.write("epoch", step=4, validation_accuracy=0.4)
    record.write("end", status="interrupted", seconds=7.0)
    record.write("run", schema=1, started=2000.0, spent_before=7.0, request={})
    record.write("step", step=3, loss=30.0, lr=0.1)
    record.write("epoch", step=4, validation_accuracy=0.5)
    record.close()
    os.utime(folder.record, (2010.0, 2010.0))
    row = read_row(folder.path, 2011.0)
    assert row.state == "running"
    assert row.losses.tolist() == [1.0, 2.0, 30.0]
    assert row.scores.tolist() == [0.5]
    assert row.seconds == 17.0
    assert row.data == ""


def test_a_search_has_the_score_of_its_best_and_those_of_its_workers(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    record = began(folder, request={"data": "digits", "search": {}})
    workers = Record(folder.workers / "1-2.jsonl")
    for number, to in ((0, workers), (1, record)):
        to.write("trial", stage="coarse", trial=number, state="finished", validation_accuracy=0.5 + number / 10)
    workers.write("end", status="done")
    record.write("best", trial=0, validation_accuracy=0.55)
    record.close()
    workers.close()
    row = read_row(folder.path, time.time())
    assert (row.search, row.trials, row.accuracy, row.split) == (True, 2, 0.55, "validation")
    assert row.state == "running"
    assert row.scores.tolist() == [0.5, 0.6]
    assert row.data == "digits"


def test_of_a_long_record_few_steps_are_parsed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    record = began(folder)
    for step in range(1, 5001):
        record.write("step", step=step, loss=1 / step, lr=0.1)
    record.close()
    row = read_row(folder.path, time.time())
    assert len(row.losses) == MOST_STEPS
    assert row.losses[0] == 1.0
    assert row.losses[-1] == 1 / 5000
    assert row.steps == 5000
    shown = 1 / row.losses  # the steps: at even distances
    assert np.diff(shown).max() < 2 * 5000 / MOST_STEPS


def test_what_cannot_be_read_is_a_row_that_says_why(tmp_path: Path) -> None:
    for name, text in (
        ("newer", '{"kind": "run", "schema": 2}\n'),
        ("damaged", '{"kind": "run", "schema": "x"}\n'),
        ("empty", ""),
        ("noise", "\x00\xff[[[[\n{}\n[1]\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "plan.toml").touch()
    (tmp_path / "folder" / "record.jsonl").mkdir(parents=True)
    rows = {row.path.name: row for row in list_runs(tmp_path)}
    assert set(rows) == {"newer", "damaged", "empty", "noise", "half"}
    assert {row.state for row in rows.values()} == {"unreadable"}
    assert "newer wellfit (record schema 2, this one reads 1)" in rows["newer"].note
    assert "no record.jsonl" in rows["half"].note
    assert "no whole line" in rows["empty"].note
    assert "no whole line" in rows["noise"].note
    assert "schema" in rows["damaged"].note


def test_runs_are_found_at_any_depth_and_never_within_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "a", steps=3, trials=0)
    shutil.copytree(tmp_path / "a", tmp_path / "deep" / "er" / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "a" / "trials" / "c")
    shutil.copytree(tmp_path / "a", tmp_path / ".hidden" / "d")
    found = [row.path.relative_to(tmp_path).as_posix() for row in list_runs(tmp_path, "name")]
    assert found == ["a", "deep/er/b"]
    assert [row.path for row in list_runs(tmp_path / "a")] == [tmp_path / "a"]


def test_sorting_puts_the_best_first_and_the_unknown_last(tmp_path: Path) -> None:
    for name, started, accuracy in (("a", 3.0, 0.5), ("b", 1.0, None), ("c", 2.0, 0.9)):
        record = began(RunFolder(tmp_path / name), started=started)
        if accuracy is not None:
            record.write("evaluation", split="test", accuracy=accuracy)
        record.close()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "record.jsonl").touch()

    def order(key: str) -> str:
        return "".join(row.path.name for row in list_runs(tmp_path, key))

    assert order("started") == "acbd"
    assert order("accuracy") == "cabd"
    assert order("name") == "abcd"
    assert order("state")[-1] == "d"
    with pytest.raises(UserError, match="did you mean 'accuracy'"):
        list_runs(tmp_path, "acuracy")


def test_a_row_is_json_without_nan(make_run: RunMaker) -> None:
    whole = read_row(make_run(steps=30).path, time.time()).as_dict()
    nothing = Row(Path("x")).as_dict()
    for values in (whole, nothing):
        json.dumps(values, allow_nan=False)
    assert nothing["accuracy"] is None
    assert whole["steps"] == 30


ROWS = [
    Row(Path("runs/first"), "finished", model="whitened", data="digits", accuracy=0.97, split="test", seconds=15.0),
    Row(Path("runs/日本語"), "failed", note="no space left", accuracy=0.5, split="validation", losses=np.arange(9.0)),
]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_table_is_as_wide_as_the_terminal_at_most(width: int) -> None:
    long = [*ROWS, Row(Path("runs") / ("very" * 20 + "-last"), "running", model="resnet18")]
    lines = table(long, Path("runs"), width).splitlines()
    assert max(len(line) + sum("\u3000" < c < "\ua000" for c in line) for line in lines) <= width
    assert all("-last" in line for line in lines if "running" in line)
    assert lines[0].split()[:2] == ["run", "state"]


def test_a_table_without_a_terminal_has_every_column_and_full_names() -> None:
    text = table(ROWS, Path("runs"), None)
    assert text.splitlines()[0].split() == ["run", "state", "accuracy", "loss", "model", "data", "time"]
    assert "50.0% val" in text
    assert "▁▂▃▄▅▅▆▇█" in text
    assert "日本語: no space left" in text
    assert "\x1b" not in text
    # Each of the three characters takes two columns.
    assert [text.splitlines()[1].index("finished"), text.splitlines()[2].index("failed")] == [8, 5]


def test_names_cannot_steer_the_terminal() -> None:
    row = Row(Path("runs/a\x1b]0;owned\x07"), "failed", model="m\r\n", data="\u202e")
    shown = table([row], Path("runs"), 80)
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(shown)
    assert len(shown.splitlines()) == 2

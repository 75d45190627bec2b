"""Runs that come, grow, break, and go, as the watch tells of them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.conftest import append, opening, step, training
from wellfit.dashboard import watch as watching
from wellfit.dashboard.folders import find_runs, is_inside, leads_out
from wellfit.dashboard.watch import Watch
from wellfit.record import RunFolder
from wellfit.report.listing import SILENT_SECONDS
from wellfit.request import ask_to_stop, leave_note

Told = dict[str, dict[str, Any]]


class Page:
    """What one open page knows: it asks for changes alone."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.version, self.runs = watch, 0, {}
        self.said: dict[str, Any] = {}

    def look(self) -> Told:
        self.said = json.loads(self.watch.changes(self.version))
        self.version = self.said["version"]
        for key in self.said["gone"]:
            del self.runs[key]
        for run in self.said["runs"]:
            self.runs[run["key"]] = run
        return {run["name"]: run for run in self.runs.values()}

    def until(self, holds: Callable[[Told], bool]) -> Told:
        deadline = time.monotonic() + 15
        while not holds(found := self.look()) or self.said["behind"]:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setattr(watching, "PAUSE", 0.02)
    root = tmp_path / "runs"
    root.mkdir()
    watch = Watch(root)
    # New folders are looked for at every look.
    monkeypatch.setattr(watch, "_listed", -1e9)
    original = watch.look

    def look() -> None:
        watch._listed = -1e9
        original()

    monkeypatch.setattr(watch, "look", look)
    yield Page(watch)
    watch.close()


def test_a_run_appears_grows_and_ends(page: Page) -> None:
    run = page.watch.root / "first"
    append(run, opening(), step(1, 2.0))
    told = page.until(lambda runs: "first" in runs and runs["first"]["results"].get("step") == 1)["first"]
    assert told["state"] == "running"
    assert page.look()["first"]["version"] == told["version"]  # nothing new, nothing told
    assert page.said["runs"] == []
    with (run / "record.jsonl").open("a") as file:
        file.write(json.dumps(step(2, 1.0)) + "\n" + json.dumps(step(3, 0.5))[:-5])
    assert page.until(lambda runs: runs["first"]["results"]["step"] >= 2)["first"]["results"]["step"] == 2
    with (run / "record.jsonl").open("a") as file:
        file.write(json.dumps(step(3, 0.5))[-5:] + "\n")
    page.until(lambda runs: runs["first"]["results"]["step"] == 3)
    assert page.watch.curves([told["key"], 10**9])[str(told["key"])]["loss"] == [2.0, 1.0, 0.5]
    append(run, {"kind": "end", "status": "done"})
    page.until(lambda runs: runs["first"]["state"] == "done")


def test_folders_in_every_state_are_shown_as_such(page: Page) -> None:
    root = page.watch.root
    training(root / "group" / "good")
    append(root / "newer", opening(schema=99))
    append(root / "damaged", opening(schema="x"))
    (root / "half").mkdir()
    (root / "half" / "plan.toml").write_text("steps = 1")
    (root / "config.toml").write_text("")  # of something else: it hides no run
    (root / "torn").mkdir()
    (root / "torn" / "record.jsonl").write_text('{"kind": "ru')
    (root / "no-run").mkdir()
    runs = page.until(lambda runs: len(runs) == 5 and all(run["read"] for run in runs.values()))
    assert "newer wellfit (record version 99" in runs["newer"]["problem"]
    assert "damaged" in runs["damaged"]["problem"]
    assert "no record.jsonl yet" in runs["half"]["problem"]
    assert runs["torn"]["problem"] == ""
    assert runs["torn"]["state"] == "starting"
    assert runs["group/good"]["results"]["validation_accuracy"] == 0.8
    assert runs["group/good"]["settings"]["lr"] == 0.01
    append(root / "half", opening(), step(1, 1.0))  # the copy goes on
    page.until(lambda runs: runs["half"]["problem"] == "" and runs["half"]["results"].get("step") == 1)


def test_records_without_a_line_and_torn_ones_are_said_to_be_so(page: Page) -> None:
    root = page.watch.root
    texts = {
        "noise": b"\x00\x01\nnot JSON\n", "empty": b"", "begun": b'{"kind": "ru',
        "torn": json.dumps(opening()).encode() + b'\n{"kind": "st',
    }  # fmt: skip
    for name, text in texts.items():
        (root / name).mkdir(parents=True)
        (root / name / "record.jsonl").write_bytes(text)
    runs = page.until(lambda runs: len(runs) == 4 and all(run["read"] for run in runs.values()))
    assert {name: run["state"] for name, run in runs.items()} == {
        "noise": "unreadable", "empty": "starting", "begun": "starting", "torn": "running",
    }  # fmt: skip
    assert "no line that can be understood" in runs["noise"]["problem"]
    assert not runs["torn"]["torn"]  # somebody may be writing it at this moment
    for run in page.watch._runs.values():
        run.changed -= SILENT_SECONDS  # three minutes later
    runs = page.until(lambda runs: runs["torn"]["state"] == "silent" and runs["empty"]["problem"] != "")
    assert runs["torn"]["torn"]
    assert "no whole line" in runs["begun"]["problem"]
    with (root / "empty" / "record.jsonl").open("a") as file:
        file.write(json.dumps(opening()) + "\n")
    page.until(lambda runs: runs["empty"]["problem"] == "" and runs["empty"]["state"] == "running")


def test_a_deleted_run_goes_and_one_of_its_name_is_another(page: Page) -> None:
    run = training(page.watch.root / "a")
    first = page.until(lambda runs: "a" in runs)["a"]["key"]
    shutil.rmtree(run)
    page.until(lambda runs: "a" not in runs)
    append(run, opening(), step(1, 3.0))
    again = page.until(lambda runs: "a" in runs and runs["a"]["results"].get("step") == 1)["a"]
    assert again["key"] != first
    assert again["state"] == "running"


def test_notes_and_wishes_are_told_at_once(page: Page) -> None:
    run = page.watch.root / "a"
    append(run, opening(), step(1, 1.0))
    key = page.until(lambda runs: "a" in runs and runs["a"]["read"])["a"]["key"]
    leave_note(RunFolder(run), "one\ntwo \x1b[31m")
    ask_to_stop(RunFolder(run))
    page.watch.touch(key)
    told = page.look()["a"]
    assert told["note"] == "one\ntwo �[31m"
    assert told["stopping"]
    append(run, {"kind": "end", "status": "interrupted"})
    assert not page.until(lambda runs: runs["a"]["state"] == "interrupted")["a"]["stopping"]


def test_a_search_is_fed_by_its_workers(page: Page) -> None:
    run = page.watch.root / "s"
    append(run, opening(request={"search": {}}))
    workers = run / "workers"
    workers.mkdir()
    line = {"kind": "trial", "trial": 0, "validation_accuracy": 0.4, "curve": [[1, 2.0]]}
    (workers / "1-77.jsonl").write_text(json.dumps({"kind": "step", "step": 9}) + "\n" + json.dumps(line) + "\n")
    page.until(lambda runs: "s" in runs and runs["s"]["trials"] == 1)
    assert page.look()["s"]["results"] == {"validation_accuracy": 0.4}


def test_a_worker_that_comes_later_is_told_of_though_the_search_itself_says_nothing(page: Page) -> None:
    run = page.watch.root / "s"
    append(run, opening(request={"search": {}}))
    page.until(lambda runs: "s" in runs and runs["s"]["read"])
    workers = run / "workers"
    workers.mkdir()
    line = {"kind": "trial", "trial": 0, "validation_accuracy": 0.4, "curve": [[1, 2.0]]}
    (workers / "1-77.jsonl").write_text(json.dumps(line) + "\n")
    page.until(lambda runs: runs["s"]["trials"] == 1)


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")
def test_what_leads_out_of_the_folder_is_not_read(page: Page, tmp_path: Path) -> None:
    outside = training(tmp_path / "outside")
    root = page.watch.root
    (root / "linked").symlink_to(outside)
    for name, where in (("record", "record.jsonl"), ("config", "config.toml")):
        run = training(tmp_path / "made" / name)
        (run / where).unlink()
        (run / where).symlink_to(outside / where)
        run.rename(root / f"with-{name}")
    run = training(tmp_path / "made" / "array")
    (run / "arrays").mkdir()
    (run / "arrays" / "x.png").symlink_to(outside / "config.toml")
    run.rename(root / "with-array")
    inner = training(root / "inner-link")
    (inner / "plan.toml").symlink_to(inner / "config.toml")
    runs = page.until(lambda runs: len(runs) == 4 and all(run["read"] for run in runs.values()))
    for name in ("with-record", "with-config", "with-array"):
        assert "leads out" in runs[name]["problem"], name
        assert runs[name]["results"] == {}
        assert runs[name]["settings"] == {}
    assert runs["inner-link"]["problem"] == ""
    assert page.said["outside"] == ["linked"]


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")
def test_a_record_that_is_exchanged_for_a_link_is_read_no_more(page: Page, tmp_path: Path) -> None:
    run = training(page.watch.root / "a")
    page.until(lambda runs: "a" in runs and runs["a"]["read"])
    outside = training(tmp_path / "outside", accuracy=0.123)
    (tmp_path / "link").symlink_to(outside / "record.jsonl")
    (tmp_path / "link").replace(run / "record.jsonl")
    told = page.until(lambda runs: runs["a"]["problem"] != "")["a"]
    assert "leads out" in told["problem"]
    assert told["results"] == {}


def test_a_folder_that_is_missing_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PAUSE", 0.02)
    watch = Watch(tmp_path / "later")
    try:
        assert json.loads(watch.changes(0))["missing"]
        training(tmp_path / "later" / "a")
        Page(watch).until(lambda runs: "a" in runs)
    finally:
        watch.close()


def test_runs_are_found_three_folders_down_and_not_within_runs(tmp_path: Path) -> None:
    for name in ("a", "b/c", "b/d/e", "b/d/f/g", ".hidden/h"):
        training(tmp_path / name)
    training(tmp_path / "a" / "inner")
    assert set(find_runs(tmp_path).runs) == {"a", "b/c", "b/d/e"}
    assert set(find_runs(tmp_path / "a").runs) == {"."}


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own there")
def test_links_are_followed_to_their_end_before_they_are_judged(tmp_path: Path) -> None:
    root = tmp_path / "root"
    run = training(root / "run")
    assert leads_out(RunFolder(run), root) == ""
    (tmp_path / "secret").write_text("x")
    (run / "arrays").mkdir()
    (run / "arrays" / "one").symlink_to(run / "arrays" / "two")
    (run / "arrays" / "two").symlink_to(tmp_path / "secret")
    assert leads_out(RunFolder(run), root) in ("arrays/one", "arrays/two")
    assert not is_inside(run / ".." / ".." / "secret", root)
    (run / "arrays" / "loop").symlink_to(run / "arrays" / "loop")
    assert isinstance(is_inside(run / "arrays" / "loop", root), bool)

"""What stops a run from outside: signals at once, wishes in the folder at the end of the epoch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.plans import longer, write_plan
from wellfit.errors import Interrupted
from wellfit.recipe import api, steps
from wellfit.record import RunFolder, read_record
from wellfit.request import ask_to_stop, leave_note


def test_a_wish_in_the_folder_ends_the_epoch_evaluates_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked within an epoch, the training goes on to its end; the note is in the record; a resume is not stopped."""
    monkeypatch.setattr(steps, "write_report", lambda folder: None)
    monkeypatch.setattr("wellfit.request.POLL_SECONDS", 0.0)
    folder = RunFolder(tmp_path / "run")

    def ask(kind: str, fields: dict[str, Any]) -> None:
        if kind == "step" and fields["step"] == 10:
            leave_note(folder, "<b>enough</b>")
            ask_to_stop(folder)

    plan = write_plan(tmp_path / "plan.toml", training=longer(60, evaluate_every=20))
    with pytest.raises(Interrupted, match="stopped as asked, evaluated and saved"):
        api.fit("digits", plan=plan, out=folder.path, listener=ask)
    lines = list(read_record(folder.record))
    assert max(line["step"] for line in lines if line["kind"] == "step") == 20
    assert [line["text"] for line in lines if line["kind"] == "note"] == ["<b>enough</b>"]
    assert [line["status"] for line in lines if line["kind"] == "end"] == ["interrupted"]
    assert folder.model_weights.exists()
    assert sum(line["kind"] == "evaluation" for line in lines) == 1
    resumed = api.resume(folder.path)
    assert resumed.test_accuracy is not None
    assert max(line["step"] for line in read_record(folder.record) if line["kind"] == "step") == 60


def test_a_wish_is_heard_in_a_thread_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals reach the main thread alone; the file is looked at from anywhere."""
    from wellfit.config import Config
    from wellfit.recipe.budget import Budget
    from wellfit.recipe.interrupts import interrupts
    from wellfit.recipe.job import Job
    from wellfit.record import Record

    monkeypatch.setattr("wellfit.request.POLL_SECONDS", 0.0)
    folder = RunFolder(tmp_path)
    heard: list[bool] = []

    def work() -> None:
        job = Job(None, Config(), folder, Record(folder.record), Budget(None, 0.0))
        with interrupts(job):
            heard.append(job.stop())
            ask_to_stop(folder)
            heard.extend((job.stop_now(), job.stop()))
        job.record.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False, False, True]
    assert [line["kind"] for line in read_record(folder.record)] == ["say"]

"""The [[done]] table: one row a step, whatever the number of sessions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from wellfit.config import Config
from wellfit.recipe.budget import Budget
from wellfit.recipe.done import PARTS, done_lines, settle_parts
from wellfit.recipe.job import Job
from wellfit.record import Record, RunFolder, read_record


def line(name: str, status: str, seconds: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"kind": "recipe_step", "name": name, "status": status, "seconds": seconds, "reason": "", **more}


def test_a_later_session_holds_but_a_skip_leaves_what_was_done() -> None:
    lines = [
        line("audit", "done", 2.0),
        line("search", "done", 9.0, gain=0.01),
        line("train", "failed", 3.0),
        {"kind": "say", "text": "resumed"},
        line("audit", "done", 1.0),
        line("search", "skipped", 0.0),
        line("train", "done", 5.0),
        line("views", "skipped", 0.0),
    ]
    rows = done_lines(lines)
    assert [(row["name"], row["status"], row["seconds"]) for row in rows] == [
        ("audit", "done", 1.0),
        ("search", "done", 9.0),
        ("train", "done", 5.0),
        ("views", "skipped", 0.0),
    ]
    assert rows[1]["gain"] == 0.01
    assert rows[0]["gain"] is None


def test_each_part_has_one_line_in_the_end(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    job = Job("digits", Config(), folder, Record(folder.record), Budget(None, time.monotonic()))
    with job.step("views") as outcome:
        outcome.gain = 0.004
    job.skip("probe", "for a reason of its own")
    settle_parts(job)
    settle_parts(job)
    job.record.close()
    rows = {row["name"]: row for row in done_lines(read_record(folder.record))}
    assert set(rows) == set(PARTS)
    assert len(job.outcomes) == len(PARTS)
    assert rows["views"]["status"] == "done"
    assert rows["views"]["gain"] == 0.004
    assert rows["probe"]["reason"] == "for a reason of its own"
    assert all(row["reason"] for name, row in rows.items() if name != "views")

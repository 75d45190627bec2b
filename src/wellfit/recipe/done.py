"""What became of each step of a run: the [[done]] table of plan.toml, over all sessions.

A line is `job.Outcome`: name, status ("done", "skipped" or "failed"), seconds, reason, and the gain on validation where
one was measured. The parts below are what `fit` uses by itself where the time allows it and validation gains; every
finished run says of each what became of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wellfit.recipe.job import Job
from wellfit.record import read_record

FIELDS = ("name", "status", "seconds", "reason", "gain")
# What is said of a part that no step of the run came to speak of.
PARTS = {
    "probe": "no network with weights of another data set was used",
    "policy": "no network with weights of another data set was used",
    "fine-tune": "no network with weights of another data set was used",
    "averages": "no training whose weights could be averaged",
    "snapshots": "no training that snapshots could be taken of",
    "ensemble": "one network alone was fitted",
    "views": "not planned",
}


def settle_parts(job: Job) -> None:
    """Write a line for each part that has none yet."""
    told = {outcome.name for outcome in job.outcomes}
    told |= {line["name"] for line in read_record(job.folder.record) if line["kind"] == "recipe_step"}
    for name, reason in PARTS.items():
        if name not in told:
            job.skip(name, reason)


def done_lines(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a step, in the order in which they first came, from a record's lines.

    A later session's line holds, but one that is skipped then leaves the one that was done.
    """
    rows: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line["kind"] != "recipe_step":
            continue
        name = line["name"]
        if line["status"] == "skipped" and rows.get(name, {}).get("status") == "done":
            continue
        rows[name] = {field: line.get(field) for field in FIELDS}
    return list(rows.values())

"""The runs below a folder, a row each: how each does, from its record alone. What cannot be read is a row too."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.errors import UserError, unknown_name
from wellfit.record import SCHEMA, RunFolder
from wellfit.report.curves import Floats, evenly
from wellfit.report.history import Line, mapping
from wellfit.report.words import number, plain

STATES = ("running", "finished", "stopped", "failed", "silent", "unreadable")
# A run without an end that has not written for so long was most likely killed; decoding a large set, or one step of a
# slow network, may keep a living one quiet for as long.
SILENT_SECONDS = 180.0
MOST_STEPS = 240  # of a run that are parsed for its curve
_STEP = b'{"kind": "step"'
MARKS = ("record.jsonl", "plan.toml", "model.json")  # a folder with one of these is a run's
_ENDS = {"done": "finished", "interrupted": "stopped", "failed": "failed"}
_GOES_ON = ("run", "audit", "engine", "plan", "trial", "probe")


@dataclass
class Row:
    """One run. NaN where a figure is not known.

    state: of STATES; "silent": no end, and nothing written for three minutes. note: what is unusual, in words.
    accuracy: share of right answers on `split` ("test", "validation", or "" where there is none).
    losses: the loss at evenly spaced steps. scores: validation accuracy at each epoch, of a search at each trial.
    seconds: of all sessions so far. started: of the last session, seconds since 1970.
    """

    path: Path
    state: str = "unreadable"
    note: str = ""
    model: str = ""
    data: str = ""
    accuracy: float = math.nan
    split: str = ""
    steps: float = math.nan
    trials: int = 0
    search: bool = False
    seconds: float = math.nan
    started: float = math.nan
    losses: Floats = field(default_factory=lambda: np.zeros(0))
    scores: Floats = field(default_factory=lambda: np.zeros(0))

    def as_dict(self) -> dict[str, Any]:
        """For `wellfit runs --json`: absent figures are None, the curves are left out."""
        values = {k: v for k, v in vars(self).items() if k not in ("losses", "scores", "path")}
        values |= {"loss": float(self.losses[-1]) if len(self.losses) else math.nan}
        known = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        return {"run": str(self.path), **known}


SORTS = {
    "started": lambda row: -row.started,
    "name": lambda row: str(row.path),
    "state": lambda row: STATES.index(row.state),
    "model": lambda row: row.model or "\uffff",
    "data": lambda row: row.data or "\uffff",
    "accuracy": lambda row: -row.accuracy,
    "seconds": lambda row: -row.seconds,
    "loss": lambda row: row.losses[-1] if len(row.losses) else math.nan,
}


def list_runs(root: str | Path, sort: str = "started", now: float | None = None) -> list[Row]:
    """All runs at or below the folder; sort: a key of SORTS. What is not known comes last.

    UserError where `root` is no folder, or the key is unknown.
    """
    root = Path(root)
    if sort not in SORTS:
        raise unknown_name("order of runs", sort, SORTS)
    if not root.is_dir():
        raise UserError(f"runs are looked for in a folder, but '{root}' is none; give the one that holds your runs")
    now = time.time() if now is None else now
    rows = sorted((read_row(path, now) for path in run_folders(root)), key=lambda row: str(row.path))
    key = SORTS[sort]

    def place(row: Row) -> tuple[bool, Any]:
        value = key(row)
        unknown = isinstance(value, float | np.floating) and math.isnan(value)
        return unknown, 0.0 if unknown else value

    return sorted(rows, key=place)


def run_folders(root: Path) -> Iterator[Path]:
    """Folders that hold a run, `root` itself among them; links are not followed, hidden folders are left out."""
    for place, folders, files in os.walk(root):
        if any(mark in files for mark in MARKS):
            folders.clear()  # what is in a run is its own
            yield Path(place)
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))


def read_row(path: Path, now: float) -> Row:
    """One run's row, whatever state its folder is in; never raises."""
    row = Row(path)
    folder = RunFolder(path)
    try:
        modified = max(file.stat().st_mtime for file in (folder.record, *folder.worker_records()))
        seen = _Seen(folder)
    except FileNotFoundError:
        row.note = "the folder has no record.jsonl"
        return row
    except OSError as error:
        row.note = f"record.jsonl cannot be read ({error.strerror})"
        return row
    schema = seen.run.get("schema", SCHEMA)
    if not seen.lines:
        row.note = "record.jsonl holds no whole line"
    elif not isinstance(schema, int) or isinstance(schema, bool):
        row.note = "the record is damaged: its schema is no whole number"
    elif schema > SCHEMA:
        row.note = f"written by a newer wellfit (record schema {schema}, this one reads {SCHEMA})"
    else:
        _fill(row, seen, modified, now)
    return row


def _fill(row: Row, seen: _Seen, modified: float, now: float) -> None:
    request, status = mapping(seen.run, "request"), str(seen.end.get("status"))
    row.search = "search" in request
    row.state = _ENDS.get(status) or ("running" if now - modified < SILENT_SECONDS else "silent")
    row.note = plain(seen.end.get("reason"), 200) if row.state == "failed" else ""
    if row.state == "silent":
        row.note = "no end, and nothing written since: perhaps killed; `wellfit resume` goes on"
    if seen.torn and row.state != "running":
        row.note = "; ".join(part for part in (row.note, "its last line is torn") if part)
    model = seen.plan.get("model")
    row.model = plain(model, 60) if isinstance(model, str) else ""
    row.data = plain(Path(str(request["data"])).name, 60) if request.get("data") else ""
    row.trials, row.started = len(seen.trials), number(seen.run.get("started"))
    row.seconds = number(seen.end.get("seconds"))
    if not math.isfinite(row.seconds) and math.isfinite(row.started):
        before = number(seen.run.get("spent_before"))
        row.seconds = max(0.0, modified - row.started) + (before if math.isfinite(before) else 0.0)
    steps, losses = seen.losses()
    row.losses, row.steps = losses, float(steps[-1]) if len(steps) else math.nan
    scores = seen.trials.values() if row.search else seen.epochs
    names = ("averaged_validation_accuracy", "validation_accuracy")
    row.scores = np.array([max((number(line.get(n)) for n in names), key=_or_least) for line in scores], np.float64)
    _judge(row, seen)


def _judge(row: Row, seen: _Seen) -> None:
    for split in ("test", "validation"):
        accuracy = number(seen.evaluations.get(split, {}).get("accuracy"))
        if math.isfinite(accuracy):
            row.accuracy, row.split = accuracy, split
            return
    best = number(seen.best.get("validation_accuracy"))
    measured = row.scores[np.isfinite(row.scores)]
    if not math.isfinite(best) and len(measured):
        best = float(measured.max())
    if math.isfinite(best):
        row.accuracy, row.split = best, "validation"


def _or_least(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


class _Seen:
    """What a record says, its steps unparsed: of thousands of them, a curve needs a few hundred."""

    def __init__(self, folder: RunFolder) -> None:
        self.lines = 0
        self.torn = False
        self.run: Line = {}
        self.plan: Line = {}
        self.end: Line = {}
        self.best: Line = {}
        self.epochs: list[Line] = []
        self.trials: dict[str, Line] = {}
        self.evaluations: dict[str, Line] = {}
        self._steps: list[bytes] = []  # at even distances, so that a million steps take no more memory than thousands
        self._every, self._passed, self._last = 1, 0, b""
        for file in folder.worker_records():
            self._read(file, only="trial")
        self._read(folder.record)

    def _read(self, file: Path, only: str = "") -> None:
        with file.open("rb") as lines:
            for raw in lines:
                if raw.startswith(_STEP) and raw.endswith(b"\n") and not only:
                    self._keep(raw)
                    self.end, self.lines = {}, self.lines + 1
                    continue
                line = _parsed(raw)
                if line is None:
                    self.torn = not raw.endswith(b"\n")
                elif not only or line["kind"] == only:
                    self._take(str(line["kind"]), line)

    def _keep(self, raw: bytes) -> None:
        if self._passed % self._every == 0:
            self._steps.append(raw)
            if len(self._steps) >= 8 * MOST_STEPS:
                self._steps, self._every = self._steps[::2], 2 * self._every
        self._passed, self._last = self._passed + 1, raw

    def _take(self, kind: str, line: Line) -> None:
        self.lines += 1
        if kind in _GOES_ON:
            self.end = {}  # a resumed run goes on after its end
        if kind in ("run", "plan", "end", "best"):
            setattr(self, kind, line)
        elif kind == "trial":
            self.trials[f"{line.get('stage')} {line.get('trial')}"] = line
        elif kind == "evaluation":
            self.evaluations[str(line.get("split"))] = line
        elif kind == "epoch":
            step = number(line.get("step"))
            while self.epochs and number(self.epochs[-1].get("step")) >= step:
                self.epochs.pop()
            self.epochs.append(line)

    def losses(self) -> tuple[Floats, Floats]:
        """(steps, losses) of at most MOST_STEPS steps; what a resume repeats is there once."""
        kept: list[tuple[float, float]] = []
        lines = [self._steps[i] for i in evenly(len(self._steps), MOST_STEPS).tolist()]
        for raw in [*lines[:-1], self._last] if lines else []:
            line = _parsed(raw)
            if line is None:
                continue
            step = number(line.get("step"))
            while kept and kept[-1][0] >= step:
                kept.pop()
            kept.append((step, number(line.get("loss"))))
        table = np.array(kept, np.float64).reshape(-1, 2)
        return table[:, 0], table[:, 1]


def _parsed(raw: bytes) -> Line | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "kind" in value else None

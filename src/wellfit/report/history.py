"""Reads a run folder into memory, whatever state the run is in: finished, killed, failed, still going."""

from __future__ import annotations

import json
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellfit.findings import SEVERITIES, explanations
from wellfit.record import RunFolder, read_record
from wellfit.report.words import number

Line = dict[str, Any]


@dataclass
class History:
    """The lines of one record, by kind; after a resume the later line holds, so nothing appears twice.

    Lines are as written (see docs/design/contracts.md) and may lack any field: read them with `number`,
    `mapping` and `rows`.
    """

    folder: RunFolder
    run: Line = field(default_factory=dict)
    audit: Line = field(default_factory=dict)
    engine: Line = field(default_factory=dict)
    plan: Line = field(default_factory=dict)
    end: Line = field(default_factory=dict)
    checks: list[Line] = field(default_factory=list)
    trials: list[Line] = field(default_factory=list)
    stages: list[Line] = field(default_factory=list)
    steps: list[Line] = field(default_factory=list)
    epochs: list[Line] = field(default_factory=list)
    probes: list[Line] = field(default_factory=list)
    neighbours: Line = field(default_factory=dict)
    ensemble: Line = field(default_factory=dict)
    views: list[Line] = field(default_factory=list)
    best: Line = field(default_factory=dict)
    importance: Line = field(default_factory=dict)
    importances: dict[str, Line] = field(default_factory=dict)  # by the stage after which they were taken
    findings: list[Line] = field(default_factory=list)
    alarms: list[Line] = field(default_factory=list)  # findings at the step at which they were first seen
    notes: list[Line] = field(default_factory=list)  # {text, step}: what somebody wrote while the run went on
    recipe_steps: list[Line] = field(default_factory=list)
    evaluations: dict[str, Line] = field(default_factory=dict)
    config: Line = field(default_factory=dict)
    config_text: str = ""
    plan_text: str = ""
    card: Line = field(default_factory=dict)

    @property
    def status(self) -> str:
        """ "done", "interrupted", "failed", or "unfinished" where the record has no end (still going, or killed)."""
        status = str(self.end.get("status", "unfinished"))
        return status if status in ("done", "interrupted", "failed") else "unfinished"

    @property
    def empty(self) -> bool:
        """Whether the record holds no line that says anything of the run."""
        parts = (self.run, self.audit, self.steps, self.epochs, self.trials, self.evaluations, self.recipe_steps)
        return not any(parts) and not self.end

    @property
    def evaluation(self) -> Line:
        """The test evaluation; else the validation one, else any; else empty."""
        for split in ("test", "validation", *self.evaluations):
            if split in self.evaluations:
                return self.evaluations[split]
        return {}

    @property
    def transfers(self) -> bool:
        """Whether the run fits linear classifiers on frozen features; it may fine-tune the network afterwards."""
        return bool(self.probes) or self.recipe_step("probe").get("status", "skipped") != "skipped"

    def recipe_step(self, name: str) -> Line:
        """The line of a step of the recipe; empty where it has not ended."""
        return next((line for line in self.recipe_steps if line.get("name") == name), {})

    @property
    def is_search(self) -> bool:
        """Whether the run is a search alone: it has trials and hands over settings, no model."""
        return "search" in mapping(self.run, "request")

    @property
    def classes(self) -> dict[str, int]:
        """Images of each class over all splits, as the audit counted them."""
        return {str(name): int(n) for name, n in mapping(self.audit, "classes").items() if number(n) >= 0}


def check_outcome(line: Line) -> str:
    """ "passed", "failed", or "undecided" for a check that ran out of time before it could tell."""
    if line.get("passed") is True:
        return "passed"
    return "undecided" if line.get("finished") is False else "failed"


def mapping(line: Line, key: str) -> dict[str, Any]:
    """`line[key]` where it is a dict, else an empty one."""
    value = line.get(key)
    return value if isinstance(value, dict) else {}


def rows(line: Line, key: str) -> list[Line]:
    """The dicts in the list `line[key]`; empty where there is no list."""
    value = line.get(key)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def texts(line: Line, key: str) -> list[str]:
    """The list `line[key]` as text; empty where there is no list."""
    value = line.get(key)
    return [str(item) for item in value] if isinstance(value, list) else []


def confusion_of(folder: RunFolder, evaluation: Line) -> NDArray[np.int64] | None:
    """The C×C counts (row: true class) of an evaluation, from its line or, above 100 classes, from arrays/.

    Looked for in arrays/ under the key "confusion" of `evaluation-SPLIT.npz`. None where there is none.
    """
    matrix: Any = evaluation.get("confusion")
    if not isinstance(matrix, list) or not matrix:
        stored = folder.arrays / f"evaluation-{evaluation.get('split')}.npz"
        try:
            with stored.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                matrix = arrays["confusion"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
    try:
        counts = np.asarray(matrix, np.int64)
    except (ValueError, TypeError, OverflowError):
        return None
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1] > 0
    return counts if square and counts.min() >= 0 else None


def read_history(folder: RunFolder) -> History:
    """Read everything a report needs. Missing or torn parts are left empty; UserError where there is no run at all."""
    reading = Reading(RunFolder.open(folder.path))
    for line in _lines(reading.folder):
        reading.take(line)
    return reading.history()


class Reading:
    """Takes the lines of a record one by one, in their order, as they come; `history()` is what they say so far."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._history = History(folder)
        self._trials: dict[Any, Line] = {}
        self._checks: dict[Any, Line] = {}
        self._findings: dict[Any, Line] = {}
        self._recipe_steps: dict[Any, Line] = {}
        self._stages: dict[Any, Line] = {}
        self._probes: dict[Any, Line] = {}

    def take(self, line: Line) -> None:
        """The next line of the record; of a worker's record, the lines on trials alone."""
        history, kind = self._history, line["kind"]
        if kind in ("run", "audit", "engine", "plan", "trial", "probe", "step"):
            # A resumed run goes on after its end: that was not the end.
            history.end = {}
        if kind in ("run", "audit", "engine", "plan", "best", "importance"):
            setattr(history, kind, line)
            if kind == "importance":
                history.importances[str(line.get("stage"))] = line
        elif kind in ("neighbours", "ensemble"):
            setattr(history, kind, line)
        elif kind == "views":
            history.views = [seen for seen in history.views if seen.get("name") != line.get("name")] + [line]
        elif kind == "end":
            history.end = line
        elif kind == "step":
            _rewind(history.steps, line)
            _rewind(history.epochs, line)
            _rewind(history.alarms, line)
            if number(line.get("step")) >= 0:
                history.steps.append(line)
        elif kind == "epoch":
            _rewind(history.epochs, line)
            if number(line.get("step")) >= 0:
                history.epochs.append(line)
        elif kind == "trial":
            self._trials[str(line.get("stage")), str(line.get("trial"))] = line
        elif kind == "probe":
            place = ("image_size", "layer", "pooling", "strength", "balanced")
            self._probes[tuple(str(line.get(key)) for key in place)] = line
        elif kind == "stage":
            # A stage of a search has a line for each of its rounds.
            self._stages[str(line.get("name")), str(line.get("first"))] = line
        elif kind == "check":
            self._checks[str(line.get("check"))] = line
        elif kind == "finding":
            self._findings[str(line.get("id")), str(line.get("message"))] = line
        elif kind == "alarm":
            history.alarms.append(line)
        elif kind == "note":
            step = history.steps[-1].get("step") if history.steps else None
            history.notes.append({**line, "step": step})
        elif kind == "recipe_step":
            name = str(line.get("name"))
            # What was done before a resume is skipped after it: what was done is worth more to know.
            if line.get("status") != "skipped" or self._recipe_steps.get(name, {}).get("status") != "done":
                self._recipe_steps[name] = line
        elif kind == "evaluation":
            history.evaluations[str(line.get("split"))] = line

    def history(self) -> History:
        """What the lines taken so far say, with the folder's other files as they are now. Its lists go on growing."""
        history, folder = self._history, self.folder
        history.trials, history.stages = list(self._trials.values()), list(self._stages.values())
        if history.is_search:  # numbers count over all stages and workers
            history.trials.sort(key=lambda line: number(line.get("trial")))
        history.stages.sort(key=lambda line: number(line.get("first")))
        history.probes = list(self._probes.values())
        history.checks, history.recipe_steps = list(self._checks.values()), list(self._recipe_steps.values())
        history.findings = _root_cause_first(list(self._findings.values()))
        history.config_text = _text(folder.config)
        history.plan_text = _text(folder.plan)
        history.config = _parsed(tomllib.loads, history.config_text)
        history.card = _parsed(json.loads, _text(folder.model_card))
        return history


def _lines(folder: RunFolder) -> Iterator[Line]:
    """What worker processes wrote of their trials, then the run's own record."""
    for file in folder.worker_records():
        yield from (line for line in read_record(file) if line["kind"] == "trial")
    yield from read_record(folder.record)


def _parsed(parse: Callable[[str], Any], text: str) -> Line:
    try:
        value = parse(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _rewind(lines: list[Line], line: Line) -> None:
    # A resume goes back to its checkpoint: what was written after it is repeated, and the repetition holds.
    step = number(line.get("step"))
    while lines and number(lines[-1].get("step")) >= step:
        lines.pop()


def _root_cause_first(findings: list[Line]) -> list[Line]:
    # Not `findings.root_cause_first`: a record of another version may hold ids that this one does not know.
    rank = {name: i for i, name in enumerate(explanations())}
    severity: dict[str, int] = {name: i for i, name in enumerate(SEVERITIES)}

    def place(line: Line) -> tuple[int, int]:
        return rank.get(str(line.get("id")), len(rank)), -severity.get(str(line.get("severity")), 0)

    return sorted(findings, key=place)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

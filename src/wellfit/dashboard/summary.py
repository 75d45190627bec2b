"""What the grid knows of a run: settings, results, a small curve; from lines as they come, in little memory."""

from __future__ import annotations

import json
import math
import re
import tomllib
from typing import Any

from wellfit.dashboard.small_curve import SmallCurve
from wellfit.record import SCHEMA
from wellfit.report.history import Line, mapping
from wellfit.report.listing import SILENT_SECONDS
from wellfit.report.words import number, plain

MOST_EPOCHS = 200
MOST_SCORES = 1000
# A step line as our record writes it, without figures of each layer: these are nearly all lines of a long record, and
# a pattern reads them several times as fast as a parser does.
_NUMBER = rb"(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
_STEP = re.compile(
    rb'\{"kind": "step", "step": (\d+), [^{}]*?"lr": ' + _NUMBER + rb'[,}][^{}]*?"loss": ' + _NUMBER + rb"[,}]"
)
_STEP_BEGINS = b'{"kind": "step", "step": '
# What the grid calls a setting, where its own name says too little.
_NAMED = {"model.name": "model", "optimizer.name": "optimizer", "model.weights": "weights", "loss": "loss_function"}
_HIDDEN = ("data.image_column", "data.label_column", "data.group_column", "reasons", "schema")
_OPEN = {(name, 0) for name in ("lr", "image_size", "epochs", "batch_size", "threads")}
_OPEN |= {(name, -1) for name in ("weight_decay", "label_smoothing", "split_seed")}
Value = float | int | str | bool


class Summary:
    """Takes the lines of one record; `as_dict()` is what a card of the grid shows."""

    def __init__(self) -> None:
        self.curve = SmallCurve()
        self.epochs: list[tuple[float, ...]] = []  # step, train, validation, averaged accuracy, seconds
        self.settings: dict[str, Value] = {}
        self.results: dict[str, float] = {}
        self.end: Line = {}
        self.known = False  # whether there was a line that could be understood
        self.schema: object = SCHEMA
        self.started: float | None = None
        self.session: float | None = None  # when the latest session began
        self.command = ""
        self.search = False
        self.note = ""
        self._progress: Line = {}
        self._planned = math.nan
        self.scores: list[float] = []  # of a search's trials, in the order in which they ended
        self._best_trial = math.nan
        self._trials = 0
        self._counts = {"error": 0, "warning": 0}
        self._found: set[str] = set()

    def take(self, lines: list[bytes]) -> None:
        """The next whole lines of the record; what is no JSON object with a kind is passed over."""
        last_step, match_step, add = b"", _STEP.match, self.curve.add
        for raw in lines:
            if raw.startswith(_STEP_BEGINS) and raw.count(b"{") == 1:
                match = match_step(raw)
                if match is not None:
                    step, rate, loss = match.groups()
                    self.end = {}
                    add(int(step), float(loss), float(rate))
                    last_step = raw
                    continue
            line = _parsed(raw)
            if line is None:
                continue
            self.known = True
            if line["kind"] == "step":
                last_step = raw
                if number(line.get("step")) >= 0:
                    self.end = {}
                    self.curve.add(int(number(line["step"])), number(line.get("loss")), number(line.get("lr")))
            else:
                self._take(line)
        line = _parsed(last_step)
        if line is not None:
            self.known = True
            self._progress = line
            self._result("step", line.get("step"))
            self._result("epoch", line.get("epoch"))
            self._result("images_per_second", line.get("images_per_second"))
        self._result("loss", self.curve.last)

    def configured(self, config: str, plan: str) -> None:
        """The texts of config.toml and plan.toml: what was asked, and where that was left open, what was decided."""
        asked, decided = _settings(config), _settings(plan)
        self.settings |= {k: v for k, v in decided.items() if k in asked or k in ("batch_size", "model", "image_size")}
        self.settings |= {k: v for k, v in asked.items() if not _is_open(k, v)}

    def status(self, quiet_seconds: float) -> str:
        """ "done", "interrupted" or "failed" by its end; else "running", or "silent" where nothing comes any more.

        "starting": its record has no line yet.
        """
        ended = str(self.end.get("status", ""))
        if ended in ("done", "interrupted", "failed"):
            return ended
        if quiet_seconds >= SILENT_SECONDS:
            return "silent"
        return "running" if self.known else "starting"

    @property
    def progress(self) -> float | None:
        """Steps done of those expected, in [0, 1]; None where that is not known."""
        step, of = number(self._progress.get("step")), number(self._progress.get("of"))
        if not of >= 1:
            of = self._planned
        return min(1.0, max(0.0, step / of)) if of >= 1 and step >= 0 else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "results": {name: float(f"{value:.6g}") for name, value in self.results.items() if math.isfinite(value)},
            "progress": self.progress,
            "started": self.started,
            "command": self.command,
            "search": self.search,
            "trials": self._trials,
            "errors": self._counts["error"],
            "warnings": self._counts["warning"],
            "reason": plain(self.end.get("reason"), 300),
            "lost": self.curve.lost,
        }

    def curves(self) -> dict[str, Any]:
        columns = list(zip(*self.epochs, strict=True)) or [()] * 5
        names = ("steps", "train", "validation", "averaged", "seconds")
        rounded = ([float(f"{v:.5g}") if math.isfinite(v) else None for v in column] for column in columns)
        found = {**self.curve.as_dict(), "epochs": dict(zip(names, rounded, strict=True))}
        return found | {"scores": [float(f"{score:.5g}") for score in self.scores]} if self.search else found

    def _take(self, line: Line) -> None:
        kind = line["kind"]
        if kind == "run":
            self.end, self.schema = {}, line.get("schema", SCHEMA)
            started = number(line.get("started"))
            if math.isfinite(started):
                self.session = started
                self.started = started if self.started is None else self.started
            self.command = plain(line.get("command"), 500)
            request = mapping(line, "request")
            self.search = "search" in request
            self._setting("seed", line.get("seed"))
            self._setting("budget", request.get("budget"))
            data = request.get("data")
            self._setting("data", str(data).replace("\\", "/").rstrip("/").rpartition("/")[2] if data else None)
        elif kind == "plan":
            for name in ("model", "image_size", "batch_size"):
                self._setting(name, line.get(name))
            self._result("parameters", line.get("parameters"))
            self._planned = number(line.get("steps"))
        elif kind == "epoch":
            self._epoch(line)
        elif kind == "trial":
            self._trials += 1
            self.end = {}
            score = number(line.get("validation_accuracy"))
            if math.isfinite(score) and len(self.scores) < MOST_SCORES:
                self.scores.append(score)
            if score > self._best_trial or not math.isfinite(self._best_trial):
                self._best_trial = score
            if self.search:
                self._result("validation_accuracy", self._best_trial)
        elif kind == "probe" and line.get("chosen") is True:
            self._result("validation_accuracy", line.get("accuracy"))
        elif kind == "evaluation":
            split = plain(line.get("split"), 20)
            if split in ("test", "validation"):
                self._result(f"{split}_accuracy", line.get("accuracy"))
            if split == "test":
                self._result("calibration_error", line.get("calibration_error"))
        elif kind in ("finding", "alarm"):
            name, severity = str(line.get("id")), str(line.get("severity"))
            if name not in self._found and severity in self._counts:
                self._found.add(name)
                self._counts[severity] += 1
        elif kind == "end":
            self.end = line
            self._result("seconds", line.get("seconds"))

    def _epoch(self, line: Line) -> None:
        names = ("step", "train_accuracy", "validation_accuracy", "averaged_validation_accuracy", "seconds")
        values = tuple(number(line.get(name)) for name in names)
        if not values[0] >= 0:
            return
        while self.epochs and self.epochs[-1][0] >= values[0]:
            self.epochs.pop()
        self.epochs.append(values)
        if len(self.epochs) > 2 * MOST_EPOCHS:
            self.epochs = [*self.epochs[1:-1:2], self.epochs[-1]]
        best = max((v for row in self.epochs for v in row[2:4] if math.isfinite(v)), default=math.nan)
        self._result("validation_accuracy", max(best, number(self.results.get("validation_accuracy", -math.inf))))
        self._result("train_accuracy", values[1])
        now = max((v for v in values[2:4] if math.isfinite(v)), default=math.nan)
        self._result("gap", values[1] - now)
        self._result("validation_loss", line.get("validation_loss"))
        self._result("seconds", values[4])

    def _result(self, name: str, value: object) -> None:
        found = number(value)
        if math.isfinite(found):
            self.results[name] = found

    def _setting(self, name: str, value: object) -> None:
        shown = _shown(value)
        if shown is not None:
            self.settings[name] = shown


def _settings(text: str) -> dict[str, Value]:
    """The values of a TOML file by their short names; {} where it cannot be read."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}
    found: dict[str, Value] = {}
    for table, inside in [("", tables), *((k, v) for k, v in tables.items() if isinstance(v, dict))]:
        for key, value in inside.items():
            full = f"{table}.{key}" if table else key
            shown = _shown(value)
            if full in _HIDDEN or shown is None:
                continue
            name = _NAMED.get(full, key)
            found[plain(name if name not in found else full, 60)] = shown
    options = tables.get("model", {}).get("options") if isinstance(tables.get("model"), dict) else None
    for key, value in options.items() if isinstance(options, dict) else ():
        shown = _shown(value)
        if shown is not None:
            found.setdefault(plain(key, 60), shown)
    return found


def _shown(value: object) -> Value | None:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return plain(value, 120)
    if isinstance(value, list):
        return plain(", ".join(str(item) for item in value[:12]), 120) or None
    return None


def _is_open(name: str, value: Value) -> bool:
    return value == "auto" or (name, value) in _OPEN


def _parsed(raw: bytes) -> Line | None:
    try:
        value = json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "kind" in value else None

"""From the record to the data of the search's figures; nothing is drawn here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wellfit.report.curves import Floats, evenly
from wellfit.report.history import History, Line, mapping, texts
from wellfit.report.words import figure, number, plain

_BY_POWERS = ("lr", "weight_decay", "l1", "l2")


@dataclass(frozen=True)
class Trial:
    """One trial of the search; `accuracy` is NaN where it was never measured."""

    number: str
    stage: str
    state: str
    settings: dict[str, float]
    named: str  # all settings in words, those that are no numbers too
    accuracy: float
    best: bool
    steps: Floats
    losses: Floats
    choices: dict[str, str] = field(default_factory=dict)  # settings that are names
    continues: str = ""  # the trial whose checkpoint it took up
    epochs: float = math.nan
    reason: str = ""
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Search:
    """All trials with the ranges of each stage: {stage: {setting: (low, high)}}, in the order of the record.

    reasons: why each stage's ranges, then why its longer trials. importance: share of the spread of scores that each
    setting explains, the largest first; {} where it is not known.
    """

    trials: list[Trial]
    ranges: dict[str, dict[str, tuple[float, float]]]
    reasons: dict[str, list[str]]
    limit: float | None  # 3× the initial loss, at least 3 log C: trials above it are broken off (SPEC S3)
    importance: dict[str, float] = field(default_factory=dict)

    def varied(self) -> list[str]:
        """Numeric settings that differ between trials; lr and weight decay first."""
        names = {name for trial in self.trials for name in trial.settings}
        differing = [n for n in names if len({t.settings[n] for t in self.trials if n in t.settings}) > 1]
        first = {"lr": 0, "weight_decay": 1}
        return sorted(differing, key=lambda name: (first.get(name, 2), name))

    def chosen_names(self) -> list[str]:
        """Settings by name that differ between trials."""
        names = dict.fromkeys(name for trial in self.trials for name in trial.choices)
        return [n for n in names if len({t.choices[n] for t in self.trials if n in t.choices}) > 1]

    @property
    def broken_off(self) -> int:
        """How many trials were given up early."""
        return sum(trial.state == "pruned" for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        return next((trial for trial in self.trials if trial.best), None)


def search(history: History) -> Search | None:
    """Trials and stage ranges (SPEC S2-S5, S7)."""
    if not history.trials:
        return None
    accuracies = [_accuracy(line) for line in history.trials]
    finished = [
        a if line.get("state") == "finished" else math.nan for a, line in zip(accuracies, history.trials, strict=True)
    ]
    best = int(np.nanargmax(finished)) if np.isfinite(finished).any() else -1
    chosen = history.best.get("trial")  # a search weighs neighbours and lengths; the highest score may be luck
    if chosen is not None:
        best = next((i for i, line in enumerate(history.trials) if line.get("trial") == chosen), best)
    trials, first = [], []
    for i, (line, accuracy) in enumerate(zip(history.trials, accuracies, strict=True)):
        curve = line.get("curve")
        pairs = [p for p in curve if isinstance(p, list) and len(p) == 2] if isinstance(curve, list) else []
        table = np.array([[number(a), number(b)] for a, b in pairs], np.float64).reshape(-1, 2)
        if len(table) and math.isfinite(table[0, 1]):
            first.append(table[0, 1])
        table = table[evenly(len(table), 150)]
        trials.append(
            Trial(
                number=str(line.get("trial")),
                stage=str(line.get("stage")),
                continues="" if line.get("continues") is None else str(line.get("continues")),
                epochs=number(line.get("epochs")),
                state=str(line.get("state")),
                reason=str(line.get("reason") or ""),
                findings=tuple(texts(line, "findings")),
                settings=_numeric(mapping(line, "settings")),
                choices={_short(k): str(v) for k, v in mapping(line, "settings").items() if isinstance(v, str | bool)},
                named=_named(mapping(line, "settings")),
                accuracy=accuracy,
                best=i == best,
                steps=table[:, 0],
                losses=table[:, 1],
            )
        )
    ranges: dict[str, dict[str, tuple[float, float]]] = {}
    reasons: dict[str, list[str]] = {}
    for stage in history.stages:
        bounds = mapping(stage, "ranges").items()
        ends = {_short(k): (number(v[0]), number(v[1])) for k, v in bounds if isinstance(v, list) and len(v) == 2}
        name, why = str(stage.get("name")), str(stage.get("reason") or "")
        ranges[name] = {k: v for k, v in ends.items() if np.isfinite(v).all()}
        if why not in reasons.setdefault(name, []) and why:
            reasons[name].append(why)
    shares = {_short(k): number(v) for k, v in mapping(history.importance, "shares").items()}
    importance = {name: share for name, share in shares.items() if math.isfinite(share)}
    initial = max(float(np.median(first)), math.log(max(1, len(history.classes)))) if first else None
    return Search(trials, ranges, reasons, 3 * initial if initial is not None else None, importance)


def logarithmic(name: str, values: Sequence[float]) -> bool:
    """Whether a setting is read by its powers of ten: a rate or a penalty, and whatever spans a factor of 20."""
    positive = [value for value in values if value > 0]
    if not positive or min(values) < 0:
        return False
    return name in _BY_POWERS or max(positive) >= 20 * min(positive)


def _accuracy(line: Line) -> float:
    value = number(line.get("validation_accuracy"))
    return value if math.isfinite(value) else math.nan


def _numeric(settings: Line) -> dict[str, float]:
    values = {
        _short(k): number(v) for k, v in settings.items() if isinstance(v, int | float) and not isinstance(v, bool)
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _named(settings: Line) -> str:
    return ", ".join(
        f"{plain(_short(name), 30)} {plain(value, 30) if isinstance(value, str | bool) else figure(value)}"
        for name, value in list(settings.items())[:12]
    )


def _short(name: str) -> str:
    return str(name).rsplit(".", 1)[-1]

"""Which numbers of a record's line are logged, and what they are called there; the same in every tool."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from typing import Any, Protocol

from wellfit.record import RunFolder

Setting = str | int | float | bool

_STEP = {"loss": "loss", "lr": "lr", "images_per_second": "images_per_second", "wait": "wait"}
_EPOCH = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "validation_loss": "validation/loss",
    "validation_accuracy": "validation/accuracy",
    "averaged_validation_accuracy": "validation/accuracy_averaged",
}
_EVALUATION = ("accuracy", "balanced_accuracy", "macro_f1", "loss", "calibration_error")
_TRIAL = ("validation_accuracy", "validation_loss", "epochs", "seconds")
_OPEN = ("auto", "", 0, -1)  # what a configuration leaves to wellfit


class Tracker(Protocol):
    """What an adapter can do. It may raise anything at any time: the feed says so once, and the run goes on."""

    def begin(self, folder: RunFolder, settings: dict[str, Setting], about: dict[str, str], resumed: bool) -> str:
        """Open a run, or go on with it; returns where it can be looked at, in words."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Figures of a step of the training."""

    def trial(self, number: int, settings: dict[str, Setting], values: dict[str, float], curve: list[Any]) -> None:
        """One trial of a search; curve: [[step, loss], …]."""

    def text(self, name: str, text: str) -> None:
        """A sentence that belongs to the run."""

    def end(self, status: str, settings: dict[str, Setting], values: dict[str, float]) -> None:
        """The last call. status: "done", "interrupted" or "failed". values: what the run came to."""


def of_step(line: Mapping[str, Any]) -> dict[str, float]:
    """Loss, rate and speed of a step, and the update ratio of each parameter where it was measured."""
    values = _named(line, _STEP)
    ratios = line.get("update_ratio")
    if isinstance(ratios, Mapping):
        values |= _named(ratios, {name: f"update_ratio/{name}" for name in ratios})
    return values


def of_epoch(line: Mapping[str, Any]) -> dict[str, float]:
    return _named(line, _EPOCH)


def of_evaluation(line: Mapping[str, Any]) -> dict[str, float]:
    """As "test/accuracy", with both ends of its interval."""
    split = line.get("split")
    values = _named(line, {name: f"{split}/{name}" for name in _EVALUATION})
    bounds = line.get("interval")
    if isinstance(bounds, list | tuple) and len(bounds) == 2:
        ends = {"low": bounds[0], "high": bounds[1]}
        values |= _named(ends, {name: f"{split}/accuracy_{name}" for name in ends})
    return values


def of_trial(line: Mapping[str, Any]) -> dict[str, float]:
    return _named(line, {name: name for name in _TRIAL})


def settings_of(folder: RunFolder) -> dict[str, Setting]:
    """config.toml in one level ("optimizer.lr": 0.1), without what is still left to wellfit."""
    try:
        asked = tomllib.loads(folder.config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in _flat("", asked) if isinstance(value, bool) or value not in _OPEN}


def flat(settings: Mapping[str, Any]) -> dict[str, Setting]:
    """Settings of a trial in one level."""
    return dict(_flat("", settings))


def _flat(before: str, values: Mapping[str, Any]) -> list[tuple[str, Setting]]:
    found: list[tuple[str, Setting]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(f"{before}{key}.", value)
        elif isinstance(value, str | int | float | bool):
            found.append((f"{before}{key}", value))
        elif value is not None:
            found.append((f"{before}{key}", str(value)))
    return found


def _named(line: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    """The numbers of a line under their new names. A loss that is not finite is a number too: it is worth seeing."""
    values = {}
    for key, name in names.items():
        value = line.get(key)
        if value is None or isinstance(value, bool):
            continue
        try:
            values[name] = float(value)
        except (TypeError, ValueError):
            continue
    return {name: value for name, value in values.items() if not math.isnan(value) or name.endswith("loss")}

"""What one training of a trial said and came to: its curve, what the rules see on it, its line in the record."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from wellfit.diagnosis.history import Epoch, History
from wellfit.diagnosis.rules import judge
from wellfit.search.trial import Trial

BREAK_OFF = 3.0  # times the initial loss (SPEC S3)
CURVE_POINTS = 100  # of the loss curve that the record keeps


@dataclass
class Curve:
    """What one training said: takes the loop's lines as a record does, and keeps them in memory."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)

    def write(self, kind: str, **fields: Any) -> None:
        if kind == "step":
            self.steps.append({name: fields[name] for name in ("step", "loss", "lr")})
        elif kind == "epoch":
            self.epochs.append({name: fields[name] for name in fields if name not in ("seconds", "confusion")})

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.steps]

    def findings(self, classes: int) -> list[str]:
        """Ids of what the rules see on the curve, root cause first (SPEC S1 row 6); none without a step."""
        if not self.steps:
            return []
        names = {"train_loss": "train_loss", "train_accuracy": "train_accuracy"}
        names |= {"val_loss": "validation_loss", "val_accuracy": "validation_accuracy"}
        epochs = [Epoch(int(e["step"]), **{own: e.get(given) for own, given in names.items()}) for e in self.epochs]
        history = History(self.losses, [line["lr"] for line in self.steps], epochs=epochs, classes=classes)
        return [finding.id for finding in judge(history)[0]]

    def as_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "epochs": self.epochs}


@dataclass
class OneRun:
    """One training of a trial. score and loss: None where it was broken off, and why in `reason`."""

    curve: Curve
    images: int
    epochs: float
    scored: int
    training: float = 0.0  # seconds, those of judging left out
    score: float | None = None
    loss: float | None = None
    reason: str = ""


def line_of(trial: Trial, runs: list[OneRun]) -> dict[str, Any]:
    """The fields of a trial's line in the record; the curve is that of its first run."""
    curve = runs[0].curve if runs else Curve()
    pairs = [[line["step"], line["loss"]] for line in curve.steps]
    thinned = pairs[:: max(1, len(pairs) // CURVE_POINTS)]
    return {
        "stage": trial.stage,
        "trial": trial.number,
        "rung": trial.rung,
        "epochs": trial.epochs,
        "continues": trial.continues,
        "settings": trial.settings,
        "state": trial.state,
        "validation_accuracy": trial.score,
        "validation_loss": trial.loss,
        "error": trial.error,
        "reason": trial.reason,
        "runs": len(runs),
        "curve": thinned if not pairs or thinned[-1] == pairs[-1] else [*thinned, pairs[-1]],
        "epoch_curve": curve.epochs,
        "findings": list(trial.findings),
        "images": trial.images,
        "seconds": trial.seconds,
        "training": trial.training,
        "ended": trial.ended,
        "threads": torch.get_num_threads(),
        "worker": trial.worker,
    }


def broken_off(curve: Curve, least: float) -> str:
    """Why a training was given up, in words; least: the loss of guessing."""
    last, first = curve.steps[-1], max(curve.steps[0]["loss"], least)
    if not math.isfinite(last["loss"]):
        return f"the loss was no number at step {last['step']:,}"
    return f"the loss rose to {last['loss']:.3g} at step {last['step']:,}, above {BREAK_OFF:g} × {first:.3g}"

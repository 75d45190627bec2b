"""What follows from a stage's trials: the best, whether it lies at an edge, and the next, finer space.

Pure functions of the trials, so that every narrowing can be written down with its reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from wellfit.findings import Finding
from wellfit.search.space import Choice, LogUniform, Space

WIDEN = 10.0  # how far a range is moved out on the side where the best value sits at the edge
NARROW = 3.0  # half-width of the fine range, as a factor
CHANCE = 0.5  # standard errors of a difference of local averages: below it, the default is kept
NEIGHBOURS = 0.15  # decades of learning rate over which scores are averaged


@dataclass(frozen=True)
class Trial:
    """One short run. score: what is maximised, on validation; None when it was broken off or failed."""

    stage: str
    number: int
    settings: dict[str, Any]
    state: str  # "finished", "pruned" or "failed"
    score: float | None = None
    error: float = 0.0  # standard error of the score, from the number of validation images
    loss: float | None = None


@dataclass
class Narrowing:
    """The next space, why, and what is worrying about the stage."""

    space: Space
    reason: str
    findings: list[Finding] = field(default_factory=list)


def best_trial(trials: list[Trial]) -> Trial | None:
    """Highest score; equal scores are told apart by validation loss. None when no trial finished."""
    finished = [t for t in trials if t.score is not None]
    if not finished:
        return None
    return max(finished, key=lambda t: (t.score, -(t.loss if t.loss is not None else 0.0), -t.number))


def winner(trials: list[Trial], default: Trial | None) -> tuple[Trial | None, str]:
    """The trial to train with, and why: the default is kept unless another is ahead by more than chance.

    Trials are compared by the local average of their scores over the learning rate, since the best of many single
    scores is best by luck as much as by its settings.
    """
    finished = [trial for trial in trials if trial.score is not None]
    if not finished:
        return default, "no trial finished"
    around = [(local_average(trial, trials), trial) for trial in finished]
    (high, high_error), best = max(around, key=lambda pair: (pair[0][0], -pair[1].number))
    if default is None or default.score is None:
        return best, "the default settings did not finish"
    own, own_error = local_average(default, trials)
    margin = CHANCE * (high_error**2 + own_error**2) ** 0.5
    if high - own > margin:
        return best, f"{high:.3f} against {own:.3f} around the default, more than chance ({margin:.3f})"
    return default, f"the best trials' {high:.3f} is within chance ({margin:.3f}) of the default's {own:.3f}"


def local_average(trial: Trial, trials: list[Trial]) -> tuple[float, float]:
    """Score and its standard error around a trial: trials of about the same learning rate and alike otherwise.

    The weight of another trial falls as a Gaussian of the distance in log10(lr), of width NEIGHBOURS. One that was
    broken off counts as 0: a rate beside a cliff is no good rate.
    """
    total = score = variance = 0.0
    for other in trials:
        if _choices(other) != _choices(trial):
            continue
        distance = math.log10(float(other.settings.get("lr", 1.0)) / float(trial.settings.get("lr", 1.0)))
        weight = math.exp(-0.5 * (distance / NEIGHBOURS) ** 2)
        total, score = total + weight, score + weight * (other.score or 0.0)
        variance += (weight * other.error) ** 2
    return score / total, math.sqrt(variance) / total


def _choices(trial: Trial) -> dict[str, Any]:
    return {name: value for name, value in trial.settings.items() if isinstance(value, str)}


def narrow(space: Space, trials: list[Trial], stage: str) -> Narrowing:
    """The space around the best of the stage's trials; a side where the best sits at the edge is widened (SPEC S4)."""
    best = best_trial(trials)
    if best is None:
        lowered: Space = {
            name: LogUniform(kind.low / WIDEN, kind.low * NARROW)
            if name == "lr" and isinstance(kind, LogUniform)
            else kind
            for name, kind in space.items()
        }
        return Narrowing(lowered, f"no {stage} trial finished, so lower learning rates are tried")
    narrowed: Space = {}
    findings: list[Finding] = []
    parts: list[str] = []
    for name, kind in space.items():
        value = best.settings[name]
        if isinstance(kind, Choice):
            narrowed[name] = kind
            continue
        finer = kind.around(value, NARROW)
        side = kind.edge(value)
        if side is not None:
            finer = (
                LogUniform(value / WIDEN, value * NARROW)
                if side == "low"
                else LogUniform(value / NARROW, value * WIDEN)
            )
            findings.append(_at_edge(name, value, kind, side, finer, stage))
            parts.append(f"{name} {value:.2g} lies at the {side} edge of {kind}, so that side is widened to {finer}")
        else:
            parts.append(f"{name} narrowed from {kind} to {finer} around {value:.2g}")
        narrowed[name] = finer
    top = sorted((t for t in trials if t.score is not None), key=lambda t: -(t.score or 0.0))[:3]
    named = ", ".join(f"trial {t.number} ({t.score:.3f})" for t in top)
    return Narrowing(narrowed, f"best of {len(trials)} {stage} trials: {named}; " + "; ".join(parts), findings)


def diverged(trials: list[Trial], initial_loss: float) -> Finding | None:
    """Says which trials were broken off above 3× the initial loss (SPEC S3)."""
    pruned = [t for t in trials if t.state == "pruned"]
    if not pruned:
        return None
    lowest = min(float(t.settings.get("lr", 0.0)) for t in pruned)
    return Finding(
        "diverged-trials",
        "info",
        f"{len(pruned)} of {len(trials)} trials were broken off because their loss rose above three times the initial "
        f"{initial_loss:.2f}; the lowest learning rate among them was {lowest:.2g}",
        {"pruned": [t.number for t in pruned], "lowest_lr": lowest, "initial_loss": initial_loss},
        "Nothing to do: these learning rates are too high for this network and data.",
        "CS231n, hyperparameter search; SPEC S3",
    )


def _at_edge(name: str, value: float, kind: LogUniform, side: str, finer: LogUniform, stage: str) -> Finding:
    return Finding(
        "best-at-edge",
        "warning",
        f"the best {name} of the {stage} stage, {value:.2g}, lies at the {side} edge of its range {kind}",
        {
            "setting": name,
            "value": value,
            "range": [kind.low, kind.high],
            "side": side,
            "widened": [finer.low, finer.high],
        },
        f"The next stage looks further out, from {finer}; if the best stays at the edge, widen the range again.",
        "CS231n, hyperparameter search; SPEC S4",
    )

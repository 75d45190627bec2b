"""What follows from a stage's trials: the best, whether it lies at an edge, and the next, finer space.

Pure functions of the trials, so that every narrowing can be written down with its reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from wellfit.findings import Finding
from wellfit.search.smoothing import smoothed
from wellfit.search.space import LogUniform, Space
from wellfit.search.trial import Trial

WIDEN = 10.0  # how far a range is moved out on the side where the best value sits at the edge
NARROW = 3.0  # half-width of the fine range, as a factor


@dataclass
class Narrowing:
    """The next space, why, and what is worrying about the stage."""

    space: Space
    reason: str
    findings: list[Finding] = field(default_factory=list)


def best_trial(trials: list[Trial]) -> Trial | None:
    """Of those that finished, the one that is expected to score highest, its neighbours' scores considered.

    Equal ones are told apart by validation loss, then the first is taken. None when no trial finished.
    """
    place = _place_of_best(trials, smoothed(trials))
    return None if place is None else trials[place]


def _place_of_best(trials: list[Trial], expected: list[tuple[float, float]]) -> int | None:
    finished = [i for i, trial in enumerate(trials) if trial.score is not None]
    if not finished:
        return None
    return max(finished, key=lambda i: (expected[i][0], -(trials[i].loss or 0.0), -trials[i].number))


def winner(trials: list[Trial], default: Trial | None) -> tuple[Trial | None, str]:
    """The trial to train with, and why: of those that finished, the highest expected score among its neighbours.

    default: the trial of the settings that would be used without a search; None where it was not run. It is kept
    unless another is expected to do better by more than is doubtful: short trials favour higher rates than long
    trainings bear, and the defaults were found in long ones.
    """
    expected = smoothed(trials)
    place = _place_of_best(trials, expected)
    if place is None:
        return default, "no trial finished"
    best = trials[place]
    if default is None or default.score is None:
        return best, "the default settings did not finish"
    if best.settings == default.settings:
        return default, "no trial is expected to do better than the default"
    (high, high_doubt), (own, own_doubt) = expected[place], expected[trials.index(default)]
    gain, doubt = high - own, math.hypot(high_doubt, own_doubt)
    said = f"lr {best.settings['lr']:.3g} is expected to score {gain:.3f} (± {doubt:.3f}) above the default"
    return (best, said) if gain > doubt else (default, f"{said}, which is too little to leave it")


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
        if not isinstance(kind, LogUniform) or name not in best.settings:
            narrowed[name] = kind
            continue
        value = best.settings[name]
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

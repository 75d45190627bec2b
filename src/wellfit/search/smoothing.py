"""What a setting is worth, judged by all trials around it: a Gaussian process over the logarithm of the rates.

The best of many single scores is best by luck as much as by its settings; neighbours share the luck out
(Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", equations 2.23 and 2.24).
"""

from __future__ import annotations

import math

import numpy as np

from wellfit.search.trial import Trial

REACH = {"lr": 0.4, "weight_decay": 1.0}  # decades over which scores are alike
SEED_NOISE = 0.01  # how far two runs of the same settings differ, validation images apart
LEAST_SPREAD = 0.02  # of true scores: where all trials look alike, they are still allowed to differ by so much
FLOOR = 0.5  # of a stage's best score: what lies lower, or was broken off, is poor, and how poor does not matter


def smoothed(trials: list[Trial]) -> list[tuple[float, float]]:
    """Each trial's expected score among its neighbours, and the standard deviation of what is not known of it.

    Stages of other lengths have levels of their own: what is returned is relative to the level of a trial's stage,
    so that values of all stages can be compared. Trials that were broken off count as poor ones.
    """
    if not trials:
        return []
    stages = sorted({trial.stage for trial in trials})
    best = {s: max((t.score for t in trials if t.stage == s and t.score is not None), default=0.0) for s in stages}
    scores = np.array([max(t.score or 0.0, FLOOR * best[t.stage]) for t in trials])
    level = {s: float(np.mean([y for y, t in zip(scores, trials, strict=True) if t.stage == s])) for s in stages}
    centred = scores - np.array([level[t.stage] for t in trials])
    spread = max(LEAST_SPREAD, float(np.std(centred)))
    alike = np.array([[_likeness(a.settings, b.settings) for b in trials] for a in trials]) * spread**2
    same_stage = np.array([[float(a.stage == b.stage) for b in trials] for a in trials])
    noise = np.diag([t.error**2 + SEED_NOISE**2 for t in trials])
    # The mean of a stage's scores depends on where its trials lay: a wide offset takes the error out again.
    observed = alike + 100 * spread**2 * same_stage + noise
    mean = alike @ np.linalg.solve(observed, centred)
    variance = np.diag(alike - alike @ np.linalg.solve(observed, alike))
    return [(float(m), math.sqrt(max(0.0, v))) for m, v in zip(mean, variance, strict=True)]


def _likeness(a: dict[str, object], b: dict[str, object]) -> float:
    """1 for equal settings, falling as a Gaussian of the distance in decades; 0 where a choice differs."""
    exponent = 0.0
    for name in a.keys() | b.keys():
        x, y = a.get(name), b.get(name)
        if isinstance(x, int | float) and isinstance(y, int | float):
            exponent += (math.log10(x / y) / REACH.get(name, 1.0)) ** 2 if x != y else 0.0
        elif x != y:
            return 0.0
    return math.exp(-0.5 * exponent)

"""Choosing the members of an ensemble by what their mean says of the validation images. (numpy)

Caruana, Niculescu-Mizil, Crew, Ksikes 2004, "Ensemble selection from libraries of models": begin with the best, then
add whichever improves the mean most, one already chosen as readily as a new one, for as long as validation gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wellfit.errors import UserError
from wellfit.inference.evaluate import softmax
from wellfit.inference.gain import Gain, Judged, gain, judge

MOST_STEPS = 20  # one member counts at most this many times over another
MOST_MEMBERS = 5  # each costs a pass over every image that is ever judged


@dataclass(frozen=True)
class Step:
    """One member added. judged: the mean from then on; gain: over the mean before."""

    member: int
    judged: Judged
    gain: Gain


@dataclass(frozen=True)
class Selection:
    """weights: one a candidate, summing to 1, 0 for those left out. steps: in their order, the best candidate first."""

    weights: np.ndarray
    steps: list[Step]

    @property
    def chosen(self) -> list[int]:
        return np.flatnonzero(self.weights).tolist()

    @property
    def single(self) -> Judged:
        """The best candidate alone."""
        return self.steps[0].judged

    @property
    def judged(self) -> Judged:
        return self.steps[-1].judged

    @property
    def gain(self) -> Gain:
        """Of the whole over its best member alone."""
        return gain(self.single, self.judged)


def mean_answers(answers: Sequence[np.ndarray], weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Logarithms N×C of the weighted mean of the softmax probabilities of several N×C answers."""
    used = [(float(w), each) for w, each in zip(weights, answers, strict=True) if w > 0]
    total = sum(w for w, _ in used)
    if not used:
        raise UserError("a mean is taken of at least one member, got none with a positive weight; give one")
    return np.log(np.maximum(sum(w / total * softmax(each) for w, each in used), np.finfo(np.float64).tiny))


def greedy(
    answers: Sequence[np.ndarray], targets: np.ndarray, metric: str, *, most_members: int = MOST_MEMBERS
) -> Selection:
    """Which candidates to average, and how much each counts.

    answers: one N×C table of logits or log probabilities a candidate, on the same N images; targets: N class numbers.
    metric: one of SCORES; it chooses the first member. A step is taken for as long as the log loss falls by more than
    its standard error; a step that adds weight to a member already there costs nothing at prediction.
    """
    if not answers:
        raise UserError("an ensemble is chosen among candidates, got none; give at least one")
    judged = [judge(each, targets, metric) for each in answers]
    best = max(range(len(answers)), key=lambda i: (judged[i].score, -judged[i].loss))
    counts = np.zeros(len(answers))
    counts[best] = 1
    steps = [Step(best, judged[best], Gain(0.0, 0.0, 0.0))]
    probabilities = [softmax(each) for each in answers]
    total = probabilities[best].copy()
    while counts.sum() < MOST_STEPS:
        full = np.count_nonzero(counts) >= most_members
        tried = [i for i in range(len(answers)) if counts[i] or not full]
        after = [judge(_logs((total + probabilities[i]) / (counts.sum() + 1)), targets, metric) for i in tried]
        place = min(range(len(tried)), key=lambda k: after[k].loss)
        step = Step(tried[place], after[place], gain(steps[-1].judged, after[place]))
        if not step.gain.loss > step.gain.error:
            break
        steps.append(step)
        counts[step.member] += 1
        total += probabilities[step.member]
    return Selection(counts / counts.sum(), steps)


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))

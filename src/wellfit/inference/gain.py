"""Whether a change of a model helps, by the validation images: what a member or a view is kept by (SPEC E4). (numpy)

The score alone is too coarse: one image of a few hundred moves it. The log loss tells more from the same images, image
by image; it is taken after each side has the temperature that suits it, since a mean of probabilities is less sure of
itself than what it is the mean of, and that is no fault.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellfit.inference.evaluate import SCORES, softmax
from wellfit.inference.metrics import fit_temperature

TEMPERATURE_PRIOR = 0.5  # of ln T: a temperature outside 0.4 to 2.7 needs more evidence than a small validation set has
LEAST = np.log(1e-12)  # answers are log probabilities or logits; none is less likely than this


@dataclass(frozen=True)
class Judged:
    """Answers on some images: their score by the run's metric, their mean log loss, and each image's own."""

    score: float
    loss: float
    losses: np.ndarray

    def beats(self, other: Judged) -> bool:
        """Higher score, or the same with a lower loss."""
        return (self.score, -self.loss) > (other.score, -other.loss)


@dataclass(frozen=True)
class Gain:
    """What `after` has over `before` on the same images. loss: by how much it falls; error: that fall's standard error.

    helps: the score rises, and the loss falls by more than its error. harmless: neither is worse.
    """

    score: float
    loss: float
    error: float

    @property
    def helps(self) -> bool:
        return self.score > 0 and self.loss > self.error

    @property
    def harmless(self) -> bool:
        return self.score >= 0 and self.loss >= 0


def judge(answers: np.ndarray, targets: np.ndarray, metric: str) -> Judged:
    """answers: N×C logits or log probabilities; targets: N class numbers; metric: one of SCORES."""
    table = np.maximum(answers.astype(np.float64) - answers.max(1, keepdims=True), LEAST)
    temperature = fit_temperature(table, targets, prior_width=TEMPERATURE_PRIOR)
    likely = softmax(table / temperature)[np.arange(len(targets)), targets]
    losses = -np.log(np.maximum(likely, np.exp(LEAST)))
    score = SCORES[metric](targets, answers.argmax(1), answers.shape[1])
    return Judged(float(score), float(losses.mean()), losses)


def gain(before: Judged, after: Judged) -> Gain:
    """Paired over the images, which both have been judged on in the same order."""
    fall = before.losses - after.losses
    error = float(fall.std(ddof=1) / np.sqrt(len(fall))) if len(fall) > 1 else np.inf
    return Gain(after.score - before.score, float(fall.mean()), error)

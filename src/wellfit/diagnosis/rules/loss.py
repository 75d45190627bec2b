"""Rules that need no more than the loss of every step: nan, exploding, not-learning."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis.history import History, level
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import (
    EXPLODED,
    PATIENCE,
    guesses_better_than_chance,
    has_no_floor,
    impossible_class,
    is_flat,
    is_waking,
    knows_nothing,
    stands_still,
    start_and_end,
    was_brief,
    weight_growth,
)
from wellfit.diagnosis.rules.step_lengths import goes_uphill
from wellfit.findings import Finding

# Weights this many times as long as at the start, and as at half the run: healthy ones stay below two.
GROWN, LATELY = 6.0, 3.0
# What was a hundred times its start and did not come back there has exploded, too.
STILL_HIGH = 1.1
# `rates.lr_too_high` judges from so many steps on.
JUDGED = 20


def nan(h: History) -> Finding | None:
    step = h.first_bad_step
    if step is None:
        bad = next((s.step for s in h.samples if np.isinf(s.gradient_norm).any()), None)
        if bad is None:
            return None
        return Finding(
            "nan",
            "error",
            f"a gradient was not finite at step {bad}, while the loss still was",
            {"step": bad},
            "Clip the gradient norm, lower the learning rate, or train in bfloat16 or float32 instead of float16",
            "SPEC C5, C9",
        )
    before = h.finite_loss
    seen = f"; the last finite loss was {before[-1]:.4g}" if len(before) else ""
    grew = len(before) > 0 and before[-5:].max() > 2 * h.reference_loss
    return Finding(
        "nan",
        "error",
        f"the loss became {h.loss[step]} at step {step}{seen}",
        {"step": step, "last_finite": float(before[-1]) if len(before) else None, "grew_before": bool(grew)},
        "Lower the learning rate tenfold and start again"
        if grew
        else "Look for NaN in the images, a logarithm of 0 or a division by 0; then lower the learning rate",
        "SPEC C5, C9",
    )


def exploding(h: History) -> Finding | None:
    loss, start = h.finite_loss, h.reference_loss
    if len(loss) < 3:
        return None
    if has_no_floor(h):
        return Finding(
            "exploding",
            "error",
            f"the loss fell from {loss[0]:.4g} to {loss[-1]:.4g}: no loss of class answers lies below zero, so that "
            "something without a floor is subtracted from it",
            {"start": float(loss[0]), "lowest": float(loss.min())},
            "Look at the sign of each term of the loss: a penalty is added",
            "SPEC C9, R1",
        )
    # Three steps in a row, so that one odd batch is no explosion; or so high that no batch explains it.
    triples = np.minimum(np.minimum(loss[:-2], loss[1:-1]), loss[2:])
    end, high = level(loss[-10:]), loss.max() >= EXPLODED**2 * start
    ended_high = h.first_bad_step is not None or end > 3 * start or (high and end > STILL_HIGH * start)
    if ended_high and start > 0 and (triples.max() >= EXPLODED * start or high):
        step = int(np.argmax(loss >= EXPLODED * start))
        # What a rate did that has long been lowered is past: lr-too-high says as an error what is wrong now. Where it
        # holds its peace, since no rate is to blame, nothing else would.
        by_rate = len(loss) >= JUDGED and not goes_uphill(h) and impossible_class(h) is None
        past = by_rate and h.first_bad_step is None and was_brief(h, int(np.argmax(loss)))
        return Finding(
            "exploding",
            "info" if past else "error",
            f"the loss rose from {start:.4g} to {loss.max():.4g}; it passed ten times its start at step {step}",
            {"start": start, "highest": float(loss.max()), "step": step},
            "Lower the learning rate tenfold; when that does not help, look at the sign of loss and gradient, then at "
            "the scale of input and weights",
            "SPEC C9, S3",
        )
    norms = np.array([s.total_gradient for s in h.finite_samples])
    norms = norms[np.isfinite(norms)]
    if len(norms) >= 6 and level(norms[-3:]) > 100 * level(norms[:3]) and level(loss[-10:]) > start:
        return Finding(
            "exploding",
            "error",
            f"the gradient norm grew from {level(norms[:3]):.3g} to {level(norms[-3:]):.3g}",
            {"gradient_norm_first": level(norms[:3]), "gradient_norm_last": level(norms[-3:])},
            "Clip the gradient norm and lower the learning rate tenfold",
            "SPEC C7",
        )
    grown, lately = weight_growth(h)
    if grown > GROWN and lately > LATELY and end > start:
        return Finding(
            "exploding",
            "error",
            f"the weights grow and grow: they are {grown:.3g} times as long as after the first steps and {lately:.3g} "
            "times as long as at half the run, and the loss is above its start",
            {"growth": grown, "growth_since_the_middle": lately, "start": start, "end": end},
            "Look at the sign of weight decay and penalties and at a momentum of one or more; then lower the rate",
            "SPEC C9, R1",
        )
    return None


def not_learning(h: History) -> Finding | None:
    if stands_still(h) and not h.warming_up:
        return Finding(
            "not-learning",
            "error",
            f"in {len(h.losses)} steps no weight got a gradient, and none has moved",
            {"steps": len(h.losses), "moved": 0},
            "Look for zero_grad() between backward() and step(), for a backward() that is never reached, and for "
            "detach(), item() or no_grad() on the way to the loss",
            "SPEC C4, C6, C9",
        )
    if not (is_flat(h) or knows_nothing(h)) or h.warming_up or is_waking(h) or guesses_better_than_chance(h):
        return None
    (start, end), n = start_and_end(h), len(h.losses)
    return Finding(
        "not-learning",
        "error",
        f"after {n} steps the loss is {end:.4g}, it started at {start:.4g}",
        {"steps": n, "start": start, "end": end, "chance": h.chance_loss},
        "Check that a sample of 20 images can be learned by heart; then try learning rates from 1e-5 to 1e-1",
        "SPEC C4, C6, C9",
    )


RULES = {
    "nan": Rule(nan, (needs.steps(1),)),
    "exploding": Rule(exploding, (needs.steps_or_bad(10, above_zero=False),)),
    "not-learning": Rule(not_learning, (needs.either(needs.steps_or_bad(PATIENCE), needs.no_gradient),)),
}

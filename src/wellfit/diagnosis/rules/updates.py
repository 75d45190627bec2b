"""Rules about gradients and updates of each parameter: none, tiny, vanishing on the way, left over."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wellfit.diagnosis.history import History, Sample, level
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import (
    STILL_STEPS,
    has_collapsed,
    has_learned,
    is_blank,
    is_flat,
    knows_nothing,
    moved_at_all,
    share_left,
    weights_shrank,
)
from wellfit.diagnosis.rules.step_lengths import first_update, has_second_moment, median_ratio
from wellfit.diagnosis.rules.wording import listed
from wellfit.findings import Finding

# SPEC C8: about 1e-3 is wanted. Two decades below are sick.
SMALL = 5e-5
# A step of this share of a weight shows in it, whatever it is stored in.
SEEN = 0.01
# A step of more than this share of the others', relative to the weights, is as easily seen; a gradient of less an entry
# is none to Adam.
ALIKE, FELT = 0.3, 1e-6
# What is left of a loss of which much is left.
MUCH_LEFT = 0.3
# A gradient that fell to this share of the first was lost on the way, and takes the updates with it.
DIED = 0.1
# The last watched steps that must all agree.
PATIENCE = 5
# Of so many watched steps three must have carried an old gradient.
RECENT = 5
# A warm-up whose steps are that small after twice as many is no warm-up (SPEC C6: about 100 show a fall).
PATIENCE_OF_WARM_UP = 100
# Of the whole gradient: all but one of some 440 healthy trainings gave their first layers more at the start.
VANISHED, FAINT = 7e-3, 1e-3
# Where nothing was learned a little more is still too little.
VANISHED_FOR_NOTHING = 9e-3


def recent(h: History, n: int = PATIENCE) -> list[Sample]:
    """The last watched steps at a full learning rate; fewer than `n` are none."""
    seen = [s for s in h.finite_samples if h.at_full_rate(s.step)]
    return seen[-n:] if len(seen) >= n else []


def updates_too_small(h: History) -> Finding | None:
    window = recent(h)
    if not window or has_learned(h):
        return None
    ratios = [median_ratio(h, s) for s in window]
    if h.warming_up and len(h.losses) < 2 * PATIENCE_OF_WARM_UP:
        return None
    gradients = [gradient_of_weights(h, s) for s in window]
    # Exactly zero is too small to show in the weights where there is a gradient; where there is none, that is it.
    if not all(r < SMALL for r in ratios) or not min(gradients) > 0:
        return None
    if vanishing_gradient(h) is not None or level(np.array(gradients)) < DIED * level(
        np.array([gradient_of_weights(h, s) for s in h.finite_samples[:3]])
    ):
        return None
    return Finding(
        "updates-too-small",
        "warning",
        f"at the last {len(window)} watched steps the updates were at most {max(ratios):.1g} of the weights",
        {"update_ratio": ratios, "limit": SMALL, "wanted": 1e-3},
        "Raise the learning rate tenfold; when that changes nothing, look at what else divides the step: clipping, "
        "eps, the mean of the loss",
        "SPEC C8",
    )


def gradient_of_weights(h: History, sample: Sample) -> float:
    """Norm of the typical weight tensor's gradient."""
    norms = sample.gradient_norm[h.weights]
    norms = norms[np.isfinite(norms)]
    return float(np.median(norms)) if len(norms) else 0.0


def frozen_parameters(h: History) -> Finding | None:
    """Parameters that require a gradient and have not moved by a single bit since watching began."""
    samples = h.finite_samples
    if not samples or samples[-1].step < STILL_STEPS or (len(h.lrs) and h.lr.max() == 0):
        return None
    moved = moved_at_all(h)
    gradients = np.array([s.gradient_norm for s in samples])
    without = np.isnan(gradients).all(0)
    zero = np.nansum(gradients, axis=0) == 0
    if is_blank(h):
        return None  # without a difference between images there is no gradient to move by
    # Behind dead units all gradients are zero: that is the finding then. And a step may be too small to be seen.
    dead = any(layer.dead is not None and layer.dead > 0.9 for layer in samples[-1].layers)
    held = _would_move(h, moved)
    still = [
        i
        for i, p in enumerate(h.parameters)
        if p.requires_grad and not moved[i] and (not p.in_optimizer or without[i] or (zero[i] and not dead) or held[i])
    ]
    if not still:
        return None
    names = [h.parameters[i].name for i in still]
    outside = [i for i in still if not h.parameters[i].in_optimizer]
    if len(outside) == len(still):
        why = "not in the optimizer"
    elif all(held[i] for i in still):
        why = "though the loss gives them a gradient, as where the learning rate of their group is 0"
    else:
        why = "without a gradient from the loss"
    return Finding(
        "frozen-parameters",
        "warning",
        f"{len(names)} of {len(h.parameters)} parameters never moved in {samples[-1].step + 1} steps, "
        f"{why}: {listed(names, 3)}",
        {"parameters": names[:50], "count": len(names), "not_in_optimizer": len(outside)},
        "Give them to the optimizer, or look for detach() and no_grad() on their way to the loss; what is to stay "
        "frozen wants requires_grad=False, which saves time and memory too",
        "SPEC C8",
    )


def _would_move(h: History, moved: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """For each parameter: whether a step at the rate of those that moved would be seen in it, time and again."""
    if not len(h.lrs):
        return np.zeros(len(h.parameters), bool)
    gradients = np.array([s.gradient_norm for s in h.finite_samples])
    weights = np.array([s.weight_norm for s in h.finite_samples])
    updates = np.array([s.update_norm for s in h.finite_samples])
    steps = h.lr.max() * gradients
    seen = (steps > SEEN * weights) & (np.mean(moved) > 0.5)
    # Where the first step shows what steps are made of, those of the others tell what is large enough to be seen.
    first = first_update(h)
    if first is not None and (first.like_sgd or first.like_adam):
        roots = np.sqrt([p.size for p in h.parameters])
        # Where gradients have about one an entry the first step is like either.
        if first.like_adam and (not first.like_sgd or has_second_moment(h)):
            steps = np.where(gradients > FELT * roots, h.lr.max() * roots, 0.0)
        usual = [level(row[row > 0]) for row in updates / np.maximum(weights, 1e-30)]
        seen |= steps > ALIKE * np.array(usual)[:, None] * weights
    return np.asarray(np.mean(seen, axis=0) > 0.5)


def vanishing_gradient(h: History) -> Finding | None:
    """The first layers get next to nothing of the gradient: from the first step on, for a good while or to the end."""
    seen = [s for s in h.finite_samples if s.total_gradient > 0]
    if len(seen) < PATIENCE or len(h.weights) < 3 or has_collapsed(h) or weights_shrank(h):
        return None  # where the answers collapsed, so did the gradient
    shares = np.array([_share_of_first_layers(h, s) for s in seen])
    # Exactly zero is no small number: nothing comes through at all, which dead units or detach() explain.
    limit = VANISHED_FOR_NOTHING if is_flat(h) or knows_nothing(h) else VANISHED
    small = (shares > 0) & (shares < limit)
    lasted = len(small) if small.all() else int(np.argmin(small))
    until = seen[lasted - 1].step if lasted else 0
    # A net that grows out of it soon may have been slow to begin; one that began with next to nothing was held up.
    faint = len(shares) >= 3 and shares[:3].min() > 0 and shares[:3].max() < FAINT
    faint &= share_left(h) > MUCH_LEFT and not h.warming_up
    if not faint and (lasted < PATIENCE or (lasted < len(seen) and until < max(50, 0.1 * len(h.losses)))):
        return None
    names = [h.parameters[i].name for i in h.weights]
    share = level(shares[: max(3, lasted)])
    return Finding(
        "vanishing-gradient",
        "warning",
        f"the gradient of {names[0]} and its neighbours is {share:.1g} of the whole gradient"
        + (f", until step {until}" if lasted < len(seen) else ""),
        {"shares": shares.tolist(), "first": names[0], "until": until, "limit": limit},
        "Use ReLU instead of sigmoid or tanh, Kaiming initialisation, BatchNorm or residual connections",
        "SPEC C7",
    )


def _share_of_first_layers(h: History, sample: Sample) -> float:
    """Gradient norm of the typical weight in the first quarter of the layers, as a share of the whole gradient's."""
    norms = sample.gradient_norm[h.weights]
    norms = norms[np.isfinite(norms)]
    return float(np.median(norms[: max(1, len(norms) // 4)])) / sample.total_gradient if len(norms) >= 3 else math.nan


def gradients_accumulate(h: History) -> Finding | None:
    seen = [s.carried for s in h.samples if s.carried is not None]
    # Zeroed now and then, as once an epoch, is still not before each backward pass.
    if sum(seen[-RECENT:]) < 3 or not any(seen[-2:]):
        return None
    return Finding(
        "gradients-accumulate",
        "error",
        f"at {sum(seen)} of {len(seen)} watched steps the old gradient was still there when the next backward began",
        {"checked": len(seen), "carried": sum(seen)},
        "Call optimizer.zero_grad() once before each backward pass",
        "SPEC C7",
    )


RULES = {
    "frozen-parameters": Rule(frozen_parameters, (needs.samples(3), needs.watched_at(20))),
    "gradients-accumulate": Rule(gradients_accumulate, (needs.samples(3), needs.carried)),
    "vanishing-gradient": Rule(vanishing_gradient, (needs.samples(PATIENCE),)),
    "updates-too-small": Rule(updates_too_small, (needs.samples(PATIENCE),)),
}

"""Rules about gradients and updates of each parameter."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis.history import History, Sample, level
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import has_collapsed, is_blank, median_ratio, weights_shrank
from wellfit.findings import Finding

# SPEC C8: about 1e-3 is wanted, 1e-2 is about okay. Two decades below and one above are sick.
SMALL = 1e-5
LARGE = 0.1
# The last watched steps that must all agree.
PATIENCE = 5
# First to last layer: the ratio of gradient norms below which nothing arrives at the first layers.
VANISHED = 1e-3


def recent(h: History, n: int = PATIENCE) -> list[Sample]:
    """The last watched steps at a full learning rate; fewer than `n` are none."""
    seen = [s for s in h.finite_samples if h.at_full_rate(s.step)]
    return seen[-n:] if len(seen) >= n else []


def updates_too_small(h: History) -> Finding | None:
    window = recent(h)
    if not window or h.warming_up or _has_learned(h):
        return None
    ratios = [median_ratio(h, s) for s in window]
    if not all(0 < r < SMALL for r in ratios):  # exactly zero: dead units or frozen parameters, other findings
        return None
    if max(median_ratio(h, s) for s in h.finite_samples[:PATIENCE]) > 10 * SMALL:
        return None  # they were larger once: gradients died, for which there are other findings
    return Finding(
        "updates-too-small",
        "warning",
        f"at the last {len(window)} watched steps the updates were at most {max(ratios):.1g} of the weights",
        {"update_ratio": ratios, "limit": SMALL, "wanted": 1e-3},
        "Raise the learning rate tenfold; when gradients are zero, look at the layers above",
        "SPEC C8",
    )


def updates_too_large(h: History) -> Finding | None:
    window = recent(h)
    if not window or window[0].step < 20:
        return None  # weights that start near zero grow out of their first large updates
    ratios = [median_ratio(h, s) for s in window]
    if not all(r > LARGE for r in ratios):
        return None
    return Finding(
        "updates-too-large",
        "warning",
        f"at the last {len(window)} watched steps the updates were at least {min(ratios):.1g} of the weights",
        {"update_ratio": ratios, "limit": LARGE, "wanted": 1e-3},
        "Lower the learning rate tenfold",
        "SPEC C8",
    )


def frozen_parameters(h: History) -> Finding | None:
    """Parameters that require a gradient and have not moved by a single bit since watching began."""
    samples = h.finite_samples
    if not samples or samples[-1].step < 20 or (len(h.lrs) and h.lr.max() == 0):
        return None
    moved = np.sum([s.update_norm for s in samples], axis=0) > 0
    gradients = np.array([s.gradient_norm for s in samples])
    without = np.isnan(gradients).all(0)
    zero = np.nansum(gradients, axis=0) == 0
    if is_blank(h):
        return None  # without a difference between images there is no gradient to move by
    # Behind dead units all gradients are zero: that is the finding then. And a step may be too small to be seen.
    dead = any(layer.dead is not None and layer.dead > 0.9 for layer in samples[-1].layers)
    still = [
        i
        for i, p in enumerate(h.parameters)
        if p.requires_grad and not moved[i] and (not p.in_optimizer or without[i] or (zero[i] and not dead))
    ]
    if not still:
        return None
    names = [h.parameters[i].name for i in still]
    outside = [i for i in still if not h.parameters[i].in_optimizer]
    why = "not in the optimizer" if len(outside) == len(still) else "without a gradient from the loss"
    return Finding(
        "frozen-parameters",
        "warning",
        f"{len(names)} of {len(h.parameters)} parameters never moved in {samples[-1].step + 1} steps, "
        f"{why}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}",
        {"parameters": names[:50], "count": len(names), "not_in_optimizer": len(outside)},
        "Give them to the optimizer, or look for detach() and no_grad() on their way to the loss; what is to stay "
        "frozen wants requires_grad=False, which saves time and memory too",
        "SPEC C8",
    )


def vanishing_gradient(h: History) -> Finding | None:
    window = recent(h)
    if not window or has_collapsed(h) or weights_shrank(h):
        return None  # where the answers collapsed, so did the gradient
    window = h.finite_samples[:3] + window  # it never arrived, or something else came in between
    norms = np.array([s.gradient_norm[h.weights] for s in window])
    reached = np.isfinite(norms).all(0)
    norms, weights = norms[:, reached], h.weights[reached]
    if len(weights) < 4:
        return None
    quarter = max(1, len(weights) // 4)
    last = np.median(norms[:, -quarter:], axis=1)
    ratios = np.median(norms[:, :quarter], axis=1)[last > 0] / last[last > 0]
    # Exactly zero is no small number: nothing comes through at all, which dead units or detach() explain.
    if len(ratios) < len(window) or not ((ratios > 0) & (ratios < VANISHED)).all():
        return None
    names = [h.parameters[i].name for i in weights]
    return Finding(
        "vanishing-gradient",
        "warning",
        f"the gradient of {names[0]} is {level(ratios):.1g} of that of {names[-1]}",
        {"ratios": ratios.tolist(), "first": names[0], "last": names[-1], "limit": VANISHED},
        "Use ReLU instead of sigmoid or tanh, Kaiming initialisation, BatchNorm or residual connections",
        "SPEC C7",
    )


def gradients_accumulate(h: History) -> Finding | None:
    seen = [s.carried for s in h.samples if s.carried is not None]
    if len(seen) < 3 or not all(seen[-3:]):
        return None
    return Finding(
        "gradients-accumulate",
        "error",
        f"at {sum(seen)} of {len(seen)} watched steps the old gradient was still there when the next backward began",
        {"checked": len(seen), "carried": sum(seen)},
        "Call optimizer.zero_grad() once before each backward pass",
        "SPEC C7",
    )


def _has_learned(h: History) -> bool:
    loss = h.finite_loss
    start = max(level(loss[:10]), h.chance_loss or 0.0)
    return len(loss) < 20 or level(loss[-20:]) < 0.8 * start


RULES = {
    "frozen-parameters": Rule(frozen_parameters, (needs.samples(3),)),
    "gradients-accumulate": Rule(gradients_accumulate, (needs.samples(3), needs.carried)),
    "vanishing-gradient": Rule(vanishing_gradient, (needs.samples(PATIENCE),)),
    "updates-too-small": Rule(updates_too_small, (needs.samples(PATIENCE),)),
    "updates-too-large": Rule(updates_too_large, (needs.samples(PATIENCE),)),
}

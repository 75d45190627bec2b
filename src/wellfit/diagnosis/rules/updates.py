"""Rules about gradients and updates of each parameter."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wellfit.diagnosis.history import History, Sample, level
from wellfit.diagnosis.rules import epochs, needs, swings
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import (
    EXPLODED,
    RISEN,
    begins_saturated,
    has_collapsed,
    is_blank,
    is_cross_entropy,
    is_flat,
    knows_nothing,
    rose_beyond,
    share_left,
    was_brief,
    weight_growth,
    weights_shrank,
)
from wellfit.diagnosis.rules.step_lengths import (
    FIRST,
    decay_at_a_step,
    first_update,
    forgetful,
    longer_at_once,
    median_ratio,
    of_one_size,
    promised_share,
    ratios,
    swapped,
)
from wellfit.diagnosis.rules.swings import one_class_at_a_time
from wellfit.findings import Finding

# SPEC C8: about 1e-3 is wanted, 1e-2 is about okay. Two decades below and one above are sick.
SMALL = 5e-5
LARGE = 0.08
LARGE_FOR_NOTHING, HALF, STANDING = 0.05, 0.5, 0.95
# First updates that a net recovers from, or not; updates that are long where the loss jumps.
WILD, LEARNED, MUCH_LEFT = 0.12, 0.05, 0.3
LONG = 0.025
# A validation loss that rises by so much of the reference from epoch to epoch and stands so far above training's,
# while so much of that is left, is thrown about by steps that are too long.
LEAP, ABOVE, POOR, LEAPING = 0.2, 0.5, 0.3, 0.02
OVERWRITING = 0.19
BLOWN_UP = 100.0
# Steps that take so much of the weights throw the loss at once.
OVERWRITING_AT_ONCE, MANY_TIMES = 0.12, 10.0
# Steps that promise to first order more than there is to gain overshoot; a weight decay of this share a step, too.
OVERSHOOTING, DECAYING = 1.0, 0.01
# A step of this share of a weight shows in it, whatever it is stored in.
SEEN = 0.01
# Steps of one size that take so much of the weights, where the loss rose by so much or little is learned.
ONE_SIZE, HARMED = 0.02, 1.5
# Weights of which less is left than half a run before.
SHRUNK_LATELY = 0.2
# A step of more than this share of the others', relative to the weights, is as easily seen; a gradient of less an entry
# is none to Adam.
ALIKE, FELT = 0.3, 1e-6
# The first steps, whose updates may be large, end here.
EARLY = 20
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
    if not window or _has_learned(h):
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


def updates_too_large(h: History) -> Finding | None:
    """Steps that overwrite the weights, or shorter ones whose loss shows that they are too long."""
    return (
        long_steps(h)
        or _lengthened(h)
        or _forgetting(h)
        or _of_one_size(h)
        or _overshooting(h)
        or _decaying(h)
        or _shrinking(h)
        or _unsettling(h)
    )


def _lengthened(h: History) -> Finding | None:
    """From one step on all are longer, and the loss has risen, at a rate with which training went well."""
    longer = longer_at_once(h)
    if longer is None:
        return None
    return Finding(
        "updates-too-large",
        "warning",
        f"from step {longer.step} on the updates are {longer.after / longer.before:.3g} times as large as before "
        f"({longer.after:.2g} of the weights) at the same rate, and the loss has risen with them",
        {"step": longer.step, "before": longer.before, "after": longer.after, "wanted": 1e-3},
        "Look at what changes there: a loss that is summed, scaled or weighted otherwise, clipping, another batch size",
        "SPEC C8",
    )


def _forgetting(h: History) -> Finding | None:
    """An optimizer that divides each step by a size which it forgets faster than the step itself."""
    group = forgetful(h)
    if group is None or group.second is None:
        return None
    # Forgetting fast alone may do well.
    if not swapped(group) and not rose_beyond(h, RISEN) and (len(h.losses) < PATIENCE_OF_WARM_UP or _has_learned(h)):
        return None
    beside = f" and {group.momentum:.4g} of its first" if swapped(group) else ""
    return Finding(
        "updates-too-large",
        "warning",
        f"{group.name} keeps {group.second:.4g} of its second moment from step to step{beside} (0.99 to 0.999 are "
        "usual, more than of the first): steps are divided by the size of the last gradients alone",
        {"optimizer": group.name, "second": group.second, "momentum": group.momentum},
        "Set the betas (or alpha) back to their defaults",
        "SPEC C8, O6",
    )


def _of_one_size(h: History) -> Finding | None:
    """Steps whose size has nothing to do with the gradient's, long enough to harm."""
    size, longest = of_one_size(h), float(np.max(ratios(h)[:EARLY], initial=0.0))
    harm = rose_beyond(h, HARMED) or (len(h.losses) >= PATIENCE_OF_WARM_UP and share_left(h) > HALF)
    if not size or longest < ONE_SIZE or not harm:
        return None
    return Finding(
        "updates-too-large",
        "warning",
        f"each step is {size}, whatever its gradient, and took up to {longest:.2g} of the weights at the start",
        {"size": size, "longest": longest, "wanted": 1e-3},
        "Lower the rate tenfold: it counts for more here than in SGD or Adam; LARS wants a trust coefficient of 1e-3",
        "SPEC C8",
    )


def _shrinking(h: History) -> Finding | None:
    """Something takes the weights away, and what was learned with them."""
    grown, lately = weight_growth(h)
    if lately > SHRUNK_LATELY or grown > SHRUNK_LATELY or _has_learned(h):
        return None
    return Finding(
        "updates-too-large",
        "warning",
        f"the weights are {lately:.2g} of what they were at half the run, and nothing that was learned is left: "
        "something decays them",
        {"growth": grown, "growth_since_the_middle": lately},
        "Look for a weight decay by hand, without the rate, or for a penalty that is far too strong",
        "SPEC C8, R1",
    )


def _overshooting(h: History) -> Finding | None:
    """Steps that promise, by the gradient's slope, to lower the loss by more than all of it."""
    share, seen = promised_share(h), [median_ratio(h, s) for s in h.finite_samples]
    # Where all blows up at once, the weights must have been moved far: a slope may be as steep without that.
    blown = rose_beyond(h, EXPLODED)
    moved = any(r > LONG for r in seen[:FIRST]) if blown else any(r > SEEN for r in seen) and _has_settled(h)
    if not share > OVERSHOOTING or begins_saturated(h) or not moved:
        return None
    return Finding(
        "updates-too-large",
        "warning",
        f"a quarter of the steps went so far along the gradient that its slope promised a fall of {share:.2g} times "
        "the whole loss: they overshoot",
        {"promised_share": share, "limit": OVERSHOOTING, "update_ratio": seen[:200], "wanted": 1e-3},
        "Lower the learning rate tenfold, or look at what else makes the steps long: a loss that is summed or scaled",
        "SPEC C8",
    )


def _has_settled(h: History) -> bool:
    """Whether the first steps, which may go far, have had the time to be made good."""
    return len(h.losses) >= PATIENCE_OF_WARM_UP or level(h.finite_loss[-10:]) > h.reference_loss


def _decaying(h: History) -> Finding | None:
    """Weight decay alone moves the weights by more than a training should."""
    share = decay_at_a_step(h)
    if share < DECAYING or _has_learned(h):
        return None
    return Finding(
        "updates-too-large",
        "warning",
        f"weight decay takes {share:.2g} of the weights away at every step, and the loss has not fallen",
        {"decay_at_a_step": share, "limit": DECAYING, "wanted": 1e-3},
        "Lower the weight decay: 1e-4 to 1e-2 are usual",
        "SPEC C8, R1",
    )


def _unsettling(h: History) -> Finding | None:
    """A wild start that was not made good, or long steps all along with a loss that jumps."""
    blown = h.first_bad_step is not None or rose_beyond(h, RISEN)
    if blown or len(h.weights) < 2 or has_collapsed(h) or one_class_at_a_time(h) is not None:
        return None
    pairs = [(s.step, median_ratio(h, s)) for s in h.finite_samples if h.at_full_rate(s.step)]
    early = np.array([ratio for step, ratio in pairs if step <= EARLY and np.isfinite(ratio)])
    later = np.array([ratio for step, ratio in pairs if step >= EARLY and np.isfinite(ratio)])
    # Less than this many steps are no time to make it good.
    waited = len(h.losses) >= PATIENCE_OF_WARM_UP
    wild = waited and len(early) >= 3 and level(early) > WILD and share_left(h) > MUCH_LEFT
    often = float(np.percentile(later, 75)) if len(later) >= PATIENCE else 0.0
    # Where validation stands still, too, the rate has done its work and wants a decay: that is another finding.
    jumps = often > LONG and any(swings.RULES[name].fires(h) for name in ("oscillating", "loss-spike"))
    leaps = not jumps and often > LEAPING and _leaps(h)
    if wild:
        said, limit, outcome = level(early), WILD, "what they overwrote was not made good"
    elif (jumps or leaps) and not epochs.RULES["plateau"].fires(h):
        said, limit = often, LONG if jumps else LEAPING
        outcome = "the loss jumps" if jumps else "the validation loss leaps from epoch to epoch"
    else:
        return None
    return Finding(
        "updates-too-large",
        "warning",
        f"{'the first updates were' if wild else 'a quarter of the updates and more were'} {said:.2g} of the weights, "
        f"and {outcome}",
        {"update_ratio": [ratio for _, ratio in pairs][:200], "limit": limit, "wanted": 1e-3},
        "Lower the learning rate to a third",
        "SPEC C8",
    )


def _leaps(h: History) -> bool:
    """Whether validation is thrown about from epoch to epoch while training has learned little by heart."""
    train, val = epochs.curves(h, "train_loss", "val_loss")
    if len(val) < 3:
        return False
    rises, above = np.diff(val).max(), (val - train)[1:].max()
    poor = train[-1] > POOR * h.reference_loss
    return bool(rises > LEAP * h.reference_loss and above > ABOVE * h.reference_loss and poor)


def long_steps(h: History) -> Finding | None:
    """Steps that overwrite the weights: from the start, for long, or where they bring nothing."""
    pairs = [(s.step, median_ratio(h, s)) for s in h.finite_samples if h.at_full_rate(s.step)]
    pairs = [(step, ratio) for step, ratio in pairs if np.isfinite(ratio)]
    if rose_beyond(h, BLOWN_UP):
        # Where all has blown up, so have the updates: the cause are those before the loss rose. Where the first
        # took many times the weights, the rate is.
        risen = int(np.argmax(h.finite_loss > RISEN * h.reference_loss))
        pairs = [(step, ratio) for step, ratio in pairs if step < risen]
        if not pairs or pairs[0][1] > MANY_TIMES or max(ratio for _, ratio in pairs) < OVERWRITING_AT_ONCE:
            return None
    elif len(pairs) < PATIENCE or pairs[-1][0] < EARLY:
        return None
    steps, ratios = np.array([step for step, _ in pairs]), np.array([ratio for _, ratio in pairs])
    # Weights that start near zero grow out of their first large updates, and so do Adam's; not for this long.
    early, later = ratios[steps <= EARLY], ratios[steps >= EARLY]
    at_first = len(early) >= 3 and level(early) > OVERWRITING and len(h.weights) > 1
    at_first &= share_left(h) > LEARNED and _has_settled(h)
    at_first |= float(early.max(initial=0.0)) > OVERWRITING_AT_ONCE and len(pairs) < PATIENCE
    lasting = len(later) >= PATIENCE and float(np.sort(later)[-PATIENCE]) > LARGE
    little = not _has_learned(h) or (share_left(h) > HALF and _stands(h))
    for_nothing = len(later) >= PATIENCE and level(later) > LARGE_FOR_NOTHING and little
    if not (at_first or lasting or for_nothing):
        return None
    if len(pairs) < PATIENCE:
        said = float(early.max())
    else:
        said = level(early) if at_first else float(np.sort(later)[-PATIENCE]) if lasting else level(later)
    # Those of a rate that has long been lowered are past; what they left behind is what is wrong now.
    return Finding(
        "updates-too-large",
        "info" if was_brief(h, int(steps[ratios > LARGE].max(initial=0))) else "warning",
        f"at {'the first' if at_first else 'many'} of {len(ratios)} watched steps the updates were {said:.2g} of the "
        "weights and more",
        {"update_ratio": ratios[:200].tolist(), "limit": LARGE, "wanted": 1e-3},
        "Lower the learning rate tenfold",
        "SPEC C8",
    )


def frozen_parameters(h: History) -> Finding | None:
    """Parameters that require a gradient and have not moved by a single bit since watching began."""
    samples = h.finite_samples
    if not samples or samples[-1].step < 20 or (len(h.lrs) and h.lr.max() == 0):
        return None
    moved = np.sum([s.update_norm for s in samples], axis=0) > 0
    # A branch may be used between two watched steps alone.
    for sample in samples:
        moved |= False if sample.moved is None else sample.moved
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
        f"{why}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}",
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
        if first.like_adam and (not first.like_sgd or any(g.second is not None for g in h.groups)):
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


def _stands(h: History) -> bool:
    """Whether the second half of the run brought next to nothing."""
    loss = h.finite_loss
    middle = len(loss) // 2
    return middle >= EARLY and level(loss[-EARLY:]) > STANDING * level(loss[middle - EARLY // 2 : middle + EARLY // 2])


def _has_learned(h: History) -> bool:
    losses = h.finite_loss
    # Chance counts where the loss is known to be measured against it: one divided by a constant starts below.
    start = max(level(losses[:10]), (h.chance_loss or 0.0) if is_cross_entropy(h) else 0.0)
    return len(losses) < 20 or level(losses[-20:]) < 0.8 * start


RULES = {
    "frozen-parameters": Rule(frozen_parameters, (needs.samples(3), needs.watched_at(20))),
    "gradients-accumulate": Rule(gradients_accumulate, (needs.samples(3), needs.carried)),
    "vanishing-gradient": Rule(vanishing_gradient, (needs.samples(PATIENCE),)),
    "updates-too-small": Rule(updates_too_small, (needs.samples(PATIENCE),)),
    "updates-too-large": Rule(updates_too_large, (needs.samples(PATIENCE),)),
}

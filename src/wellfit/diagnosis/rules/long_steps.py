"""The rule updates-too-large: steps that overwrite the weights, and what made them so long."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis.history import History, level
from wellfit.diagnosis.rules import epochs, needs, swings
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import (
    EXPLODED,
    RISEN,
    begins_saturated,
    has_collapsed,
    has_learned,
    rose_beyond,
    share_left,
    was_brief,
    weight_growth,
)
from wellfit.diagnosis.rules.step_lengths import (
    FIRST,
    by_something_else,
    decay_at_a_step,
    entries_by_rate,
    forgetful,
    longer_at_once,
    longer_little_by_little,
    median_ratio,
    of_one_size,
    promised_share,
    ratios,
    ratios_by_step,
    swapped,
)
from wellfit.diagnosis.rules.swings import one_class_at_a_time
from wellfit.findings import Finding

# SPEC C8: about 1e-3 is wanted, 1e-2 is about okay. One decade above is sick.
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
# A step of this share of a weight shows.
SEEN = 0.01
# Steps of one size that take so much of the weights, where the loss rose by so much or little is learned.
ONE_SIZE, HARMED = 0.02, 1.5
# Entries that move by more times the rate than Adam's or RMSprop's do.
MOST_OF_THE_RATE = 1.2
# Weights of which less is left than half a run before.
SHRUNK_LATELY = 0.2
# The first steps, whose updates may be large, end here.
EARLY = 20
# The last watched steps that must all agree, and the steps after which a start has been made good.
PATIENCE, SETTLED = 5, 100


def updates_too_large(h: History) -> Finding | None:
    """Steps that overwrite the weights, or shorter ones whose loss shows that they are too long."""
    return (
        long_steps(h)
        or _lengthened(h)
        or _growing(h)
        or _forgetting(h)
        or _of_one_size(h)
        or _beyond_the_rate(h)
        or _overshooting(h)
        or _decaying(h)
        or _shrinking(h)
        or _unsettling(h)
    )


def long_steps(h: History) -> Finding | None:
    """Steps that overwrite the weights: from the start, for long, or where they bring nothing."""
    pairs = ratios_by_step(h)
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
    little = not has_learned(h) or (share_left(h) > HALF and _stands(h))
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


def _warning(message: str, evidence: dict[str, object], action: str, *, also: str = "") -> Finding:
    """also: the row of SPEC that the cause belongs to."""
    return Finding(
        "updates-too-large",
        "warning",
        message,
        evidence,
        action,
        f"SPEC C8, {also}" if also else "SPEC C8",
    )


def _lengthened(h: History) -> Finding | None:
    """From one step on all are longer, and the loss has risen, at a rate with which training went well."""
    longer = longer_at_once(h)
    if longer is None:
        return None
    return _warning(
        f"from step {longer.step} on the updates are {longer.after / longer.before:.3g} times as large as before "
        f"({longer.after:.2g} of the weights) at the same rate, and the loss has risen with them",
        {"step": longer.step, "before": longer.before, "after": longer.after, "wanted": 1e-3},
        "Look at what changes there: a loss that is summed, scaled or weighted otherwise, clipping, another batch size",
    )


def _growing(h: History) -> Finding | None:
    """Steps that grow little by little at a rate that does not, and undo what was learned."""
    grown = longer_little_by_little(h)
    # What is back where it began, or beyond, has another cause, which makes the steps long as well.
    if grown is None or not LEARNED < share_left(h) < STANDING:
        return None
    before, after = grown
    return _warning(
        f"the updates grew from {before:.2g} to {after:.2g} of the weights at a rate that did not rise, and the loss "
        "has risen with them",
        {"before": before, "after": after, "wanted": 1e-3},
        "Look at what scales the loss or the gradients more and more: a loss scale that is never divided out, sums",
    )


def _forgetting(h: History) -> Finding | None:
    """An optimizer that divides each step by a size which it forgets faster than the step itself."""
    group = forgetful(h)
    if group is None or group.second is None:
        return None
    # Forgetting fast alone may do well.
    if not swapped(group) and not rose_beyond(h, RISEN) and (len(h.losses) < SETTLED or has_learned(h)):
        return None
    beside = f" and {group.momentum:.4g} of its first" if swapped(group) else ""
    return _warning(
        f"{group.name} keeps {group.second:.4g} of its second moment from step to step{beside} (0.99 to 0.999 are "
        "usual, more than of the first): steps are divided by the size of the last gradients alone",
        {"optimizer": group.name, "second": group.second, "momentum": group.momentum},
        "Set the betas (or alpha) back to their defaults",
        also="O6",
    )


def _of_one_size(h: History) -> Finding | None:
    """Steps whose size has nothing to do with the gradient's, long enough to harm."""
    size, longest = of_one_size(h), float(np.max(ratios(h)[:EARLY], initial=0.0))
    harm = rose_beyond(h, HARMED) or (len(h.losses) >= SETTLED and share_left(h) > HALF)
    if not size or longest < ONE_SIZE or not harm:
        return None
    return _warning(
        f"each step is {size}, whatever its gradient, and took up to {longest:.2g} of the weights at the start",
        {"size": size, "longest": longest, "wanted": 1e-3},
        "Lower the rate tenfold: it counts for more here than in SGD or Adam; LARS wants a trust coefficient of 1e-3",
    )


def _beyond_the_rate(h: History) -> Finding | None:
    """Steps that neither the gradient nor the rate explains, long enough to be in the way of learning."""
    times, usual = entries_by_rate(h), level(ratios(h))
    if len(h.losses) < SETTLED or share_left(h) < MUCH_LEFT:
        return None
    if times > MOST_OF_THE_RATE and usual > SEEN:
        said = f"the typical entry moves {times:.2g} times as far at a step as the rate allows"
        action = "Lower the rate; in an optimizer of your own, look for 1 - beta at its moments, and their correction"
    elif by_something_else(h) and usual > ONE_SIZE and _stands(h):
        said = "the steps are far longer than the rate times the gradient"
        action = "Look for what else moves the weights: a decay without the rate, a trust coefficient, noise"
    else:
        return None
    return _warning(
        f"{said}: {usual:.2g} of the weights, while {share_left(h):.0%} of the loss is left",
        {"update_ratio": usual, "entries_by_rate": times, "wanted": 1e-3},
        action,
    )


def _overshooting(h: History) -> Finding | None:
    """Steps that promise, by the gradient's slope, to lower the loss by more than all of it."""
    share, seen = promised_share(h), [median_ratio(h, s) for s in h.finite_samples]
    # Where all blows up at once, the weights must have been moved far: a slope may be as steep without that.
    blown = rose_beyond(h, EXPLODED)
    moved = any(r > LONG for r in seen[:FIRST]) if blown else any(r > SEEN for r in seen) and _has_settled(h)
    if not share > OVERSHOOTING or begins_saturated(h) or not moved:
        return None
    return _warning(
        f"a quarter of the steps went so far along the gradient that its slope promised a fall of {share:.2g} times "
        "the whole loss: they overshoot",
        {"promised_share": share, "limit": OVERSHOOTING, "update_ratio": seen[:200], "wanted": 1e-3},
        "Lower the learning rate tenfold, or look at what else makes the steps long: a loss that is summed or scaled",
    )


def _decaying(h: History) -> Finding | None:
    """Weight decay alone moves the weights by more than a training should."""
    share = decay_at_a_step(h)
    if share < DECAYING or has_learned(h):
        return None
    return _warning(
        f"weight decay takes {share:.2g} of the weights away at every step, and the loss has not fallen",
        {"decay_at_a_step": share, "limit": DECAYING, "wanted": 1e-3},
        "Lower the weight decay: 1e-4 to 1e-2 are usual",
        also="R1",
    )


def _shrinking(h: History) -> Finding | None:
    """Something takes the weights away, and what was learned with them."""
    grown, lately = weight_growth(h)
    if lately > SHRUNK_LATELY or grown > SHRUNK_LATELY or has_learned(h):
        return None
    return _warning(
        f"the weights are {lately:.2g} of what they were at half the run, and nothing that was learned is left: "
        "something decays them",
        {"growth": grown, "growth_since_the_middle": lately},
        "Look for a weight decay by hand, without the rate, or for a penalty that is far too strong",
        also="R1",
    )


def _unsettling(h: History) -> Finding | None:
    """A wild start that was not made good, or long steps all along with a loss that jumps."""
    blown = h.first_bad_step is not None or rose_beyond(h, RISEN)
    if blown or len(h.weights) < 2 or has_collapsed(h) or one_class_at_a_time(h) is not None:
        return None
    pairs = ratios_by_step(h)
    early = np.array([ratio for step, ratio in pairs if step <= EARLY])
    later = np.array([ratio for step, ratio in pairs if step >= EARLY])
    # Less than this many steps are no time to make it good.
    waited = len(h.losses) >= SETTLED
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
    return _warning(
        f"{'the first updates were' if wild else 'a quarter of the updates and more were'} {said:.2g} of the weights, "
        f"and {outcome}",
        {"update_ratio": [ratio for _, ratio in pairs][:200], "limit": limit, "wanted": 1e-3},
        "Lower the learning rate to a third",
    )


def _leaps(h: History) -> bool:
    """Whether validation is thrown about from epoch to epoch while training has learned little by heart."""
    train, val = epochs.curves(h, "train_loss", "val_loss")
    if len(val) < 3:
        return False
    rises, above = np.diff(val).max(), (val - train)[1:].max()
    poor = train[-1] > POOR * h.reference_loss
    return bool(rises > LEAP * h.reference_loss and above > ABOVE * h.reference_loss and poor)


def _has_settled(h: History) -> bool:
    """Whether the first steps, which may go far, have had the time to be made good."""
    return len(h.losses) >= SETTLED or level(h.finite_loss[-10:]) > h.reference_loss


def _stands(h: History) -> bool:
    """Whether the second half of the run brought next to nothing."""
    loss = h.finite_loss
    middle = len(loss) // 2
    return middle >= EARLY and level(loss[-EARLY:]) > STANDING * level(loss[middle - EARLY // 2 : middle + EARLY // 2])


RULES = {"updates-too-large": Rule(updates_too_large, (needs.samples(PATIENCE),))}

"""Rules about the network's answers: double-softmax, constant-output, class-collapsed, imbalance-ignored."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wellfit.diagnosis.history import History, Output, level
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import (
    DIFFERED,
    cut_off_behind,
    entropy_of_classes,
    impossible_class,
    is_waking,
    never_learned,
    weights_shrank,
)
from wellfit.diagnosis.rules.step_lengths import coarse_at_first
from wellfit.diagnosis.rules.wording import listed
from wellfit.findings import Finding

PATIENCE = 3
# Answers this alike over a batch do not depend on the image (a standard deviation of probabilities).
ALIKE = 1e-3
# A loss agrees with a formula within this share; label smoothing and weight decay move it less than that.
AGREES = 0.02
EXACT = 1e-4
# Of a class of which a whole run shows a few images only, this many must have come.
HANDFUL = 3
# Watched steps whose predictions are counted together, and how many images of a class make its absence telling.
COUNTED, STEPS, FEW_STEPS = 8, 60, 40
# Early on every net says few classes.
STEPS_TO_COLLAPSE = 100
SELDOM = 0.25
ENOUGH_IMAGES = 10
# Classes that come less than half as often as they would in equal shares: right less than this share as often as the
# others, which are told apart, and not by chance; images of them from which on no chance is reckoned.
FEW_TALLIES, IGNORED, TOLD_APART, BY_CHANCE, MOST = 5, 0.25, 0.4, 1e-3, 500
# One class is nearly every answer, though no class is most of the images, at a loss of less than this share of what it
# costs to know nothing, and of what it was.
ALL_OF_THEM, MOST_OF_THEM, HARDLY, FELL = 0.99, 0.6, 0.6, 0.5
# A net that says each other class at least this often for each time it comes has found them all; of so many images
# of a class, one at least would then be taken for it.
ALSO_SAID = 0.2
MANY_IMAGES = 25


FOR_RARE = "Weight the loss by class, or draw rare classes more often"


def recent(h: History, n: int) -> list[tuple[float, Output]]:
    """Loss and output of the last `n` watched steps with a finite loss; fewer are none."""
    loss = h.loss
    seen = [(float(loss[s.step]), s.output) for s in h.samples if s.output is not None and s.step < len(loss)]
    seen = [pair for pair in seen if math.isfinite(pair[0])]
    return seen[-n:] if len(seen) >= n else []


def double_softmax(h: History) -> Finding | None:
    window = recent(h, PATIENCE)
    if not window:
        return None
    width = window[-1][1].width
    floor = math.log(1 + (width - 1) / math.e)
    # Two readings may agree by chance at one step, and do where answers are all alike; the exact one tells them apart.
    exactly = all(
        out.as_twice is not None
        and out.as_logits is not None
        and abs(loss - out.as_twice) < min(EXACT * loss, 0.1 * abs(loss - out.as_logits))
        for loss, out in window
    )
    if exactly or (
        all(_near(loss, out.as_twice) for loss, out in window)
        and not all(_near(loss, out.as_logits) for loss, out in window)
    ):
        what = f"the loss ({window[-1][0]:.3g}) is that of answers which went through softmax before"
        action = "Hand the model's answers to the cross-entropy loss as they are: it takes the softmax itself"
    elif _is_read_as_logits(window, floor):
        what = f"the outputs are probabilities already, and the loss ({window[-1][0]:.3g}) takes their softmax again"
        action = "Remove the softmax from the model: the cross-entropy loss wants logits"
    else:
        return None
    return Finding(
        "double-softmax",
        "error",
        f"{what}: it cannot fall below {floor:.3g}",
        {"loss": window[-1][0], "floor": floor, "classes": width},
        action,
        "SPEC C9",
    )


def _is_read_as_logits(window: list[tuple[float, Output]], floor: float) -> bool:
    """Whether answers that are probabilities are taken for logits.

    With targets the loss itself says how it read the outputs. Without, or where label smoothing or a penalty blurs
    it: the answers are sure and yet the loss keeps above the floor that a second softmax makes.
    """
    if not all(out.probabilities for _, out in window):
        return False
    width = window[-1][1].width
    read_right = [_near(loss, out.as_probabilities) for loss, out in window]
    read_as_logits = all(_near(loss, out.as_logits) for loss, out in window) and not all(read_right)
    at_floor = all(0.98 * floor <= loss <= 1.2 * math.log(width) and out.top > 0.8 for loss, out in window)
    return read_as_logits or (at_floor and not any(read_right))


def constant_output(h: History) -> Finding | None:
    window = recent(h, PATIENCE)
    if not window or len(h.losses) < 50 or not all(out.spread < ALIKE and out.images > 1 for _, out in window):
        return None
    if is_waking(h):
        return None
    spreads = [s.output.spread for s in h.finite_samples[:PATIENCE] if s.output is not None]
    if spreads and min(spreads) > DIFFERED and never_learned(h) and not weights_shrank(h) and not coarse_at_first(h):
        return None  # the answers grew alike for want of something to learn
    loss = level(h.finite_loss[-20:])
    entropy = entropy_of_classes(h)
    at_entropy = entropy is not None and abs(loss - entropy) < 0.03 * entropy
    if not at_entropy and loss < 0.9 * level(h.finite_loss[:10]):
        return None  # the loss falls by something else than the spread of the answers
    spread = max(out.spread for _, out in window)
    beside = f", the entropy of the class frequencies ({entropy:.3g})" if at_entropy else ""
    behind = cut_off_behind(h)
    if behind is not None:
        beside += f"; {behind} loses them" if behind == "dropout" else f"; {behind} still told them apart"
    return Finding(
        "constant-output",
        "warning",
        f"the answers are the same for every image (they differ by {spread:.1g}); the loss is {loss:.3g}{beside}",
        {"spread": spread, "loss": loss, "entropy": entropy, "cut_off_behind": behind},
        "Look at dead or saturated layers and at the learning rate; then check that the images differ at the input"
        if behind is None
        else "Look at what stands between there and the answers: a norm over one number, a mean over the wrong axis, a "
        "mask, a constant, a dropout of 1",
        "SPEC C9",
    )


def class_collapsed(h: History) -> Finding | None:
    return _impossible(h) or _never_predicted(h, rare=False) or _one_for_all(h)


def _one_for_all(h: History) -> Finding | None:
    """One class is all that is ever answered, and the loss fell low all the same: the other classes do not count in it.

    Knowing only the shares p of the classes costs p (1 - p) an answer in squares, and more in logarithms; other losses
    may be lower, but fall no further without telling the classes apart.
    """
    counts = _late_counts(h)
    if counts is None:
        return None
    shown, said, _ = counts
    shares, place = shown / shown.sum(), int(said.argmax())
    floor = float(np.mean(shares[shown > 0] * (1 - shares[shown > 0])))
    end, start = level(h.finite_loss[-20:]), level(h.finite_loss[:10])
    low = 0 <= end < min(HARDLY * floor, FELL * start) and not _keeps_its_ratio(h)
    if said[place] < ALL_OF_THEM * said.sum() or shares.max() > MOST_OF_THEM or not low:
        return None
    return Finding(
        "class-collapsed",
        "warning",
        f"in the second half of the run class {place} was the answer to {said[place] / said.sum():.1%} of the images "
        f"and the right one for {shares[place]:.0%}; the loss fell to {end:.2g} all the same: it hardly counts the "
        "others",
        {"classes": np.flatnonzero((said == 0) & (shown > 0)).tolist(), "shown": shown.tolist(), "said": said.tolist()},
        "Look at the weights of the classes in the loss, at masks, and at how labels are numbered",
        "SPEC C9",
    )


def _keeps_its_ratio(h: History) -> bool:
    """Whether the loss is, at the end as at the start, the same part of the answers' cross-entropy: one that is divided
    by a number is low and counts all classes alike."""
    seen = [(s.step, s.output.as_logits) for s in h.finite_samples if s.output is not None and s.output.as_logits]
    ratios = np.array([float(h.loss[step]) / cost for step, cost in seen if step < len(h.losses)])
    part = len(ratios) // 6
    return part > 0 and level(ratios[-part:]) > FELL * level(ratios[:part])


def _late_counts(h: History) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
    """How often each class was shown, answered and answered rightly at the steps of the second half; None where that is
    not known, or where targets are shares of several classes."""
    tallies = [s.tally for s in h.finite_samples if s.tally is not None]
    late = tallies[len(tallies) // 2 :]
    mixed = any(s.output.mixed for s in h.samples if s.output is not None)
    if len(tallies) < FEW_TALLIES or len({len(t.shown) for t in late}) > 1 or mixed:
        return None
    shown, said, right = (np.sum([getattr(t, name) for t in late], axis=0) for name in ("shown", "said", "right"))
    return (shown, said, right) if shown.sum() and said.sum() else None


def _impossible(h: History) -> Finding | None:
    """Nothing need be learned yet to see that one class cannot be said."""
    place = impossible_class(h)
    if place is None:
        return None
    shown = sum(
        int(s.output.targets[place]) for s in h.samples if s.output is not None and s.output.targets is not None
    )
    return Finding(
        "class-collapsed",
        "warning",
        f"class {place} was never predicted, though it was shown {shown} times at the watched steps, and the loss is "
        "high where a batch holds many images of it: its answer cannot be given",
        {"classes": [place], "shown": shown, "loss": level(h.finite_loss[-20:])},
        "Look at the output unit of that class: it is masked, padded, or its bias is far too low",
        "SPEC C9",
    )


def imbalance_ignored(h: History) -> Finding | None:
    return _hardly_right(h) or _never_predicted(h, rare=True)


def _hardly_right(h: History) -> Finding | None:
    """Rare classes that are right far less often than the others, counted over every step of the second half."""
    counts = _late_counts(h)
    if counts is None:
        return None
    shown, said, right = counts
    known = shown > 0
    rare = known & (shown < 0.5 / known.sum() * shown.sum())
    if not rare.any():
        return None
    usual, seldom = (float(right[part].sum() / shown[part].sum()) for part in (~rare & known, rare))
    # That so few are right where half as many should be as of the others: by chance alone?
    n, k, p = int(shown[rare].sum()), int(right[rare].sum()), 0.5 * usual
    chance = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)) if n <= MOST else 0.0
    if usual < TOLD_APART or seldom > IGNORED * usual or chance > BY_CHANCE:
        return None
    classes = np.flatnonzero(rare).tolist()
    return Finding(
        "imbalance-ignored",
        "warning",
        f"class {listed(classes)}, rare as it is, was right "
        f"{k} times of {n} in the second half of the run, the others {usual:.0%} of the time",
        {"classes": classes, "shown": shown.tolist(), "predicted": said.tolist(), "right": right.tolist()},
        FOR_RARE,
        "SPEC C9",
    )


def _never_predicted(h: History, *, rare: bool) -> Finding | None:
    """Classes that are shown and never said, while the others are told apart."""
    window = [out for _, out in recent(h, max(COUNTED, 2 * len(h.samples) // 3))]
    if len(h.losses) < (STEPS if rare else STEPS_TO_COLLAPSE) or len({o.width for o in window}) > 1:
        return None
    # The most of the run, so that a rare class has come often enough; the end alone, where a net says its last words.
    for part in (window, window[len(window) // 2 :]):
        counts = [(o.targets, o.predicted) for o in part if o.targets is not None and o.predicted is not None]
        if len(counts) < COUNTED:
            return None
        shown = np.sum(np.array([t for t, _ in counts]), axis=0)
        said = np.sum(np.array([p for _, p in counts]), axis=0)
        # The largest share of a soft target need not be what the answer is to say.
        handful = not any(out.mixed for out in part)
        lost = _lost(shown, said, sum(out.correct or 0 for out in part), rare=rare, handful=handful)
        if lost.any():
            break
    else:
        return None
    classes = np.flatnonzero(lost).tolist()
    return Finding(
        "imbalance-ignored" if rare else "class-collapsed",
        "warning",
        f"class {listed(classes)} was predicted "
        f"{int(said[lost].sum())} times over the last {len(part)} watched steps, though it was shown "
        f"{int(shown[lost].sum())} times",
        {"classes": classes, "shown": shown.tolist(), "predicted": said.tolist()},
        FOR_RARE if rare else "Look at that class's images and labels, and that its output unit is not masked or dead",
        "SPEC C9",
    )


def _lost(shown: np.ndarray, said: np.ndarray, correct: int, *, rare: bool, handful: bool) -> np.ndarray:
    """Which classes are never said, once the rest is learned: early on every net says few classes.

    handful: whether classes count of which only a few images were shown.
    """
    share = shown / shown.sum()
    lost = (said == 0) & (shown >= ENOUGH_IMAGES) & ((share < 0.5 / len(shown)) == rare)
    if rare and not lost.any():
        lost = _hardly_said(shown, said, handful=handful)
    none = np.zeros(len(shown), bool)
    # Where one class is most of all, always saying it is nearly right.
    if not lost.any() or correct / shown.sum() < (0.9 if rare and share.max() > 0.6 else 1.3) * share.max():
        return none
    others = ~lost & (shown >= ENOUGH_IMAGES)
    all_said = others.sum() > 1 and bool(np.all(said[others] > ALSO_SAID * shown[others]))
    learned = correct >= 0.5 * shown[~lost].sum() or (all_said and bool(np.all(shown[lost] >= MANY_IMAGES)))
    return lost if learned else none


def _hardly_said(shown: np.ndarray, said: np.ndarray, *, handful: bool) -> np.ndarray:
    """The rare classes, where all of them together are said far less often than they come."""
    rare = shown < 0.25 / len(shown) * shown.sum()
    come, heard = int(shown[rare].sum()), int(said[rare].sum())
    seldom = (come >= ENOUGH_IMAGES and heard <= 2 * SELDOM * come) or (come >= 6 and heard <= SELDOM * come)
    # A class of which a whole run shows a handful: one in thousands.
    usual = shown.sum() / len(shown)
    seldom |= handful and come >= HANDFUL and heard == 0 and bool(np.all(shown[rare] < 0.1 * usual))
    # One image is enough to know of a class that comes a hundred times as seldom as the usual one.
    seldom |= handful and come >= 1 and heard == 0 and bool(np.all(shown[rare] < 0.02 * usual))
    return rare & (shown > 0) if seldom else np.zeros(len(shown), bool)


def _near(loss: float, formula: float | None) -> bool:
    return formula is not None and abs(loss - formula) <= AGREES * max(abs(formula), 0.1)


NEVER_PREDICTED = (needs.outputs, needs.targets, needs.samples(COUNTED))
RULES = {
    "double-softmax": Rule(double_softmax, (needs.outputs, needs.samples(PATIENCE))),
    "constant-output": Rule(constant_output, (needs.outputs, needs.steps_or_bad(50))),
    "class-collapsed": Rule(class_collapsed, (*NEVER_PREDICTED, needs.steps(STEPS_TO_COLLAPSE))),
    "imbalance-ignored": Rule(
        imbalance_ignored, (needs.outputs, needs.targets, needs.samples(FEW_TALLIES), needs.steps(FEW_STEPS))
    ),
}

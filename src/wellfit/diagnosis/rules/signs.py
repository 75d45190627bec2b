"""What several rules ask of a history: has the loss moved, does the net know anything, have its answers collapsed?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wellfit.diagnosis.history import History, Sample, level

# About 100 iterations should show the loss falling clearly (SPEC C6); less than 2% is no fall.
PATIENCE = 100
MOVED = 0.02
# An accuracy of less than this, times what guessing gives, is guessing.
GUESSED = 1.5
# A first loss below this share of chance's shows knowledge.
KNOWING = 0.7
# Class probabilities that differ less than this between images hardly show in the loss yet.
WAKING = 0.02
# Answers that once differed by more than the first, and now differ by less than the second, have collapsed.
DIFFERED = 1e-4
COLLAPSED = 1e-6
# A net whose layers show this little of the differences between images never saw any.
BLANK = 1e-9
# Layers of such a deviation, such a share of it between images, tell them apart: answers that do not are cut off.
ALIVE, TELLING = 1e-3, 0.05
# The largest class beside the smallest.
UNBALANCED = 3
# Steps after which a weight that never moved was not going to.
STILL_STEPS = 20
# Weights that lost so much of their norm were decayed away.
SHRUNK = 0.5
# Watched steps after which weights that began near zero have their length.
GROWN_STEPS = 5
# A loss that follows the share of one class in the batch so closely (a correlation), and costs so many times what
# chance does for a batch of it alone, is the cost of an answer that cannot be given. Images and watched steps that
# must have shown it.
FOLLOWS, IMPOSSIBLE, SHOWN, SEEN = 0.95, 5.0, 10, 10
# A layer with more of its entries at the ends is saturated.
AT_ENDS = 0.8
# A loss that rose to so many times its start has blown up (no fluctuation does that), or is about to.
RISEN, EXPLODED = 3.0, 10.0
# A rate that threw the training in this share of it, and was brought below this share of its largest since.
BRIEFLY, LOWERED = 0.2, 0.3


def chance(h: History) -> float | None:
    """log C, where the loss may be measured against it: none where it is seen to be another loss, or a part of one."""
    return None if is_cross_entropy(h) is False or _is_divided(h) else h.chance_loss


def _is_divided(h: History) -> bool:
    """Whether the first losses lie far below chance though the first epoch's answers were guesses."""
    first = next((e.train_accuracy for e in h.epochs if e.train_accuracy is not None), None)
    if first is None or h.classes is None or h.chance_loss is None:
        return False
    return first < GUESSED / h.classes and level(h.finite_loss[:10]) < KNOWING * h.chance_loss


def start_and_end(h: History) -> tuple[float, float]:
    """Where the loss started and where it stands."""
    loss = h.finite_loss
    # Within ten steps a wild rate has raised the loss already: the lower of the two is where it started.
    start = min(level(loss[:10]), float(loss[0])) if len(loss) else float("nan")
    return max(start, 0.98 * (chance(h) or 0.0)), level(loss[-max(25, len(loss) // 5) :])


def is_flat(h: History, moved: float = MOVED) -> bool:
    """Whether the loss, finite all along, ended where it started (less the share `moved`), near what chance gives."""
    if len(h.losses) < PATIENCE or h.first_bad_step is not None or starts_with_knowledge(h):
        return False
    start, end = start_and_end(h)
    return end > (1 - moved) * start


def starts_with_knowledge(h: History) -> bool:
    """Whether the first losses lie well below chance: a fine-tune or a resumed run may rest where it is."""
    ground = chance(h)
    return ground is not None and level(h.finite_loss[:10]) < KNOWING * ground


def knows_nothing(h: History) -> bool:
    """Whether the loss ended no lower than what the class frequencies alone give, wherever it started."""
    ground = entropy_of_classes(h)
    if ground is None or len(h.losses) < PATIENCE or h.first_bad_step is not None or not is_cross_entropy(h):
        return False
    return start_and_end(h)[1] > (1 - MOVED) * ground and not guesses_better_than_chance(h)


def entropy_of_classes(h: History) -> float | None:
    """The cross-entropy of always answering the class frequencies; log C where they are not known."""
    counts = h.class_counts
    if counts is None or not counts.sum():
        return h.chance_loss
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum()) if len(shares) > 1 else None


def is_cross_entropy(h: History) -> bool | None:
    """Whether the first losses are the cross-entropy of the answers; None where no targets tell."""
    loss = h.loss
    pairs = [
        (loss[s.step], read)
        for s in h.finite_samples[:5]
        if s.output is not None and s.step < len(loss)
        for read in (s.output.as_probabilities if s.output.probabilities else s.output.as_logits,)
        if read is not None
    ]
    if not pairs:
        return None
    return bool(np.mean([abs(seen - read) < 0.2 * max(read, 0.1) for seen, read in pairs]) > 0.5)


def guesses_better_than_chance(h: History) -> bool:
    """Whether the last answers were right more often than the largest class comes, beyond doubt."""
    seen = [s.output for s in h.finite_samples if s.output is not None and s.output.targets is not None][-10:]
    shown = sum(int(o.targets.sum()) for o in seen if o.targets is not None)
    if not shown or h.class_counts is None:
        return False
    likely = float(h.class_counts.max() / h.class_counts.sum())
    right = sum(o.correct or 0 for o in seen) / shown
    return right > likely + 3 * math.sqrt(likely * (1 - likely) / shown) + 0.02


def has_learned(h: History) -> bool:
    """Whether a fifth of the loss is gone; also where there are too few steps to say that it is not."""
    losses = h.finite_loss
    # Chance counts where the loss is known to be measured against it: one divided by a constant starts below.
    start = max(level(losses[:10]), (h.chance_loss or 0.0) if is_cross_entropy(h) else 0.0)
    return len(losses) < 20 or level(losses[-20:]) < 0.8 * start


def never_learned(h: History) -> bool:
    """Whether nothing was learned at any time: what else is seen late in such a run came of that."""
    if not (is_flat(h) or knows_nothing(h)) or len(h.losses) < PATIENCE:
        return False
    start = start_and_end(h)[0]
    if knows_nothing(h):  # to come down to what knowing nothing costs is no learning
        start = min(start, entropy_of_classes(h) or start)
    levels = np.median(h.loss[: len(h.losses) // 25 * 25].reshape(-1, 25), axis=1)
    return bool(levels.min() > (1 - MOVED) * start)


def is_waking(h: History) -> bool:
    """Whether answers that are still alike differ more and more: tiny first weights need a while to grow."""
    spreads = [s.output.spread for s in h.samples if s.output is not None]
    if len(spreads) < 6 or spreads[-1] > WAKING:
        return False
    third = len(spreads) // 3
    parts = [level(np.array(part)) for part in (spreads[:third], spreads[third:-third], spreads[-third:])]
    return parts[0] < parts[1] < parts[2] and parts[2] > 3 * parts[0]


def has_collapsed(h: History) -> bool:
    """Whether answers that differed between images at first are the same for all of them now."""
    spreads = [s.output.spread for s in h.finite_samples if s.output is not None]
    return len(spreads) >= 6 and spreads[0] > DIFFERED and max(spreads[-3:]) < COLLAPSED


def is_blank(h: History) -> bool:
    """Whether the images were all alike from the first step on: no layer ever showed a difference between them."""
    first = next((s for s in h.samples if s.layers), None)
    if first is None or first.step > 0:
        return False
    if first.received is not None and first.received[1] == 0:
        return True
    # A layer that is silent throughout tells nothing of what came to it.
    return first.layers[0].std > 0 and all(layer.spread < BLANK for layer in first.layers)


def cut_off_behind(h: History) -> str | None:
    """The last layer whose units tell the images apart, where the answers never did: what lies between loses them.

    None where the differences fade from layer to layer, or where units are dead. "dropout" where all is dropped.
    """
    if max(h.dropped, default=0.0) >= 1:
        return "dropout"
    seen = [s for s in h.finite_samples[:3] if s.output is not None and s.layers]
    if len(seen) < 3 or seen[0].step > 0 or any(s.output is None or s.output.spread > COLLAPSED for s in seen):
        return None
    telling = all(layer.std > ALIVE and layer.spread > TELLING * layer.std for s in seen for layer in s.layers)
    return seen[-1].layers[-1].name if telling else None


def weights_shrank(h: History) -> bool:
    """Whether the typical weight tensor lost half of its norm since the first watched step."""
    seen = h.finite_samples
    if len(seen) < 3 or not len(h.weights):
        return False
    return _times_as_long(h, seen[0]) < SHRUNK


def weight_growth(h: History) -> tuple[float, float]:
    """How many times as long the typical weight tensor became since the first steps, and since half the run."""
    seen = h.finite_samples
    if len(seen) < 2 * GROWN_STEPS or not len(h.weights):
        return 1.0, 1.0
    return _times_as_long(h, seen[GROWN_STEPS]), _times_as_long(h, seen[len(seen) // 2])


def _times_as_long(h: History, before: Sample) -> float:
    """How many times as long as then the typical weight tensor is now; 1 where none had a length."""
    then, now = before.weight_norm[h.weights], h.finite_samples[-1].weight_norm[h.weights]
    there = then > 0
    return float(np.median(now[there] / then[there])) if there.any() else 1.0


def impossible_class(h: History) -> int | None:
    """The class that no answer ever names and whose images make the loss: its unit is masked, dead or too far off.

    The loss of a batch is then its share of that class times a large number. A net that does not know a class yet
    pays little more for it than chance.
    """
    loss = h.loss
    pairs = [(loss[s.step], s.output) for s in h.finite_samples if s.output is not None and s.step < len(loss)]
    seen = [
        (cost, o.targets, o.predicted)
        for cost, o in pairs
        if not o.mixed and o.targets is not None and o.predicted is not None
    ]
    if len(seen) < SEEN or len({len(shown) for _, shown, _ in seen}) > 1:
        return None
    costs, shown, said = (np.array(part) for part in zip(*seen, strict=True))
    shares = shown / np.maximum(shown.sum(1, keepdims=True), 1)
    for place in np.flatnonzero((said.sum(0) == 0) & (shown.sum(0) >= SHOWN) & (shares.std(0) > 0)):
        slope = float(np.cov(shares[:, place], costs)[0, 1] / shares[:, place].var(ddof=1))
        follows = float(np.corrcoef(shares[:, place], costs)[0, 1])
        if follows > FOLLOWS and slope > IMPOSSIBLE * math.log(max(2, shown.shape[1])):
            return int(place)
    return None


def was_brief(h: History, until: int) -> bool:
    """Whether what ended by step `until` was done by a rate that has been lowered since, early in the run."""
    lr = h.lr
    end = max(1, int(BRIEFLY * len(h.losses)))
    return until < end < len(lr) and bool(lr[end:].max() < LOWERED * lr[:end].max())


def moved_at_all(h: History) -> NDArray[np.bool_]:
    """For each parameter: whether a single bit of it has changed since watching began."""
    moved = np.zeros(len(h.parameters), bool)
    for sample in h.samples:
        moved |= sample.update_norm > 0
        # A branch may be used between two watched steps alone.
        moved |= False if sample.moved is None else sample.moved
    return moved


def unbalanced(h: History) -> bool:
    """Whether one class has several times the images of another."""
    counts = h.class_counts
    return counts is not None and len(counts) > 0 and bool(counts.max() > UNBALANCED * max(1, int(counts.min())))


def stands_still(h: History) -> bool:
    """Whether no weight at all has moved, in steps enough, for want of any gradient, at a rate above 0."""
    trained = np.array([p.requires_grad for p in h.parameters], bool)
    seen = h.samples
    if "updates" in h.unseen or not seen or seen[-1].step < STILL_STEPS or (len(h.lrs) and h.lr.max() == 0):
        return False
    pushed = any(bool(np.nan_to_num(s.gradient_norm[trained]).any()) for s in seen)
    return bool(trained.any()) and not pushed and not moved_at_all(h)[trained].any()


def share_left(h: History, start: float | None = None) -> float:
    """What is left of the loss, as a share of where it started, by default `reference_loss`; NaN: no one can tell."""
    start = h.reference_loss if start is None else start
    return level(h.finite_loss[-20:]) / start if start > 0 else math.nan


def has_no_floor(h: History) -> bool:
    """Whether the loss of class answers fell far below zero, where none of the usual ones goes."""
    loss = h.finite_loss
    if h.class_counts is None or not len(loss):
        return False
    bad = h.first_bad_step
    endless = bad is not None and h.loss[bad] == -math.inf
    return bool((float(loss[-1]) if endless else level(loss[-10:])) < -EXPLODED * max(1.0, abs(float(loss[0]))))


def rose_beyond(h: History, times: float) -> bool:
    """Whether the loss was ever more than so many times where it started."""
    return bool(h.finite_loss.max(initial=0.0) > times * h.reference_loss)


def begins_saturated(h: History) -> bool:
    """Whether a layer stood at the ends of its non-linearity before the first step: no rate brought it there."""
    first = next((s for s in h.samples if s.layers), None)
    return first is not None and first.step == 0 and max(s.saturated or 0.0 for s in first.layers) > AT_ENDS

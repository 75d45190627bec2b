"""What several rules ask of a history: has the loss moved, does the net know anything, have its answers collapsed?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wellfit.diagnosis.history import Floats, History, Sample, level

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
# Weights that lost so much of their norm were decayed away.
SHRUNK = 0.5
# A loss that follows the share of one class in the batch so closely (a correlation), and costs so many times what
# chance does for a batch of it alone, is the cost of an answer that cannot be given. Images and watched steps that
# must have shown it.
FOLLOWS, IMPOSSIBLE, SHOWN, SEEN = 0.95, 5.0, 10, 10
# A first step of so many times lr·g is SGD's (twice it with Nesterov's momentum), of so many times lr an entry Adam's
# or RMSprop's. Rates that are usual for each, and a gradient that is not.
LIKE_SGD, LIKE_ADAM = (0.5, 3.0), (0.5, 15.0)
USUAL_FOR_SGD, USUAL_FOR_ADAM, STEEP = 0.5, 0.015, 4.0
# A loss whose start is less than this share of its usual size, or that lies below zero so often, has no shares.
NOTHING = 0.05
# Weight decay that takes more of the weights at a step moves them more than the loss does.
HARD_DECAY = 1e-3
# Updates below this much of what decay should take do not come of it.
TAKEN = 0.3
# A layer with more of its entries at the ends is saturated.
AT_ENDS = 0.8
# A loss that rose to so many times its start has blown up, or is about to.
RISEN, EXPLODED, FIRST = 3.0, 10.0, 3
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


def never_learned(h: History) -> bool:
    """Whether nothing was learned at any time: what else is seen late in such a run came of that."""
    if not (is_flat(h) or knows_nothing(h)) or len(h.losses) < PATIENCE:
        return False
    start = start_and_end(h)[0]
    levels = np.median(h.loss[: len(h.losses) // 25 * 25].reshape(-1, 25), axis=1)
    return bool(levels.min() > (1 - MOVED) * start)


def early(h: History) -> list[Sample]:
    """The watched steps of the first half of the patience that a loss is given to fall."""
    return [s for s in h.finite_samples if s.step <= PATIENCE // 2]


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


def weights_shrank(h: History) -> bool:
    """Whether the typical weight tensor lost half of its norm since the first watched step."""
    seen = h.finite_samples
    if len(seen) < 3 or not len(h.weights):
        return False
    first, last = seen[0].weight_norm[h.weights], seen[-1].weight_norm[h.weights]
    return bool(np.median(last[first > 0] / first[first > 0]) < SHRUNK) if (first > 0).any() else False


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


def goes_uphill(h: History) -> bool:
    """Whether the first steps go along the gradient rather than against it."""
    promises = [s.promised for s in h.finite_samples[:3] if np.isfinite(s.promised)]
    return len(promises) >= 2 and max(promises) < 0


def was_brief(h: History, until: int) -> bool:
    """Whether what ended by step `until` was done by a rate that has been lowered since, early in the run."""
    lr = h.lr
    end = max(1, int(BRIEFLY * len(h.losses)))
    return until < end < len(lr) and bool(lr[end:].max() < LOWERED * lr[:end].max())


def kept_promise(h: History) -> float:
    """The fall of the loss as a share of what its steps promised to first order; NaN where neither is known.

    Small steps keep what they promise: near 1 the steps could be longer. Long ones overshoot and keep little.
    """
    promises = [s.promised for s in h.finite_samples if np.isfinite(s.promised) and s.step > 0]
    loss = h.finite_loss
    if len(promises) < 3 or len(loss) < 20:
        return math.nan
    promised = float(np.mean(promises)) * len(loss)
    return (level(loss[:10]) - level(loss[-20:])) / promised if promised > 0 else math.nan


def share_left(h: History, start: float | None = None) -> float:
    """What is left of the loss, as a share of where it started, by default `reference_loss`; NaN: no one can tell."""
    start = h.reference_loss if start is None else start
    return level(h.finite_loss[-20:]) / start if start > 0 else math.nan


def rose_beyond(h: History, times: float) -> bool:
    """Whether the loss was ever more than so many times where it started."""
    return bool(h.finite_loss.max(initial=0.0) > times * h.reference_loss)


def promised_share(h: History) -> float:
    """What a quarter of the steps promised and more, as a share of the loss at the start; NaN where no one can tell.

    Only steps before a blow-up count: after it promises are as large as the loss.
    """
    # Of a loss that starts at nothing, or crosses zero, there is no share.
    if not h.reference_loss > NOTHING * level(np.abs(h.finite_loss)) or np.mean(h.finite_loss < 0) > NOTHING:
        return math.nan
    high = np.flatnonzero(h.finite_loss > RISEN * h.reference_loss)
    end = high[0] if len(high) else len(h.losses)
    seen = [s.promised for s in h.finite_samples if s.step < end and np.isfinite(s.promised)]
    # On the way to a blow-up promises grow with the loss: there the first steps tell.
    seen = seen[:FIRST] if rose_beyond(h, EXPLODED) else seen
    return float(np.percentile(seen, 75)) / h.reference_loss if len(seen) >= 2 else math.nan


@dataclass(frozen=True)
class FirstUpdate:
    """The first step of the typical weight tensor, as a multiple of the rate times its gradient, its entries' root
    and its own norm; gradient: norm of the whole gradient."""

    by_gradient: float
    by_entry: float
    by_weight: float
    gradient: float

    @property
    def like_sgd(self) -> bool:
        """lr·g; twice that with Nesterov's momentum."""
        return LIKE_SGD[0] < self.by_gradient < LIKE_SGD[1]

    @property
    def like_adam(self) -> bool:
        """lr in each entry; ten times that for RMSprop."""
        return LIKE_ADAM[0] < self.by_entry < LIKE_ADAM[1]


def first_update(h: History) -> FirstUpdate | None:
    """None where the first step was not watched, or moved nothing."""
    first = h.finite_samples[0] if h.finite_samples else None
    if first is None or first.step > 0 or not len(h.lrs) or not h.lr[0] > 0:
        return None
    gradient, update, weight = (a[h.weights] for a in (first.gradient_norm, first.update_norm, first.weight_norm))
    entries = np.sqrt([h.parameters[i].size for i in h.weights])
    moved = (gradient > 0) & (update > 0)
    if not moved.any():
        return None
    scales = (gradient, entries, np.maximum(weight, 1e-30))
    by_gradient, by_entry, by_weight = (level(update[moved] / (h.lr[0] * scale[moved])) for scale in scales)
    return FirstUpdate(by_gradient, by_entry, by_weight, first.total_gradient)


def cause_of_long_steps(h: History) -> str:
    """Which of two findings with one remedy is the cause; "" where that is not clear.

    "lr-too-high" where the rate is beyond what its kind of optimizer takes, "updates-too-large" where a usual rate
    meets steep gradients (a loss that is summed or scaled). The kind shows in the first step.
    """
    first = first_update(h)
    if first is None:
        return ""
    if first.like_sgd:
        if h.lr.max() > USUAL_FOR_SGD:
            return "lr-too-high"
        return "updates-too-large" if first.gradient > STEEP else ""
    return "lr-too-high" if first.like_adam and h.lr.max() > USUAL_FOR_ADAM else ""


def begins_saturated(h: History) -> bool:
    """Whether a layer stood at the ends of its non-linearity before the first step: no rate brought it there."""
    first = next((s for s in h.samples if s.layers), None)
    return first is not None and first.step == 0 and max(s.saturated or 0.0 for s in first.layers) > AT_ENDS


def decay_at_a_step(h: History) -> float:
    """The largest share of a weight that decay takes away at one step: the rate times the weight decay.

    0 where the first step does not show that the rate is what the steps are made with (it is not in Prodigy, nor for
    the weights of another group), or where the updates are far smaller than that.
    """
    decay = max((h.parameters[i].decay for i in h.weights), default=0.0)
    share, first = float(h.lr.max()) * decay if len(h.lrs) else 0.0, first_update(h)
    if not share or first is None or not level(ratios(h)) >= TAKEN * share:
        return 0.0
    taken = first.by_weight / decay
    return share if first.like_sgd or first.like_adam or LIKE_SGD[0] < taken < LIKE_SGD[1] else 0.0


def decays_hard(h: History) -> bool:
    """Whether weight decay moves the weights more than the loss does."""
    return decay_at_a_step(h) > HARD_DECAY


def median_ratio(h: History, sample: Sample) -> float:
    """The median over the weights of ‖Δw‖/‖w‖ at one watched step."""
    ratios = sample.update_ratio[h.weights]
    ratios = ratios[np.isfinite(ratios)]
    return float(np.median(ratios)) if len(ratios) else float("nan")


def ratios(h: History) -> Floats:
    """At each watched step with a finite loss and a full rate: the median over the weights of ‖Δw‖/‖w‖."""
    medians = [median_ratio(h, s) for s in h.finite_samples if h.at_full_rate(s.step)]
    return np.array([m for m in medians if np.isfinite(m)])

"""How long a training's steps are, what they promise, and what made them so: rate, gradient, decay, optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wellfit.diagnosis.history import Floats, History, OptimizerGroup, Sample, level
from wellfit.diagnosis.rules.signs import EXPLODED, RISEN, rose_beyond, share_left

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
# A loss that rises by about the fall that was promised: by shares of it between these.
CLIMBS = 0.1, 3.0
# The first steps, which tell where all blows up, and such a share of the weights as units do not survive.
FIRST, OVERWRITES = 3, 0.06
# An entry of a bias that moves so far at a step: what enters a unit has a deviation of about one.
A_UNIT = 0.5
# Steps that from one watched step on are so many times as long, each of so many as against each of so many before, and
# a loss that has risen by so much; not among the first.
LONGER, AROUND, WORSE, SETTLED = 1.8, 8, 2.0, 5
# Updates that grew by so much in the course of the run, and by so much in each of its parts.
GREW, EACH = 2.0, 1.2
# The first steps, in which moments gather; RMSprop's first is of so many times the rate and more in each entry.
FIRST_STEPS, OF_RMSPROP = 20, 2.0
# Of so many weights and more, steps that differ by less than this factor are of one size.
ALIKE_FOR, ALIKE = 3, 1.02
# A second moment that forgets half within three steps follows single gradients; 0.9 to 0.999 are usual.
FORGETFUL = 0.8
# A second moment that forgets so many times as fast as the first is in its place.
SOONER = 3.0


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


def goes_uphill(h: History) -> bool:
    """Whether the steps go along the gradient rather than against it.

    Seen at the first ones, or where the loss rose about as much as the steps promised that it would fall: gradients
    that were turned round before the optimizer got them. Steps that are too long promise far more than the loss rises.
    """
    promises = [s.promised for s in h.finite_samples[:3] if np.isfinite(s.promised)]
    turned = share_left(h) > EXPLODED and -CLIMBS[1] < kept_promise(h) < -CLIMBS[0]
    return (len(promises) >= 2 and max(promises) < 0) or turned


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
    meets steep gradients (a loss that is summed or scaled), where steps grew at the same rate, where the optimizer
    forgets too soon, or where gradients do not count for their size. The kind shows in the first step.
    """
    if longer_at_once(h) is not None or forgetful(h) is not None or of_one_size(h):
        return "updates-too-large"
    first = first_update(h)
    if first is None:
        return ""
    if first.like_sgd:
        if h.lr.max() > USUAL_FOR_SGD:
            return "lr-too-high"
        return "updates-too-large" if first.gradient > STEEP else ""
    return "lr-too-high" if first.like_adam and h.lr.max() > USUAL_FOR_ADAM else ""


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
    return decay_at_a_step(h) >= HARD_DECAY


def coarse_at_first(h: History) -> bool:
    """Whether the first steps overwrite the weights, or move biases and factors by about what units are worth: what is
    out of play soon after was put there by them."""
    roots = np.sqrt([max(1, p.size) for p in h.parameters])
    others = np.array([not p.weight for p in h.parameters], bool)
    moved = [float(np.max(s.update_norm[others] / roots[others], initial=0.0)) for s in h.finite_samples[:FIRST]]
    return bool(np.max(ratios(h)[:FIRST], initial=0.0) > OVERWRITES or max(moved, default=0.0) > A_UNIT)


def median_ratio(h: History, sample: Sample) -> float:
    """The median over the weights of ‖Δw‖/‖w‖ at one watched step."""
    ratios = sample.update_ratio[h.weights]
    ratios = ratios[np.isfinite(ratios)]
    return float(np.median(ratios)) if len(ratios) else float("nan")


def ratios_by_step(h: History) -> list[tuple[int, float]]:
    """Each watched step with a finite loss and a full rate, and the median over the weights of ‖Δw‖/‖w‖ there."""
    seen = [(s.step, median_ratio(h, s)) for s in h.finite_samples if h.at_full_rate(s.step)]
    return [(step, ratio) for step, ratio in seen if np.isfinite(ratio)]


def ratios(h: History) -> Floats:
    """Those medians alone."""
    return np.array([ratio for _, ratio in ratios_by_step(h)])


@dataclass(frozen=True)
class Longer:
    """From `step` on the typical update was `after` of the weights, before `before`."""

    step: int
    before: float
    after: float


def longer_at_once(h: History) -> Longer | None:
    """Steps that grew from one to the next, at the same rate, and the loss with them, for good.

    A loss that comes down again has met other images, as in a curriculum.
    """
    seen = ratios_by_step(h)
    steps, sizes = [step for step, _ in seen], np.array([ratio for _, ratio in seen])
    loss, lr = h.loss, h.lr
    for i in range(SETTLED + 1, len(seen) - AROUND + 1):
        early, late = sizes[max(SETTLED, i - AROUND) : i], sizes[i : i + AROUND]
        begun, before, until = steps[i], steps[i - 1], steps[i + AROUND - 1]
        if late.min() < LONGER * early.max() or (len(lr) and lr[begun] > lr[before]):
            continue
        was = level(loss[steps[max(0, i - AROUND)] : before + 1])
        if was > 0 and min(level(loss[before : until + 1]), level(h.finite_loss[-20:])) > WORSE * was:
            return Longer(begun, level(early), level(late))
    return None


def has_second_moment(h: History) -> bool:
    """Whether an optimizer is known to divide its steps by the size of the gradients."""
    return any(g.second is not None for g in h.groups)


def of_one_size(h: History) -> str:
    """What the size of each step is made of, where it is not the gradient's; "" where it is, or is not known.

    The same share of every weight tensor (LARS without its trust coefficient), or the rate in every entry (signs). Not
    told of optimizers with a second moment: Adam's first step has such a size, and those that follow have not.
    """
    first = first_update(h)
    if first is None or not h.groups or has_second_moment(h):
        return ""
    shares = h.finite_samples[0].update_ratio[h.weights]
    shares = shares[np.isfinite(shares) & (shares > 0)]
    if len(shares) >= ALIKE_FOR and shares.max() < ALIKE * shares.min():
        return "the same share of every weight"
    return "the same in every entry" if not first.like_sgd and 1 / ALIKE < first.by_entry < ALIKE else ""


def by_something_else(h: History) -> bool:
    """Whether the first step is far longer than the rate times the gradient, and its entries far from the rate.

    So are those of optimizers that scale them otherwise by design (LAMB, Muon, Adafactor).
    """
    first = first_update(h)
    if first is None or has_second_moment(h):
        return False
    return first.by_gradient > LIKE_SGD[1] and first.by_entry < LIKE_ADAM[0]


def entries_by_rate(h: History) -> float:
    """How many times the rate the typical entry moves at a step, after the first of them, beside what such an optimizer
    does: Adam's second moment holds it to one, RMSprop's, whose first step is of ten, to about one and a half.

    NaN where the optimizer is known to have one, or is like SGD.
    """
    first = first_update(h)
    if first is None or first.like_sgd or not first.like_adam or has_second_moment(h):
        return math.nan
    roots, lr = np.sqrt([h.parameters[i].size for i in h.weights]), h.lr
    seen = [s for s in h.finite_samples if FIRST_STEPS <= s.step < len(lr) and lr[s.step] > 0]
    moved = [float(np.median(s.update_norm[h.weights] / (lr[s.step] * roots))) for s in seen]
    usual = 1.0 if first.by_entry < OF_RMSPROP else 1.5
    return level(np.array(moved)) / usual if len(moved) >= AROUND else math.nan


def longer_little_by_little(h: History) -> tuple[float, float] | None:
    """The typical update in the first and in the last third of the run, where it grew from third to third and the loss
    rose from its lowest, at a rate that did not rise; None elsewhere."""
    sizes, loss, lr = ratios(h), h.finite_loss, h.lr
    thirds = [level(part) for part in np.array_split(sizes[len(sizes) // 6 :], 3)]
    if len(sizes) < 2 * AROUND or h.first_bad_step is not None or (len(lr) and bool(np.any(np.diff(lr) > 0))):
        return None
    eighths = [level(part) for part in np.array_split(loss, 8)]
    grew = thirds[2] > GREW * thirds[0] > 0 and thirds[1] > EACH * thirds[0] and thirds[2] > EACH * thirds[1]
    return (thirds[0], thirds[2]) if grew and eighths[-1] > WORSE * min(eighths) > 0 else None


def forgetful(h: History) -> OptimizerGroup | None:
    """An optimizer whose second moment follows hardly more than the last gradient, or forgets sooner than the first.

    Adam's steps are bound where momentum² < second (Reddi et al. 2018).
    """
    return next((g for g in h.groups if g.second is not None and (g.second < FORGETFUL or swapped(g))), None)


def swapped(group: OptimizerGroup) -> bool:
    """Whether the two betas look exchanged."""
    if group.second is None or group.momentum is None:
        return False
    return group.momentum > group.second and 1 - group.second > SOONER * (1 - group.momentum)

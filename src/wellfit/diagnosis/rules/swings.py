"""Rules about a loss that goes up and down: oscillating, loss-spike."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis.history import History, fall_per_step, level
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.loss import exploding
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import (
    PATIENCE,
    impossible_class,
    share_left,
    unbalanced,
)
from wellfit.diagnosis.rules.step_lengths import (
    kept_promise,
    ratios,
)
from wellfit.diagnosis.rules.waves import NEAR, ROUNDS, at_once, best_cycle, climbs_of
from wellfit.diagnosis.rules.wording import listed
from wellfit.diagnosis.windows import deviations, medians
from wellfit.findings import Finding

# Minibatch noise stays below this share of the loss, or below SMALL_BATCH/√images for very small batches.
SWING = 0.35
SMALL_BATCH = 3.0
# Hundreds of images average the noise away.
MANY, SWING_OF_MANY = 256, 0.15
# Batches of fewer images are mostly noise, a fault where more than this share of the loss is left.
FEW, LEARNED = 4, 0.3
# Steps that keep so little of what they promise, while half of the loss is left and they move the weights by so much.
NOWHERE, HALF, COARSE = 5e-3, 0.5, 5e-3
# Longer ones that keep a little more, while some of it is left.
HARDLY, SOME, COARSER = 0.02, 0.05, 7e-3
# Momentum beyond what the courses use (0.9 or 0.99).
HEAVY = 0.992
# Classes that come in groups: so many times the spread of the counts that chance gives.
GROUPED = 2.5
# A loss of which no batch costs more than this share of the start has no class to learn anew.
CALM, FORGOTTEN = 0.3, 0.2
# Points of validation accuracy that three epochs in a row may lie below the best one where nothing swings.
STEADY = 0.03
# A spike towers over its neighbourhood: by this factor, and by this share of the first loss.
SPIKE_FACTOR = 2.5
SPIKE_SHARE = 0.35
SPIKE_ALONE, SPIKE_OF_UNKNOWN, IMAGES = 0.75, 4.0, 16
# With two classes a few odd images already cost as much as all had cost at the start.
LEAST = 1.5
# Sudden rises of the logarithm of the loss, so many of them, while more than a little of it is left.
JUMP, JUMPS, LITTLE = 0.5, 4, 0.15
# Slow climbs: up to such a share of the first loss, so many of them, at a rate that does not rise after its warm-up.
BACK, WAVES, WARMED_UP = 0.7, 3, 0.2

# Losses that follow a cycle of steps: so many times what chance explains (in its standard deviations). At the height of
# the cycle so much of the loss there is left, at its foot less.
CYCLIC, UNLEARNED = 15.0, 0.55
LAST = 2048


def oscillating(h: History) -> Finding | None:
    if h.first_bad_step is not None or level(h.finite_loss[:10]) <= 0:
        return None
    if impossible_class(h) is not None:
        return None  # the loss swings with the share of that class
    blown = exploding(h)
    if blown is not None and blown.severity == "error":
        return None  # what has no bound swings as well
    return (
        one_class_at_a_time(h) or _swinging(h) or _jumping(h) or _wandering(h) or _heavy(h) or _cyclic(h) or _waving(h)
    )


def _swinging(h: History) -> Finding | None:
    """The last losses lie far apart, and do not fall."""
    loss = h.finite_loss
    window = loss[-60:]
    middle = level(window)
    images = last_batch(h)
    least = SWING if images is None or images < MANY else SWING_OF_MANY
    limit = max(least, SMALL_BATCH / np.sqrt(images)) if images else 2 * SWING
    if images is not None and images < FEW and middle > LEARNED * level(loss[:10]):
        limit = SWING  # so few cannot tell where to go: their noise is what the training suffers from
    # The spread is measured between quartiles: one spike is another finding.
    low, high = np.percentile(window, [25, 75])
    swing = float((high - low) / 1.35 / middle) if middle > 0 else 0.0
    falling = fall_per_step(window) * len(window) > 0.2 * middle
    if swing <= limit or falling or middle < 0.2 * level(loss[:10]) or is_mixed(h):
        return None
    return Finding(
        "oscillating",
        "warning",
        f"over the last {len(window)} steps the loss swings by {swing:.0%} around {middle:.3g} without falling",
        {"swing": swing, "level": middle, "limit": float(limit), "steps": len(window)},
        "Lower the learning rate to a third, or enlarge the batch",
        "SPEC C9",
    )


def _wandering(h: History) -> Finding | None:
    """Steps of batches of one to three images that lead nowhere: their gradients are mostly noise."""
    images = last_batch(h) or FEW
    left, kept, ratio = level(h.finite_loss[-60:]) / level(h.finite_loss[:10]), kept_promise(h), level(ratios(h))
    nowhere = left >= HALF and kept < NOWHERE and ratio >= COARSE
    hardly = left >= SOME and kept < HARDLY and ratio >= COARSER
    if images >= FEW or not (nowhere or hardly):
        return None
    return Finding(
        "oscillating",
        "warning",
        f"the steps of batches of {images} keep {kept:.1%} of the fall that they promise, {left:.0%} of the loss is "
        "left: they go to and fro",
        {"images": images, "kept": kept, "left": left},
        "Enlarge the batch, or lower the learning rate with it",
        "SPEC C9",
    )


def _jumping(h: History) -> Finding | None:
    """Again and again the loss rises at once and has to be brought down anew."""
    loss = h.finite_loss
    if len(loss) < 100 or loss.min() <= 0 or is_mixed(h):
        return None
    middle = medians(np.log(loss), NEAR, len(loss) - NEAR + 1)
    rise = middle[NEAR:] - middle[:-NEAR]
    # Where little is left of the loss, its share is noise.
    rise[np.exp(middle[NEAR:]) < LITTLE * level(loss[:10])] = 0.0
    images = last_batch(h) or 16
    if images <= FEW:
        return None  # so few images jump as they come
    limit = _jump(images)
    jumps: list[int] = []
    for place in np.argsort(-rise):
        if rise[place] < limit:
            break
        if all(abs(place - other) > 2 * NEAR for other in jumps):
            jumps.append(int(place))
    if len(jumps) < JUMPS:
        return None
    steps = sorted(j + NEAR for j in jumps)
    return Finding(
        "oscillating",
        "warning",
        f"{len(steps)} times the loss rose at once by half and more, at steps {listed(steps)}, and had to fall anew",
        {"steps": steps},
        "See whether the batches change at these steps and shuffle all images anew each epoch; else lower the "
        "learning rate",
        "SPEC C9, D7",
    )


def _waving(h: History) -> Finding | None:
    """Time and again the loss comes down and climbs, however slowly, to nearly where it began.

    Not where it climbs from one step to the next, as where tasks change, nor where the rate rises again. Where rare
    classes cost more, so do the batches that happen to hold them.
    """
    loss, lr = h.finite_loss, h.lr
    images = last_batch(h)
    restarts = len(lr) > 0 and bool(np.any(np.diff(lr[int(WARMED_UP * len(lr)) :]) > 0))
    few = images is not None and images <= FEW
    if len(loss) < 2 * PATIENCE or loss.min() <= 0 or few or restarts or unbalanced(h) or is_mixed(h):
        return None
    logs = np.log(loss)
    middle = medians(logs, NEAR, len(loss) - NEAR + 1)
    # Medians of so many windows lie so far apart by chance; of 1.48 times the median distance noise has its deviation.
    noise = 1.48 * level(deviations(logs, NEAR, middle)) * np.sqrt(np.pi / 2 / NEAR)
    apart = 2 * noise * np.sqrt(2 * np.log(len(loss)))
    height = max(_jump(images), float(apart))
    # What lies lower than such a climb begins counts for no more than that.
    lowest = np.log(BACK * level(loss[:10])) - height
    near = medians(logs, 3, len(logs) - 2)
    climbs = [climb for climb in climbs_of(np.maximum(middle, lowest), height) if not at_once(middle, near, climb)]
    if len(climbs) < WAVES:
        return None
    steps = [place + NEAR // 2 for _, place in climbs]
    return Finding(
        "oscillating",
        "warning",
        f"the loss came down and climbed again {len(climbs)} times, each time to {np.exp(height):.2g} times what "
        f"it was and more (at steps {listed(steps)})",
        {"steps": steps, "height": float(np.exp(height))},
        "Lower the learning rate to a third; look for gradients that come late and for steps that are taken too far",
        "SPEC C9",
    )


def _jump(images: int | None) -> float:
    """A rise of the loss's logarithm that a batch of so many images does not make by itself."""
    return max(JUMP, SMALL_BATCH / np.sqrt(images or FEW) / 1.5)


def one_class_at_a_time(h: History) -> Finding | None:
    """Each batch holds few of the classes: what it teaches, the next one unteaches."""
    counts = [s.output.targets for s in h.samples if s.output is not None and s.output.targets is not None]
    counts = [c for c in counts if h.class_counts is not None and len(c) == len(h.class_counts) and c.sum() >= 8]
    if len(counts) < 5 or h.class_counts is None:
        return None
    shares = h.class_counts / h.class_counts.sum()
    known = shares > 0
    if known.sum() < 2:
        return None
    # Pearson's statistic over its degrees of freedom: 1 where batches are drawn from all classes as they come.
    table = np.array(counts)[:, known]
    expected = table.sum(1, keepdims=True) * shares[known]
    uneven = float(np.mean(((table - expected) ** 2 / expected).sum(1)) / (known.sum() - 1))
    largest = float(np.median(table.max(1) / table.sum(1)))
    if uneven < GROUPED or _is_calm(h):
        return None
    return Finding(
        "oscillating",
        "warning",
        f"the batches are not drawn from all classes alike (χ² is {uneven:.1f} times what chance gives; "
        f"{largest:.0%} of the typical batch are of one class, of all images at most {shares.max():.0%}): each batch "
        "unteaches what the last one taught",
        {"chi_square_per_degree": uneven, "largest_share": largest, "share_in_all": float(shares.max())},
        "Shuffle the training images anew each epoch",
        "SPEC C9, D7",
    )


def _is_calm(h: History) -> bool:
    """Whether the loss came down and stays down at every batch: groups of classes by design, which it has learned.

    Not where validation shows that only the last groups are known.
    """
    end = h.finite_loss[-100:]
    known = [(e.train_accuracy, e.val_accuracy) for e in h.epochs[-1:]]
    if any(train is not None and val is not None and val < train - FORGOTTEN for train, val in known):
        return False
    return len(end) == 100 and float(np.quantile(end, 0.95)) < CALM * h.reference_loss


def last_batch(h: History) -> int | None:
    """Images of the last batch whose answers were seen."""
    return next((s.output.images for s in reversed(h.samples) if s.output is not None), None)


def has_mixed_targets(h: History) -> bool:
    """Whether the targets of late batches are shares of several classes."""
    return any(s.output.mixed for s in h.samples[-10:] if s.output is not None)


def is_mixed(h: History) -> bool:
    """Whether the loss swings with the mixture of its batches (mixup): it is no loss of one class an image.

    Seen by the targets, by a loss that is not the cross-entropy of the answers, or by a validation that stands still.
    """
    accuracy = np.array([e.val_accuracy for e in h.epochs if e.val_accuracy is not None])
    steady = len(accuracy) >= 3 and bool(np.all(accuracy[-3:] > accuracy.max() - STEADY))
    return has_another_loss(h) or steady


def has_another_loss(h: History) -> bool:
    """Whether late targets are shares of several classes, or the loss is not the cross-entropy of the answers."""
    if has_mixed_targets(h):
        return True
    loss = h.loss
    outputs = [(float(loss[s.step]), s.output) for s in h.samples[-10:] if s.output is not None and s.step < len(loss)]
    other = [abs(seen - out.as_logits) > 0.2 * seen for seen, out in outputs if out.as_logits is not None]
    return len(other) >= 5 and bool(np.mean(other) > 0.5) and not outputs[-1][1].probabilities


def _heavy(h: History) -> Finding | None:
    """Each step is carried on for hundreds of steps, past every low place."""
    heavy = max((g.momentum for g in h.groups if g.momentum is not None and g.second is None), default=0.0)
    left = share_left(h)
    if not HEAVY < heavy < 1 or len(h.losses) < PATIENCE or not left > LEARNED or h.warming_up:
        return None
    return Finding(
        "oscillating",
        "warning",
        f"a momentum of {heavy:.4g} carries each step on for {1 / (1 - heavy):.0f} more, and {left:.0%} of the loss is "
        "left: the weights swing past what they look for",
        {"momentum": heavy, "left": left},
        "Set the momentum to 0.9, or to 0.99 at a tenth of the rate",
        "SPEC C9, O1",
    )


def _cyclic(h: History) -> Finding | None:
    """The loss depends on a step's place in a cycle: batches come in turns from images of several kinds."""
    loss = h.finite_loss[-min(LAST, len(h.losses) // 2) :]
    ends = np.array([e.step for e in h.epochs])
    steady = len(h.lrs) == len(h.losses) and bool(np.all(np.diff(h.lr[-len(loss) :]) <= 0))
    # A rate that rises makes a cycle of its own, and where no epochs are known images in a fixed order are one.
    widths = {s.output.width for s in h.samples if s.output is not None}
    if len(loss) < PATIENCE // 2 or not steady or len(ends) < 2 or len(widths) > 1:
        return None
    means, strength = best_cycle(loss, set(np.diff(ends).tolist()))
    if strength < CYCLIC or means.max() - means.min() < SWING * level(loss):
        return None
    high, low, period = float(means.max()), float(means.min()), len(means)
    # Tasks in turns have losses of their own: the high one is measured against where it began.
    place = (len(h.finite_loss) - len(loss) // period * period + int(means.argmax())) % period
    begun = level(h.finite_loss[place : ROUNDS * period : period])
    if high < UNLEARNED * begun or low > UNLEARNED * h.reference_loss:
        return None
    return Finding(
        "oscillating",
        "warning",
        f"the loss goes up and down in a cycle of {period} steps, from {low:.3g} to {high:.3g}: the batches come "
        "in turns from images of several kinds",
        {"period": period, "low": low, "high": high, "strength": strength},
        "Shuffle the images of all kinds together anew each epoch; if one kind is never learned, look at its labels",
        "SPEC C9, D7",
    )


def loss_spike(h: History) -> Finding | None:
    loss = h.finite_loss
    if h.first_bad_step is not None:
        return None
    start, width = max(h.reference_loss, LEAST if h.classes == 2 else 0.0), 15
    if len(loss) < width + 10:
        return None
    # Two steps in a row, so that one hard batch is no spike.
    peaks = np.minimum(loss[width:-9], loss[width + 1 : -8])
    usual_at = medians(loss, width, len(peaks))
    noise = deviations(loss, width, usual_at)
    spikes = (peaks - usual_at > SPIKE_SHARE * start) & (peaks > SPIKE_FACTOR * usual_at + 6 * noise)
    # One step alone is a spike where no hard batch could be that high; a batch of few images may well be.
    images = last_batch(h) or 0
    if has_mixed_targets(h):
        return None  # such batches cost what they hold
    if 0 < images <= FEW:
        spikes[:] = False  # two of so few may both be hard
    single, high = loss[width:-9], SPIKE_ALONE * max(1.0, IMAGES / images) if images else SPIKE_OF_UNKNOWN
    alone = (single - usual_at > high * start) & (single > SPIKE_FACTOR * usual_at + 6 * noise)
    spikes |= alone
    peaks = np.where(alone, single, peaks)
    for place in np.flatnonzero(spikes)[:1]:
        step, peak, usual = int(place) + width, float(peaks[place]), float(usual_at[place])
        after = loss[step + 2 :]
        if level(after[-10:]) > 0.5 * (peak + usual):
            return None  # it never came back: that is another finding
        return Finding(
            "loss-spike",
            "warning",
            f"at step {step} the loss jumped from {usual:.3g} to {loss[step : step + 2].max():.3g} and came back",
            {"step": step, "before": usual, "peak": float(loss[step : step + 2].max())},
            "Clip the gradient norm; if it happens again, lower the learning rate or look at that batch",
            "SPEC C9",
        )
    return None


RULES = {
    "oscillating": Rule(oscillating, (needs.steps_or_bad(PATIENCE),)),
    "loss-spike": Rule(loss_spike, (needs.steps_or_bad(50),)),
}

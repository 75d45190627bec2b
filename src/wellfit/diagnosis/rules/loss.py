"""Rules that need no more than the loss of every step: nan, exploding, not-learning, oscillating, loss-spike."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis.history import History, fall_per_step, level
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import (
    PATIENCE,
    goes_uphill,
    guesses_better_than_chance,
    impossible_class,
    is_flat,
    is_waking,
    kept_promise,
    knows_nothing,
    ratios,
    start_and_end,
    was_brief,
)
from wellfit.diagnosis.windows import deviations, medians
from wellfit.findings import Finding

# A loss ten times its start is no fluctuation; three steps of it are no single odd batch.
EXPLODED = 10.0
# What was a hundred times its start and did not come back there has exploded, too.
STILL_HIGH = 1.1
# `rates.lr_too_high` judges from so many steps on.
JUDGED = 20
# Minibatch noise stays below this share of the loss, or below SMALL_BATCH/√images for very small batches.
SWING = 0.35
SMALL_BATCH = 3.0
# Hundreds of images average the noise away.
MANY, SWING_OF_MANY = 256, 0.15
# Batches of fewer images are mostly noise, a fault where more than this share of the loss is left.
FEW, LEARNED = 4, 0.3
# Steps that keep so little of what they promise, while half of the loss is left and they move the weights by so much.
NOWHERE, HALF, COARSE = 5e-3, 0.5, 5e-3
# Classes that come in groups: so many times the spread of the counts that chance gives.
GROUPED = 2.5
# A loss of which no batch costs more than this share of the start has no class to learn anew.
CALM, FORGOTTEN = 0.3, 0.2
# Points of validation accuracy that three epochs in a row may lie below the best one where nothing swings.
STEADY = 0.03
# A spike towers over its neighbourhood: by this factor, and by this share of the first loss.
SPIKE_FACTOR = 2.5
SPIKE_SHARE = 0.35
SPIKE_ALONE, SPIKE_OF_FEW = 0.75, 4.0
# With two classes a few odd images already cost as much as all had cost at the start.
LEAST = 1.5
# Sudden rises of the logarithm of the loss, so many of them, while more than a little of it is left.
JUMP, JUMPS, LITTLE = 0.5, 4, 0.15


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
    if h.class_counts is not None and level(loss[-10:]) < -EXPLODED * max(1.0, abs(float(loss[0]))):
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
    return None


def not_learning(h: History) -> Finding | None:
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


def oscillating(h: History) -> Finding | None:
    if h.first_bad_step is not None or level(h.finite_loss[:10]) <= 0:
        return None
    if impossible_class(h) is not None:
        return None  # the loss swings with the share of that class
    blown = exploding(h)
    if blown is not None and blown.severity == "error":
        return None  # what has no bound swings as well
    return one_class_at_a_time(h) or _swinging(h) or _jumping(h) or _wandering(h)


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
    left, kept = level(h.finite_loss[-60:]) / level(h.finite_loss[:10]), kept_promise(h)
    if images >= FEW or left < HALF or not kept < NOWHERE or level(ratios(h)) < COARSE:
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
    loss, near = h.finite_loss, 7
    if len(loss) < 100 or loss.min() <= 0 or is_mixed(h):
        return None
    middle = medians(np.log(loss), near, len(loss) - near + 1)
    rise = middle[near:] - middle[:-near]
    # Where little is left of the loss, its share is noise.
    rise[np.exp(middle[near:]) < LITTLE * level(loss[:10])] = 0.0
    images = last_batch(h) or 16
    if images <= FEW:
        return None  # so few images jump as they come
    limit = max(JUMP, SMALL_BATCH / np.sqrt(images) / 1.5)  # small batches jump by themselves
    jumps: list[int] = []
    for place in np.argsort(-rise):
        if rise[place] < limit:
            break
        if all(abs(place - other) > 2 * near for other in jumps):
            jumps.append(int(place))
    if len(jumps) < JUMPS:
        return None
    steps = sorted(j + near for j in jumps)
    return Finding(
        "oscillating",
        "warning",
        f"{len(steps)} times the loss rose at once by half and more, at steps {', '.join(map(str, steps[:5]))}"
        f"{', …' if len(steps) > 5 else ''}, and had to fall anew",
        {"steps": steps},
        "See whether the batches change at these steps and shuffle all images anew each epoch; else lower the "
        "learning rate",
        "SPEC C9, D7",
    )


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
    if has_mixed_targets(h):
        return True
    outputs = [(float(h.loss[s.step]), s.output) for s in h.samples[-10:] if s.output is not None]
    other = [abs(seen - out.as_logits) > 0.2 * seen for seen, out in outputs if out.as_logits is not None]
    if len(other) >= 5 and np.mean(other) > 0.5 and not outputs[-1][1].probabilities:
        return True
    accuracy = np.array([e.val_accuracy for e in h.epochs if e.val_accuracy is not None])
    return len(accuracy) >= 3 and bool(np.all(accuracy[-3:] > accuracy.max() - STEADY))


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
    single, high = loss[width:-9], SPIKE_ALONE if images >= 16 else SPIKE_OF_FEW
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
    "nan": Rule(nan, (needs.steps(1),)),
    "exploding": Rule(exploding, (needs.steps_or_bad(10, above_zero=False),)),
    "not-learning": Rule(not_learning, (needs.steps_or_bad(PATIENCE),)),
    "oscillating": Rule(oscillating, (needs.steps_or_bad(PATIENCE),)),
    "loss-spike": Rule(loss_spike, (needs.steps_or_bad(50),)),
}

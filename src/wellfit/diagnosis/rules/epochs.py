"""Rules about the curves of whole epochs: labels-shuffled, overfitting, underfitting, plateau, still-improving."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis.history import Floats, History
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.inputs import both_sides
from wellfit.diagnosis.rules.likeness import little_left
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import (
    EXPLODED,
    is_flat,
    knows_nothing,
    rose_beyond,
)
from wellfit.diagnosis.rules.step_lengths import (
    decay_at_a_step,
    decays_hard,
    promised_share,
)
from wellfit.diagnosis.rules.swings import has_another_loss
from wellfit.findings import Finding

# A gap between training and validation accuracy that is worth acting on (SPEC C9).
GAP = 0.1
# Training accuracy that is poor, and a rise an epoch that is still one.
POOR = 0.75
RISING = 0.015
# As much time again, at the pace of the end, that would go this share of the way to what is not poor is no way.
FAR = 0.33
# What some hundred validation images leave open of an accuracy.
UNSURE = 0.05
# The training loss of a plateau may creep on: what is left of it from one third of the run to the next.
CREEPING = 0.7
# A validation loss this far above its best, for this many epochs in a row, has turned.
TURNED = 1.1
TURNED_EPOCHS = 3
# What is learned by heart, and the gap to what is not, after which half a run without gain is overfitting.
BY_HEART, WIDE_GAP, MEMORISED_EPOCHS = 0.98, 0.15, 4
# An accuracy that moved less than this did not move; one that gains this much an epoch still does.
STILL = 0.015
GAINING = 0.005
# An accuracy that jumps by so much from epoch to epoch, while its mean stands and the loss's does not fall below this
# share of what it was, is thrown about by the rate rather than led by it.
THROWN, LOSS_STANDS = 0.015, 0.9
# Where validation never got so much better than after the first epoch, it is no rate that has done its work.
ROSE = 0.08
# Validation accuracy from which there is little left to gain.
ALL_LEARNED = 0.985
# An accuracy in training of less than this share of validation's is kept down by something that validation is free of;
# where validation is better than this, it may be so on purpose, and less often where the images show what it is.
DISTURBED, WELL, EVIDENT = 0.6, 0.8, 0.9
DISTURBANCE = (
    "something that training alone has, such as dropped units, strong augmentation or wrong labels, keeps it down"
)
# From so many epochs on half of them tell as well whether a curve has stopped rising.
LONG = 8
# A run of fewer steps is too short to say what the network could fit.
SHORT = 100
# Dropout of more, and fewer weights that learn than these leave a net too weak to fit.
DROPPED, FEW_WEIGHTS = 0.65, 500
# A training loss that falls by this share of its start each epoch is on its way.
FALLING = 0.02


BOTH = ("train_accuracy", "val_accuracy")


def curves(h: History, *names: str) -> tuple[Floats, ...]:
    """One array a figure, over the epochs that have all of them."""
    full = [e for e in h.epochs if all(getattr(e, n) is not None for n in names)]
    return tuple(np.array([getattr(e, n) for e in full], np.float64) for n in names)


def labels_shuffled(h: History) -> Finding | None:
    """Training is learned by heart while validation stays where guessing is."""
    train, val = curves(h, "train_accuracy", "val_accuracy")
    chance = _chance(h)
    learned = train[-1] > chance + (0.1 if _surely_wrong(h) else 0.25) * (1 - chance) and train[-1] - train[0] > 0.1
    if not (learned and _guesses(h)) or rose_beyond(h, EXPLODED):
        return None  # what exploded guesses as well
    return Finding(
        "labels-shuffled",
        "error",
        f"training accuracy rose to {train[-1]:.2f} while validation stays at {val[-1]:.2f}, where guessing gives "
        f"{chance:.2f}",
        {"train_accuracy": train.tolist(), "val_accuracy": val.tolist(), "chance": chance},
        "Look at images beside their labels on both sides: names and images may have been sorted differently",
        "SPEC C9",
    )


def _surely_wrong(h: History) -> bool:
    """Whether validation's loss has risen above what knowing nothing costs: what was learned does not hold there."""
    (loss,) = curves(h, "val_loss")
    return (
        h.chance_loss is not None
        and len(loss) >= TURNED_EPOCHS
        and bool(np.all(loss[-TURNED_EPOCHS:] > 1.05 * h.chance_loss))
    )


def overfitting(h: History) -> Finding | None:
    train, val = curves(h, "train_accuracy", "val_accuracy")
    gap = float(np.mean(train[-2:] - val[-2:]))
    if gap < GAP:
        return None
    (val_loss,) = curves(h, "val_loss")
    best = int(np.argmin(val_loss)) if len(val_loss) else 0
    turned = len(val_loss) > TURNED_EPOCHS and bool(
        np.all(val_loss[-TURNED_EPOCHS:] > TURNED * val_loss[best]) and best < len(val_loss) - TURNED_EPOCHS
    )
    fell = bool(np.all(val[-TURNED_EPOCHS:] < val.max() - 0.02)) and train[-1] > train[int(np.argmax(val))]
    half = len(val) // 2
    by_heart = half >= MEMORISED_EPOCHS and bool(np.all(train[-TURNED_EPOCHS:] > BY_HEART))
    by_heart &= gap > WIDE_GAP and val[half:].max() < val[:half].max() + STILL
    if not (turned or fell or by_heart):
        # A gap alone is what every net shows that fits its training images well.
        return Finding(
            "overfitting",
            "info",
            f"training accuracy is {train[-1]:.2f}, validation {val[-1]:.2f}, a gap of {gap:.2f}; validation has not "
            "turned worse",
            {"gap": gap, "train_accuracy": float(train[-1]), "val_accuracy": float(val[-1])},
            "More augmentation, weight decay or data may narrow the gap",
            "SPEC C9",
        )
    what = "is no better than in the first half of the run"
    if turned or fell:
        what = f"loss is {val_loss[-1] / val_loss[best]:.2f} times its best" if turned else "fell"
        what += f" of epoch {(best if turned else int(np.argmax(val))) + 1}"
    return Finding(
        "overfitting",
        "warning",
        f"training accuracy is {train[-1]:.2f}, validation {val[-1]:.2f}, and validation {what}",
        {"gap": gap, "val_loss": val_loss.tolist(), "val_accuracy": val.tolist()},
        "Keep the weights of the best epoch, and train with more augmentation, weight decay or data",
        "SPEC C9, R3",
    )


def underfitting(h: History) -> Finding | None:
    """Training itself is poor, has stopped rising, and validation is no worse."""
    if h.first_bad_step is not None or 0 < len(h.losses) < SHORT:
        return None
    train, val = curves(h, "train_accuracy", "val_accuracy")
    chance, slope = _chance(h), _rise(train)
    above_chance = max(train[-1], val[-1]) > chance + 0.05 * (1 - chance) or _fell(h)
    gap = float(np.mean(train[-2:] - val[-2:]))
    disturbed = _is_disturbed(h, train, val)
    best = float(train[-1] if disturbed else max(train[-1], val[-1]))
    held_back = (_held_back(h) or (DISTURBANCE if disturbed else None)) if slope < 3 * RISING else None
    stopped = slope < RISING or slope * len(train) < FAR * (POOR - best) or held_back is not None
    if not (stopped and above_chance and best < POOR and gap < GAP):
        return None
    beside = f"stands {'above' if disturbed else 'beside'} it at {val[-1]:.2f}"
    return Finding(
        "underfitting",
        "warning",
        f"training accuracy {'creeps' if held_back else 'stopped'} at {train[-1]:.2f}, and validation {beside}"
        f"{f'; {held_back}' if held_back else ''}",
        {"train_accuracy": train.tolist(), "val_accuracy": val.tolist()},
        "Look at training images and labels as the network gets them; then use less regularisation or augmentation"
        if disturbed
        else "Use a larger network, less regularisation or augmentation, or a learning rate found by search",
        "SPEC C9",
    )


def _rise(train: Floats) -> float:
    """How much the accuracy rises an epoch at the end of a run; of a long one by its last half, where the last third
    rises little enough for that to be chance."""
    late = _slope(train[-max(3, len(train) // 3) :])
    return min(late, _slope(train[-(len(train) // 2) :])) if len(train) >= LONG and late < 2 * RISING else late


def _is_disturbed(h: History, train: Floats, val: Floats) -> bool:
    """Whether validation, poor itself and no longer rising, shows that more is known than training lets through.

    Not where training mixes images or has a loss of its own: there it is so by design.
    """
    ours, theirs = float(train[-2:].mean()), float(val[-2:].mean())
    far = theirs - ours > WIDE_GAP and ours < DISTURBED * theirs and _rise(val) < RISING
    poor = far and (theirs < WELL or (theirs < EVIDENT and _little_left(h) is not None))
    return poor and not has_another_loss(h)


def _slope(curve: Floats) -> float:
    """Least-squares rise an epoch."""
    return float(np.polyfit(np.arange(len(curve)), curve, 1)[0])


def _held_back(h: History) -> str | None:
    """What keeps the network from fitting, in words: most units are dropped, the weights decay fast, there are hardly
    any, or augmentation leaves little of the images."""
    learning = sum(p.size for p in h.parameters if p.requires_grad and p.in_optimizer)
    dropped = float(np.median(h.dropped)) if h.dropped else 0.0
    if dropped > DROPPED:
        return f"dropout takes {dropped:.0%} of the units"
    if decays_hard(h):
        return f"weight decay takes up to {decay_at_a_step(h):.2g} of the weights at a step"
    if 0 < learning < FEW_WEIGHTS:
        return f"only {learning} weights learn"
    return _little_left(h)


def _little_left(h: History) -> str | None:
    """Whether augmentation leaves little of the training images, in words."""
    return next((said for _, train, val in both_sides(h) if (said := little_left(train, val))), None)


def _fell(h: History) -> bool:
    """Whether the loss shows something learned where the accuracy hardly does."""
    return len(h.losses) > 0 and not (is_flat(h) or knows_nothing(h))


def plateau(h: History) -> Finding | None:
    """Validation has not improved for a third of the run, and the learning rate was never lowered."""
    train, val, accuracy = curves(h, "train_loss", "val_loss", "val_accuracy")
    third = max(3, len(val) // 3)
    # Within noise: the best of the last third is no better than the best before.
    crept = train[-third:].mean() > CREEPING * train[-2 * third : -third].mean()
    stood = crept and val[-third:].min() > 0.99 * val[:-third].min()
    # Over half of the run training may go on: what validation was to gain from this rate, it has.
    half = len(val) // 2
    stood |= (
        half >= 5
        and val[-half:].min() > 0.99 * val[:-half].min()
        and accuracy[-half:].max() < accuracy[:-half].max() + STILL
    )
    gained = accuracy[-third:].max() - accuracy[:-third].max() > STILL
    if not stood and _thrown_about(val, accuracy, third):
        stood, gained = True, False
    constant = not len(h.lrs) or h.lr[int(h.lr.argmax()) :].min() > 0.5 * h.lr.max()
    # It has learned something, and not everything.
    ground = h.reference_loss
    comparable = val[0] < 5 * train[0]  # or else they are two kinds of loss
    half_way = (0.1 * ground < train[-1] or (comparable and 0.2 * ground < val[-1])) and train[-1] < 0.9 * ground
    half_way &= accuracy[-third:].mean() < ALL_LEARNED
    overshoots = promised_share(h) > 1 and train[-1] > 0.5 * ground  # nothing was learned that a lower rate refines
    rose = accuracy.max() > accuracy[0] + ROSE
    if not stood or gained or not constant or not half_way or not rose or _guesses(h) or overshoots:
        return None
    return Finding(
        "plateau",
        "warning",
        f"for {third} epochs validation has not improved (loss now {val[-1]:.3g}, at best {val.min():.3g}; training "
        f"{train[-1]:.3g}), and the learning rate was never lowered",
        {"epochs": third, "train_loss": train.tolist(), "val_loss": val.tolist()},
        "Lower the learning rate tenfold now",
        "SPEC C9, O9",
    )


def _thrown_about(loss: Floats, accuracy: Floats, third: int) -> bool:
    """Whether validation jumps from epoch to epoch and is no better on average than a third of the run before.

    The best of noisy epochs grows with their number, so that means are compared here.
    """
    if len(loss) < 3 * third or third < 4:
        return False
    jumps = float(np.mean(np.abs(np.diff(accuracy[-2 * third :]))))
    gain = float(accuracy[-third:].mean() - accuracy[-2 * third : -third].mean())
    stands = loss[-third:].mean() > LOSS_STANDS * loss[-2 * third : -third].mean()
    return jumps > THROWN and gain < STILL and bool(stands)


def _guesses(h: History) -> bool:
    """Whether validation stands where guessing is: no rate is at fault for that.

    Always saying the largest class of training is right as often there only where validation has as many of it.
    """
    (val,) = curves(h, "val_accuracy")
    chance, even = _chance(h), 1 / h.classes if h.classes else 0.5
    last = val[-3:]
    about = (last < chance + 0.1 * (1 - chance)) & (last > chance - UNSURE)
    return bool(np.all(about | (last < even + 0.1 * (1 - even))))


def still_improving(h: History) -> Finding | None:
    (val,) = curves(h, "val_accuracy")
    third = max(3, len(val) // 3)
    gain = float(np.polyfit(np.arange(third), val[-third:], 1)[0])
    if gain >= GAINING and int(np.argmax(val)) >= len(val) - 2:
        return Finding(
            "still-improving",
            "info",
            f"over the last {third} epochs validation accuracy rose by {100 * gain:.1f} points an epoch, to "
            f"{val[-1]:.3f}",
            {"val_accuracy": val.tolist(), "gain_per_epoch": gain},
            "Train longer",
            "SPEC C9",
        )
    (loss,) = curves(h, "train_loss")
    both = curves(h, *BOTH)
    if len(loss) < 3 or not loss[0] > 0 or (len(both[0]) >= 2 and overfitting(h) is not None):
        return None
    fall = float(-np.polyfit(np.arange(3), loss[-3:], 1)[0]) / loss[0]
    if fall < FALLING or not np.all(np.diff(loss[-3:]) < 0) or loss[-1] < 0.2 * loss[0]:
        return None
    return Finding(
        "still-improving",
        "info",
        f"over the last 3 epochs training loss still fell by {fall:.0%} of its start an epoch, to {loss[-1]:.3g}, and "
        "validation does not lag behind",
        {"train_loss": loss.tolist(), "fall_per_epoch": fall},
        "Train longer",
        "SPEC C9",
    )


def _chance(h: History) -> float:
    """What always saying the largest class gives; 1/C when the counts are not known."""
    if h.class_counts is not None and h.class_counts.sum():
        return float(h.class_counts.max() / h.class_counts.sum())
    return 1 / h.classes if h.classes else 0.5


RULES = {
    "labels-shuffled": Rule(labels_shuffled, (needs.classes, needs.epochs(3, *BOTH))),
    "overfitting": Rule(overfitting, (needs.epochs(4, *BOTH),)),
    "underfitting": Rule(underfitting, (needs.classes, needs.epochs(5, *BOTH))),
    "plateau": Rule(plateau, (needs.epochs(6, "train_loss", "val_loss", "val_accuracy"),)),
    "still-improving": Rule(still_improving, (needs.epochs(3, "val_accuracy"),)),
}

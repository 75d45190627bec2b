"""Rules about the learning rate: lr-too-high, lr-too-low, decayed-too-early."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis.history import History, fall_per_step, level
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.long_steps import long_steps, updates_too_large
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import (
    COLLAPSED,
    PATIENCE,
    begins_saturated,
    chance,
    has_collapsed,
    has_no_floor,
    impossible_class,
    is_flat,
    knows_nothing,
    share_left,
    start_and_end,
    starts_with_knowledge,
    was_brief,
    weights_shrank,
)
from wellfit.diagnosis.rules.step_lengths import (
    cause_of_long_steps,
    decays_hard,
    goes_uphill,
    kept_promise,
    median_ratio,
    promised_share,
    ratios,
)
from wellfit.diagnosis.rules.swings import is_mixed, oscillating
from wellfit.diagnosis.rules.updates import SMALL, gradient_of_weights, vanishing_gradient
from wellfit.findings import Finding

# The cost above which a search breaks a trial off (SPEC S3), and a rise that noise does not make.
BROKEN_OFF = 3.0
RISEN = 1.3
# Updates of this share of the weights overwrite them rather than adjust them (about 1e-3 is wanted, SPEC C8).
COARSE = 0.03
OVERWRITING = 0.2
LARGE, STEADY = 0.1, 0.01
FINE, GENTLE = 3e-4, 6e-4
TINY = 1e-5
# Steps that are longer than about 1e-3 of the weights want no raising, however well they keep their promise.
USUAL = 2e-3
# Steps that keep less of what they promise, and promise so much of the loss at once, are taken in vain.
VAIN, MUCH = 3e-3, 0.2
# A loss that ends this far above its lowest fifth, the fifth before that far, climbs.
CLIMBED, RISEN_AGAIN, CLIMBED_OF_ALL = 1.4, 1.15, 0.05
# A rate that rises by so much, so often, comes and goes.
CYCLE, CYCLES = 4.0, 3
# The first steps.
FIRST = 20
# A loss thrown so far above its start was no noise, whatever became of it.
THROWN = 8.0
# Steps that keep more of their promise than this, while more than this share of the loss is left, are too short.
# What is far more than was promised came from somewhere else.
KEPT, OVER_KEPT = 0.6, 1.6
# Less is telling where small steps have left nearly all of it.
KEPT_AT_THE_START, STUCK = 0.25, 0.8
# A rate that is gone after this share of the run had no time to teach anything.
NO_TIME = 0.3
# Steps at this share of the largest rate change nothing; this much of a run is a waste, unless all is learned.
NOTHING, WASTED, LEARNED = 1e-3, 0.3, 0.02
SLOW = 0.4
# A run whose steps all together promise to move the loss, and do move it, by less than this share.
PROMISED = 0.05
# Noise makes gradients promise more than they know: where no layer is in the way, this much is still little.
UNKEPT = 0.5


def lr_too_high(h: History) -> Finding | None:
    loss, start = h.finite_loss, h.reference_loss
    bad = h.first_bad_step
    if len(loss) == 0 or start <= 0:
        return None
    peak, seen, end = float(loss.max()), ratios(h), level(loss[-10:])
    largest = float(seen.max(initial=0.0))
    lost = bad is not None and bad > 0 and (peak > BROKEN_OFF * start or largest > OVERWRITING)
    # A net may start above what chance gives, and be thrown back to chance.
    stuck_high = bad is None and len(loss) >= 20 and end > 0.95 * min(start, chance(h) or start)
    stuck_high &= not begins_saturated(h)
    broken = stuck_high and (peak > BROKEN_OFF * start or (peak > RISEN * start and largest > COARSE))
    # Large steps, be it within a warm-up, silenced every difference between images.
    silenced = bad is None and has_collapsed(h) and _steps_before_silence(h) > LARGE
    # It may learn something all the same, with what the first steps left alive.
    thrown = peak > THROWN * start and max(largest, _longest_first_step(h)) > LARGE
    long = long_steps(h)
    coarse = long is not None and long.severity != "info"
    # Where the rate is known to be the cause of steps that are too long in another way, it is too high.
    if len(loss) >= PATIENCE and cause_of_long_steps(h) == "lr-too-high":
        others = (rule(h) for rule in (updates_too_large, oscillating))
        coarse = coarse or any(other is not None and other.severity != "info" for other in others)
    coarse &= not _comes_and_goes(h) and not begins_saturated(h)
    lowest = _lowest_before_climbing(h)
    in_vain = _in_vain(h)
    if not (lost or broken or silenced or thrown or coarse or in_vain or lowest is not None):
        return None
    if (weights_shrank(h) or decays_hard(h)) and peak < BROKEN_OFF * start:
        return None  # updates that large come from weight decay
    if peak > BROKEN_OFF * start and len(seen) >= 3 and largest < STEADY and not thrown:
        return None  # steps that short throw nothing: what grows does so by itself
    if goes_uphill(h) or has_no_floor(h) or impossible_class(h) is not None:
        return None  # a lower rate would climb or fall as well; none lowers the cost of a class that cannot be said
    now = f"became {h.loss[bad]} at step {bad}" if bad is not None else f"stands at {end:.3g}"
    way = f"up to {peak:.3g}" if lowest is None else f"down to {lowest:.3g}, climbed again"
    beside = f"; the largest updates were {largest:.1g} of the weights" if len(seen) else ""
    return Finding(
        "lr-too-high",
        "error" if lost or broken or silenced else "warning",
        f"the loss went from {start:.3g} {way} and {now}{beside}"
        + (", after which all images got the same answer" if silenced else ""),
        {"start": start, "peak": peak, "bad_step": bad, "largest_update_ratio": largest, "lr": last_lr(h)},
        "Lower the learning rate tenfold; if it explodes then too, the initialisation or the input scale is the cause",
        "SPEC C5, C8",
    )


def _lowest_before_climbing(h: History) -> float | None:
    """How far the training loss had come down before it climbed again for good, without swinging; None where not."""
    losses = h.finite_loss
    if h.first_bad_step is not None or len(losses) < 2 * PATIENCE or h.warming_up or is_mixed(h):
        return None
    if oscillating(h) is not None:
        return None
    fifths = np.array([level(part) for part in np.array_split(losses, 5)])
    lowest = float(fifths[:3].min())
    far = fifths[-1] - lowest > CLIMBED_OF_ALL * h.reference_loss
    climbs = fifths[-2] > RISEN_AGAIN * lowest and fifths[-1] > CLIMBED * lowest and lowest < STUCK * h.reference_loss
    return lowest if far and climbs else None


def _in_vain(h: History) -> bool:
    """Whether long steps that promise much bring next to nothing of it, while most of the loss is left."""
    if len(h.losses) < PATIENCE or h.first_bad_step is not None or begins_saturated(h):
        return False
    return bool(share_left(h) > 0.5 and kept_promise(h) < VAIN and promised_share(h) > MUCH and level(ratios(h)) > 0.01)


def _longest_first_step(h: History) -> float:
    """The largest update of any one weight, as a share of it, where the first steps threw the loss; else 0.

    One group of weights may have a rate of its own.
    """
    if int(np.nanargmax(np.where(np.isfinite(h.loss), h.loss, -np.inf))) >= FIRST:
        return 0.0
    seen = [s.update_ratio[h.weights] for s in h.finite_samples if s.step < FIRST and len(h.weights)]
    return float(np.nanmax(seen, initial=0.0)) if seen else 0.0


def _steps_before_silence(h: History) -> float:
    """The largest typical update, as a share of the weights, up to where the answers became alike."""
    seen = [s for s in h.finite_samples if s.output is not None]
    loud = [i for i, s in enumerate(seen) if s.output is not None and s.output.spread > COLLAPSED]
    steps = np.array([median_ratio(h, s) for s in seen[: loud[-1] + 2 if loud else 0]])
    return float(np.nanmax(steps)) if np.isfinite(steps).any() else 0.0


def _comes_and_goes(h: History) -> bool:
    """Whether the rate rises again and again: it is too high at times, and the coming and going is the fault."""
    rates = h.lr[h.lr > 0]
    if not len(rates):
        return False
    high = rates > np.sqrt(rates.max() * rates.min())
    return rates.max() > CYCLE * rates.min() and int(np.sum(high[1:] & ~high[:-1])) >= CYCLES


def lr_too_low(h: History) -> Finding | None:
    """Nothing is in the way of the loss: the steps are too short to get anywhere.

    First order says what a step is to bring, −g·Δw. A network that cannot learn takes steps that promise much and
    bring nothing. Steps that are too short promise little, and what little they promise they keep.
    """
    loss = h.finite_loss
    samples = [s for s in h.finite_samples if np.isfinite(s.promised) and h.at_full_rate(s.step)]
    seen = ratios(h)
    if len(samples) < 3 or len(seen) < 3 or h.first_bad_step is not None or len(loss) < PATIENCE:
        return None
    if not any(s.total_gradient > 0 for s in samples) or (
        h.warming_up and seen[-1] > (FINE if len(loss) >= 2 * PATIENCE else SMALL)
    ):
        return None
    start, end = start_and_end(h)
    ratio = level(seen)
    if ratio == 0 or not gradient_of_weights(h, samples[-1]) > 0 or vanishing_gradient(h) is not None:
        return None  # it is the gradient that is missing
    promised = float(np.mean([s.promised for s in samples])) * len(loss)
    still = is_flat(h, moved=PROMISED) or knows_nothing(h)
    little = PROMISED if _is_blocked(h) else UNKEPT
    idle = still and ratio < FINE and promised < little * start
    tiny = 0 < seen.max() < TINY and promised < 0.2 * start and end > 0.8 * start and not starts_with_knowledge(h)
    kept = kept_promise(h)
    enough = KEPT if ratio > GENTLE or end < STUCK * start else KEPT_AT_THE_START
    slow = enough < kept < OVER_KEPT and end > SLOW * start and ratio < USUAL and not starts_with_knowledge(h)
    if not (idle or tiny or slow):
        return None
    how = f", {kept:.0%} of what the steps promised to first order, so that they could be longer" if slow else ""
    return Finding(
        "lr-too-low",
        "warning",
        f"in {len(loss)} steps the loss went from {level(loss[:10]):.6g} to {end:.6g}{how}; "
        f"updates are {ratio:.1g} of the weights, about 1e-3 is usual",
        {"start": start, "end": end, "update_ratio": ratio, "promised_fall": promised, "lr": last_lr(h)},
        "Raise the learning rate tenfold until the loss falls within 100 steps; if none helps, suspect the "
        "initialisation",
        "SPEC C5, C6, C8",
    )


def _is_blocked(h: History) -> bool:
    """Whether units that are dead or at their ends keep the gradient small."""
    last = h.finite_samples[-1].layers
    return any(max(layer.dead or 0.0, layer.saturated or 0.0) > 0.5 for layer in last)


def decayed_too_early(h: History) -> Finding | None:
    """The rate was cut in the first half of the run, while the loss still fell, and the fall ended there."""
    loss, lr = h.finite_loss, h.lr
    top = int(np.argmax(lr))
    small = np.flatnonzero(lr[top:] < 0.11 * lr.max())
    if h.first_bad_step is not None or len(small) == 0 or not len(loss) or not lr.max() > 0:
        return None
    cut = top + int(small[0])
    if was_brief(h, cut) and lr_too_high(h) is not None:
        return None  # it was high time
    nothing = np.flatnonzero(lr[top:] >= NOTHING * lr.max())[-1] + top + 1  # from here on no step is worth its name
    wasted = (len(loss) - nothing) / len(loss)
    if len(lr) == len(loss) and wasted > WASTED and level(loss[-20:]) > LEARNED * loss[0]:
        return _decayed(
            h,
            int(nothing),
            f"and below a thousandth of its largest, so that {wasted:.0%} of the run change nothing",
            {"wasted": wasted, "loss": level(loss[-20:])},
        )
    after = loss[cut:]
    if len(after) < max(20, cut) or lr[cut:].max() > 0.5 * lr.max():
        return None
    if cut < NO_TIME * len(loss) and (is_flat(h) or knows_nothing(h)) and lr_too_high(h) is None:
        start, left = start_and_end(h)
        return _decayed(
            h, cut, f"before anything was learned: the loss stands at {left:.3g}", {"start": start, "loss": left}
        )
    # The decay of a smooth schedule begins well before: the stretch compared ends where the rate was still high.
    high_end = top + int(np.flatnonzero(lr[top:cut] >= 0.5 * lr.max())[-1]) + 1 if cut > top else cut
    # Only the last third before the cut counts: every training falls quickly at its very start.
    width = min(len(after), max(20, high_end // 3), 200)
    if high_end < width:
        high_end = min(cut, len(loss))
        width = min(width, high_end)
    if width < 10:
        return None
    before = loss[high_end - width : high_end]
    was = fall_per_step(before) * width
    # The first steps at the new rate may bring the sudden drop of a well-timed decay.
    now = level(before[-10:]) - level(after[-10:])
    left = level(after[-10:])
    noise = float(np.std(before - np.linspace(before[0], before[-1], width))) / np.sqrt(width)
    if was < max(0.05 * level(before), 4 * noise) or now > 0.5 * was * len(after) / width or left < 0.3 * loss[0]:
        return None
    return _decayed(
        h,
        cut,
        f"while the loss was still falling by {was:.2g} in {width} steps; since then it went to {left:.3g} only",
        {"fall_before": was, "fall_after": now, "steps": width, "loss": left},
    )


def _decayed(h: History, cut: int, when: str, evidence: dict[str, float]) -> Finding:
    lr = h.lr
    return Finding(
        "decayed-too-early",
        "warning",
        f"the learning rate fell from {lr.max():.2g} to {lr[cut]:.2g} by step {cut} of {len(lr)} {when}",
        {"step": cut, **evidence},
        "Keep the first learning rate until the loss levels off, then lower it",
        "SPEC C9, O9",
    )


def last_lr(h: History) -> float | None:
    return float(h.lr[-1]) if len(h.lrs) else None


RULES = {
    "lr-too-high": Rule(lr_too_high, (needs.steps_or_bad(20),)),
    "lr-too-low": Rule(lr_too_low, (needs.steps_or_bad(PATIENCE), needs.samples(3))),
    "decayed-too-early": Rule(decayed_too_early, (needs.steps_or_bad(PATIENCE), needs.lrs)),
}

"""The rule wrong-batchnorm-mode: BatchNorm by its running statistics in training, or by the batch in validation."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis.history import Epoch, History, Sample
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import (
    share_left,
    starts_with_knowledge,
)
from wellfit.findings import Finding

# Watched steps that must agree.
PATIENCE = 2
# A batch of so few images has no statistics to normalise it by.
FEW = 2
# Running statistics are replaced, not averaged, where a new batch weighs more than this.
HEAVY = 0.5
# After so many steps they should stand by the batches: within so many of their standard deviations, and a factor.
SETTLED = 100
FAR_MEAN = 0.5
FAR_VAR = float(np.log(2))
# What is left of the loss where a network has learned with the statistics as they are.
LEARNED = 0.3
# What may still be left of the values they began with.
LEFT = 0.3

TRAIN = "Call model.train() at the start of every training epoch, after each evaluation too"
EVALUATE = "Call model.eval() before every evaluation, and model.train() after it"


def wrong_batchnorm_mode(h: History) -> Finding | None:
    if not h.batchnorms:
        return None
    return (
        _trained_in_evaluation(h)
        or _never_by_the_batch(h)
        or _validated_in_training(h)
        or _single_images(h)
        or _never_following(h)
    )


def _trained_in_evaluation(h: History) -> Finding | None:
    """The whole network trains in evaluation mode. BatchNorm layers alone, or those not trained, are a choice."""
    learning, seen = _watched_layers(h)
    if not learning.any():
        return None
    asleep = [_is_asleep(s, learning) for s in seen]
    if len(asleep) < PATIENCE or not all(asleep[-PATIENCE:]):
        return None
    awake = [s.step for s, a in zip(seen, asleep, strict=True) if not a]
    since = next(s.step for s in seen if not awake or s.step > awake[-1])
    when = f"since step {since}" if awake else "from the first step on"
    return Finding(
        "wrong-batchnorm-mode",
        "error" if _far(seen[-1]) else "warning",
        f"training ran in evaluation mode {when}: {int(learning.sum())} BatchNorm layers normalise by running "
        "statistics, which no longer follow the batches",
        {"since": since, "layers": int(learning.sum()), "was_training": bool(awake), **_gaps(seen[-1])},
        TRAIN,
        "SPEC N2",
    )


def _never_by_the_batch(h: History) -> Finding | None:
    """BatchNorm alone is held in evaluation mode in a network that knows nothing: it normalises by what it began with.

    In a fine-tune that is a choice.
    """
    learning, seen = _watched_layers(h)
    if not learning.any() or len(seen) < PATIENCE or seen[0].step > 0 or starts_with_knowledge(h):
        return None
    if not all(_by_running(s, learning) for s in seen):
        return None
    if share_left(h) < LEARNED or not (_far(seen[0]) and _far(seen[-1])):
        return None  # a fine-tune with a new head begins at chance, and learns with the statistics that it was given
    return Finding(
        "wrong-batchnorm-mode",
        "warning",
        f"{int(learning.sum())} BatchNorm layers have been in evaluation mode from the first step on, with running "
        "statistics that are far from the batches: they normalise nothing",
        {"layers": int(learning.sum()), **_gaps(seen[-1])},
        "Call model.train() before training; freeze BatchNorm only in a network that was trained before",
        "SPEC N2",
    )


def _watched_layers(h: History) -> tuple[np.ndarray, list[Sample]]:
    """Which BatchNorm layers learn and keep running statistics, and the watched steps that show all layers."""
    learning = np.array([b.learns and b.running for b in h.batchnorms], bool)
    return learning, [s for s in h.samples if s.modes is not None and len(s.modes.evaluating) == len(learning)]


def _is_asleep(sample: Sample, learning: np.ndarray) -> bool:
    return sample.modes is not None and not sample.modes.training and _by_running(sample, learning)


def _by_running(sample: Sample, learning: np.ndarray) -> bool:
    return sample.modes is not None and bool(sample.modes.evaluating[learning].all())


def _validated_in_training(h: History) -> Finding | None:
    epochs = _validated(h)
    if not epochs or not any(b.running for b in h.batchnorms):
        return None
    wrong = [k for k, e in epochs if e.passes and 0 < e.passes.passes == e.passes.training == e.passes.by_batch]
    number, last = epochs[-1]
    if number not in wrong or last.passes is None:
        return None
    return Finding(
        "wrong-batchnorm-mode",
        "warning",
        f"validation of epoch {number} ran in training mode: its figures depend on which images share a batch"
        + (f"; so did that of {len(wrong) - 1} epochs before" if len(wrong) > 1 else ""),
        {"epochs": wrong[:50], "passes": last.passes.passes, "smallest_batch": last.passes.smallest},
        EVALUATE,
        "SPEC N2",
    )


def _single_images(h: History) -> Finding | None:
    epochs = _validated(h)
    without = [b.name for b in h.batchnorms if not b.running]
    if not epochs or not without:
        return None
    number, last = epochs[-1]
    # The last batch of a set may hold what is left of it; a history may know no more than the smallest.
    size = (last.passes.usual or last.passes.smallest) if last.passes else None
    if size is None or size > FEW or last.passes is None or last.passes.passes < 2:
        return None
    return Finding(
        "wrong-batchnorm-mode",
        "warning",
        f"validation of epoch {number} ran on batches of {size}, and {len(without)} BatchNorm layers keep no "
        "running statistics: each batch is normalised by itself",
        {"layers": without[:50], "batch": size},
        "Set track_running_stats=True and call model.eval() before every evaluation",
        "SPEC N2",
    )


def _never_following(h: History) -> Finding | None:
    """A momentum that lets running statistics stand still, or makes them those of the last batch alone."""
    running = np.array([b.running for b in h.batchnorms], bool)
    momenta = np.array([np.nan if b.momentum is None else b.momentum for b in h.batchnorms])
    asleep = [s.modes.evaluating for s in h.samples[-1:] if s.modes is not None]
    heavy = running & (momenta > HEAVY) & ~(asleep[0] if asleep else False)
    if heavy.any():
        momentum = float(momenta[heavy].max())
        return Finding(
            "wrong-batchnorm-mode",
            "warning",
            f"{int(heavy.sum())} BatchNorm layers have momentum {momentum:g}, which in PyTorch is the weight of the "
            "newest batch: their running statistics are hardly more than those of the last batch",
            {"momentum": momentum, "layers": int(heavy.sum())},
            f"Set momentum to {1 - momentum:.3g}: PyTorch's is one minus that of other frameworks",
            "SPEC N2",
        )
    seen = [s for s in h.finite_samples if s.modes is not None][-PATIENCE:]
    steps = len(h.losses)
    if len(seen) < PATIENCE or seen[0].step < SETTLED:
        return None
    slow = running & ((1 - np.nan_to_num(momenta, nan=1.0)) ** seen[0].step > LEFT)
    away = slow.copy()
    for s in seen:
        away &= _away(s) & ~s.modes.evaluating if s.modes is not None else False
    if not away.any() or away.sum() < 0.5 * slow.sum():
        return None
    momentum = float(momenta[away].min())
    return Finding(
        "wrong-batchnorm-mode",
        "warning",
        f"the running statistics of {int(away.sum())} BatchNorm layers do not follow the batches: with momentum "
        f"{momentum:g} they are still near where they began after {steps} steps, so that validation sees another "
        "network",
        {"momentum": momentum, "layers": int(away.sum()), "steps": steps, **_gaps(seen[-1])},
        "Set momentum to 0.1, or to 0.01 for long trainings: PyTorch's is the weight of the newest batch",
        "SPEC N2",
    )


def _validated(h: History) -> list[tuple[int, Epoch]]:
    """Epochs, numbered from 1, with validation figures and with the passes that gave them."""
    return [
        (k, e)
        for k, e in enumerate(h.epochs, 1)
        if e.passes is not None and e.passes.closing and (e.val_loss is not None or e.val_accuracy is not None)
    ]


def _away(sample: Sample) -> np.ndarray:
    if sample.modes is None:
        return np.zeros(0, bool)
    with np.errstate(invalid="ignore"):
        return (sample.modes.mean_gap > FAR_MEAN) | (np.abs(sample.modes.var_gap) > FAR_VAR)


def _far(sample: Sample) -> bool:
    """Whether the running statistics of most layers stand far from the batch."""
    return sample.modes is not None and bool(_away(sample).mean() > 0.5)


def _gaps(sample: Sample) -> dict[str, float | None]:
    """The middle layer's distance of running statistics from the batch's; None where nothing could be compared."""
    found: dict[str, float | None] = {}
    for name in ("mean_gap", "var_gap"):
        values = np.abs(getattr(sample.modes, name)) if sample.modes is not None else np.empty(0)
        values = values[np.isfinite(values)]
        found[name] = float(np.median(values)) if len(values) else None
    return found


RULES = {"wrong-batchnorm-mode": Rule(wrong_batchnorm_mode, (needs.modes, needs.samples(PATIENCE)))}

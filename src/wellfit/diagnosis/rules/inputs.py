"""The rule train-val-mismatch: training and validation images that were not prepared in the same way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wellfit.diagnosis.history import Floats, History, InputFigures
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.likeness import difference, lasting_difference, noisier, slight_difference
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import chance, unbalanced
from wellfit.findings import SEVERITIES, Finding

# Validation accuracy less that of training, the mean of the last epochs, that shows no harm.
NO_WORSE, LAST_EPOCHS = -0.03, 3
# Times what chance costs: an overfitted net stays far below.
SURE_AND_WRONG = 5.0
# Where validation lags behind by so much from the second epoch on, before anything is learned by heart, slight
# differences count.
LAGS = 0.04
# Images a side must have shown, and epochs that must agree before and after a change.
ENOUGH, SPELL = 16, 2

ACTION = "Prepare validation images as the training images are: the same scaling, normalisation and channel order"


def train_val_mismatch(h: History) -> Finding | None:
    """Any of the sets that the last epoch with images was validated on, against all training images seen."""
    said = [found for found in (_by_images(h), _between_epochs(h), _by_figures(h)) if found is not None]
    return max(said, key=lambda found: SEVERITIES.index(found.severity), default=None)


def _by_figures(h: History) -> Finding | None:
    """A validation loss that no uncertainty explains, of answers that are often right: their scale is another one."""
    known = [e for e in h.epochs if None not in (e.train_loss, e.val_loss, e.val_accuracy)][-LAST_EPOCHS:]
    ground = chance(h)
    if len(known) < 2 or ground is None or not h.classes:
        return None
    losses = [(float(e.train_loss or 0.0), float(e.val_loss or 0.0)) for e in known]
    right = min(float(e.val_accuracy or 0.0) for e in known) > 1 / h.classes + 0.1
    if not right or not all(train < ground and val > SURE_AND_WRONG * ground for train, val in losses):
        return None
    train, val = losses[-1]
    return Finding(
        "train-val-mismatch",
        "warning",
        f"the validation loss is {val:.3g} where training stands at {train:.3g} and answers without any knowledge cost "
        f"{ground:.3g}: on images that are prepared in the same way a net is never so sure and so wrong",
        {"train_loss": train, "val_loss": val, "chance": ground},
        ACTION,
        "SPEC D3, C9",
    )


def _by_images(h: History) -> Finding | None:
    for epoch, train, val in both_sides(h):
        seen = difference(train, val)
        if seen is None and _lags(h) and (slight := slight_difference(train, val)):
            seen = f"{slight}, and validation lags from the start"
        if seen:
            harmless = _validates_well(h) and lasting_difference(train, val) is None
            return Finding(
                "train-val-mismatch",
                "info" if harmless or noisier(train, val) else "warning",
                f"the training images ({_said(train)}) and those of epoch {epoch}'s validation ({_said(val)}) were not "
                f"prepared in the same way: {seen}",
                {"epoch": epoch, "train": _evidence(train), "val": _evidence(val)},
                ACTION,
                "SPEC D3, D5, C9",
            )
    return None


def _between_epochs(h: History) -> Finding | None:
    """A set that was validated on looks otherwise from one epoch on, for good: as many images, of other values.

    The epochs before agree among themselves, and those after: other images each time are no mistake.
    """
    shown = _shown(h)
    if len(shown) < 2 * SPELL or len({len(sets) for _, sets in shown}) > 1:
        return None
    for place in range(len(shown[0][1])):
        course = [(epoch, sets[place]) for epoch, sets in shown]
        first = course[0][1]
        if first.images < ENOUGH or any((f.images, f.shape) != (first.images, first.shape) for _, f in course):
            continue
        since = next((k for k, (_, f) in enumerate(course) if _apart(first, f)), 0)
        if not SPELL <= since <= len(course) - SPELL or any(_apart(course[since][1], f) for _, f in course[since:]):
            continue
        (before, was), (begun, now) = course[since - 1], course[since]
        return Finding(
            "train-val-mismatch",
            "warning",
            f"from epoch {begun} on the validation images ({_said(now)}) are not prepared as they were up to epoch "
            f"{before} ({_said(was)}), or they are others: {_apart(first, now)}",
            {"epoch": begun, "before": _evidence(was), "val": _evidence(now)},
            "Validate on the same images, prepared in the same way, at every epoch: look for what changes the loader "
            "or its transforms in the course of training",
            "SPEC D3, D5, C9",
        )
    return None


def _apart(one: InputFigures, other: InputFigures) -> str | None:
    return difference(one, other) or slight_difference(one, other) or slight_difference(other, one)


def _shown(h: History) -> list[tuple[int, tuple[InputFigures, ...]]]:
    """The epochs (from 1) whose validation images were seen, with those of each set."""
    return [(k, tuple(e.passes.inputs)) for k, e in enumerate(h.epochs, 1) if e.passes is not None and e.passes.inputs]


def both_sides(h: History) -> list[tuple[int, InputFigures, InputFigures]]:
    """The last epoch (from 1) whose validation images were seen; all training images; each set it was validated on."""
    train, shown = pool([s.inputs for s in h.samples]), _shown(h)
    if train is None or not shown:
        return []
    epoch, sets = shown[-1]
    return [
        (epoch, train, val)
        for val in sets
        if val.channels == train.channels and min(train.images, val.images) >= ENOUGH
    ]


def _validates_well(h: History) -> bool:
    """Whether validation is no worse than training: then the training images are changed on purpose (augmentation)."""
    both = [(e.train_accuracy, e.val_accuracy) for e in h.epochs[-LAST_EPOCHS:]]
    known = [val - train for train, val in both if train is not None and val is not None]
    return len(known) == LAST_EPOCHS and sum(known) / LAST_EPOCHS > NO_WORSE and max(v or 0.0 for _, v in both) > 0


def _lags(h: History) -> bool:
    """Whether validation is worse than training before anything can have been learned by heart.

    Where training is unbalanced, it may be so for that.
    """
    if unbalanced(h):
        return False
    early = [(e.train_accuracy, e.val_accuracy) for e in h.epochs[1:3]]
    gaps = [train - val for train, val in early if train is not None and val is not None]
    return len(gaps) > 0 and min(gaps) > LAGS


def pool(seen: Sequence[InputFigures | None]) -> InputFigures | None:
    """Several figures as one; those of another number of channels than the last are left out."""
    there = [f for f in seen if f is not None]
    there = [f for f in there if (len(f.figures), len(f.bands)) == (len(there[-1].figures), len(there[-1].bands))]
    if not there:
        return None
    images, batches = (np.array([getattr(f, name) for f in there], np.float64) for name in ("images", "batches"))
    figures, bands = (np.array([getattr(f, name) for f in there]) for name in ("figures", "bands"))
    mean, brightness = (images @ values / images.sum() for values in (figures, bands))
    apart, brighter = [np.outer(d, d) for d in figures - mean], (bands - brightness) ** 2
    return InputFigures(
        shape=there[-1].shape,
        images=int(images.sum()),
        batches=int(batches.sum()),
        figures=mean,
        scatter=_pooled([f.scatter for f in there], images, apart),
        between=_pooled([f.between for f in there], batches, apart),
        low=min(f.low for f in there),
        high=max(f.high for f in there),
        bands=brightness,
        bands_scatter=_pooled([f.bands_scatter for f in there], images, brighter),
        bands_between=_pooled([f.bands_between for f in there], batches, brighter),
    )


def _pooled(variances: Sequence[Floats], counts: Floats, apart: Sequence[Floats] | Floats) -> Floats:
    """The variance over all of several parts: within each, and between the parts, which lie `apart` (squared) from the
    mean of all. A part of one has no variance of its own."""
    parts = [v * (n - 1) + n * d for v, n, d in zip(variances, counts, apart, strict=True)]
    return np.asarray(np.sum(parts, axis=0) / max(1.0, counts.sum() - 1))


def _said(f: InputFigures) -> str:
    mean, std = (" / ".join(f"{v:.3g}" for v in part[:4]) for part in (f.means, f.deviations))
    return f"mean {mean}, standard deviation {std}{' by channel' if f.channels > 1 else ''}"


def _evidence(f: InputFigures) -> dict[str, object]:
    return {
        "images": f.images,
        "shape": list(f.shape),
        "mean": f.means.tolist(),
        "std": f.deviations.tolist(),
        "colour": float(f.figures[-3]),
        "skew": float(f.figures[-2]),
        "sharpness": float(f.figures[-1]),
        "bands": f.bands.tolist(),
        "low": f.low,
        "high": f.high,
    }


FIGURES = needs.epochs(2, "train_loss", "val_loss", "val_accuracy")
RULES = {"train-val-mismatch": Rule(train_val_mismatch, (needs.either(needs.images_on_both_sides(ENOUGH), FIGURES),))}

"""The rule train-val-mismatch: training and validation images that were not prepared in the same way.

Compared are averages over images: the level and contrast of each channel, the levels of the channels among
each other, colour, skew and sharpness. A difference counts when it is large in itself and many times what the draw of
the batches explains. Augmentation moves these a little, so that the limits lie beyond what it does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wellfit.diagnosis.history import Floats, History, InputFigures
from wellfit.diagnosis.rules import needs
from wellfit.diagnosis.rules.rule import Rule
from wellfit.diagnosis.rules.signs import chance
from wellfit.findings import Finding

# Standard errors beyond which no draw of batches explains a difference.
NOISE = 6.0
# Differences in contrast (a factor), in level and among the channels (standard deviations of the pixels).
CONTRAST = 1.7
LEVEL = 0.75
COLOUR = 0.25
# Both at once.
CONTRAST_TOO, LEVEL_TOO = 1.25, 0.2
# In sharpness, a factor: random crops enlarge and blur training images by less.
SHARPNESS = 2.0
# Channels that differ by this share of the contrast, and no more, make no colour.
GREY = 0.12
# Pixels of this skew are mostly dark with some light, or the other way round.
SKEWED = 0.3
# Validation accuracy less that of training, the mean of the last epochs, that shows no harm.
NO_WORSE, LAST_EPOCHS = -0.03, 3
# Times what chance costs: an overfitted net stays far below.
SURE_AND_WRONG = 5.0
# Images a side must have shown.
ENOUGH = 16

ACTION = "Prepare validation images as the training images are: the same scaling, normalisation and channel order"


def train_val_mismatch(h: History) -> Finding | None:
    """Any of the sets that the last epoch with images was validated on, against all training images seen."""
    return _by_images(h) or _by_figures(h)


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
    train = pool([s.inputs for s in h.samples])
    shown = [(k, e.passes.inputs) for k, e in enumerate(h.epochs, 1) if e.passes is not None and e.passes.inputs]
    if train is None or not shown:
        return None
    epoch, sets = shown[-1]
    for val in sets:
        if val.channels != train.channels or min(train.images, val.images) < ENOUGH:
            continue
        ways = (_contrast, _level, _level_and_contrast, _colour, _greyness, _skew, _sharpness)
        seen = next((said for way in ways if (said := way(train, val))), None)
        if seen is not None:
            return Finding(
                "train-val-mismatch",
                "info" if _validates_well(h) else "warning",
                f"the training images ({_said(train)}) and those of epoch {epoch}'s validation ({_said(val)}) were not "
                f"prepared in the same way: {seen}",
                {"epoch": epoch, "train": _evidence(train), "val": _evidence(val)},
                ACTION,
                "SPEC D3, D5, C9",
            )
    return None


def _validates_well(h: History) -> bool:
    """Whether validation is no worse than training: then the training images are changed on purpose (augmentation)."""
    both = [(e.train_accuracy, e.val_accuracy) for e in h.epochs[-LAST_EPOCHS:]]
    known = [val - train for train, val in both if train is not None and val is not None]
    return len(known) == LAST_EPOCHS and sum(known) / LAST_EPOCHS > NO_WORSE and max(v or 0.0 for _, v in both) > 0


def pool(seen: Sequence[InputFigures | None]) -> InputFigures | None:
    """Several figures as one; those of another number of channels than the last are left out."""
    there = [f for f in seen if f is not None]
    there = [f for f in there if (len(f.figures), len(f.bands)) == (len(there[-1].figures), len(there[-1].bands))]
    if not there:
        return None
    weights = np.array([f.images for f in there], np.float64)
    figures = np.array([f.figures for f in there])
    mean = weights @ figures / weights.sum()
    # Within each part and between the parts, which are batches of their own where they hold one.
    parts = [f.scatter * max(1, f.images - 1) + f.images * np.outer(d, d) for f, d in _with(there, figures - mean)]
    batches = sum(f.batches for f in there)
    between = [f.between * max(0, f.batches - 1) + f.batches * np.outer(d, d) for f, d in _with(there, figures - mean)]
    bands = np.array([f.bands for f in there])
    brightness = weights @ bands / weights.sum()
    apart = (bands - brightness) ** 2
    bands_scatter = [f.bands_scatter * max(1, f.images - 1) + f.images * d for f, d in _with(there, apart)]
    bands_between = [f.bands_between * max(0, f.batches - 1) + f.batches * d for f, d in _with(there, apart)]
    return InputFigures(
        shape=there[-1].shape,
        images=int(weights.sum()),
        batches=batches,
        figures=mean,
        scatter=np.sum(parts, axis=0) / max(1.0, weights.sum() - 1),
        between=np.sum(between, axis=0) / max(1, batches - 1),
        low=min(f.low for f in there),
        high=max(f.high for f in there),
        bands=brightness,
        bands_scatter=np.sum(bands_scatter, axis=0) / max(1.0, weights.sum() - 1),
        bands_between=np.sum(bands_between, axis=0) / max(1, batches - 1),
    )


def _with(there: Sequence[InputFigures], differences: Floats) -> list[tuple[InputFigures, Floats]]:
    return list(zip(there, differences, strict=True))


def _variance(f: InputFigures, direction: Floats) -> float:
    """Squared standard error of one combination of the figures: by images, or by batches where they differ more."""
    by_image = float(direction @ f.scatter @ direction) / f.images
    by_batch = float(direction @ f.between @ direction) / f.batches if f.batches > 1 else 0.0
    return max(by_image, by_batch)


def _told_apart(train: InputFigures, val: InputFigures, direction: Floats) -> bool:
    error = np.sqrt(_variance(train, direction) + _variance(val, direction))
    return bool(abs(direction @ (train.figures - val.figures)) > NOISE * error)


def _unit(f: InputFigures, *places: int) -> Floats:
    """1 at the first place, -1 at the second."""
    direction = np.zeros(len(f.figures))
    direction[list(places)] = (1.0, -1.0)[: len(places)]
    return direction


def _pixel_std(f: InputFigures) -> float:
    """Of the entries over all images: within an image and from image to image."""
    return float(np.sqrt(np.mean(f.deviations**2 + np.diag(f.scatter)[: f.channels])))


def _contrast(train: InputFigures, val: InputFigures, limit: float = CONTRAST) -> str | None:
    c = train.channels
    ours, theirs = float(train.deviations.mean()), float(val.deviations.mean())
    direction = np.concatenate([np.zeros(c), np.full(c, 1 / c), np.zeros(3)])
    factor = max(ours, theirs) / max(min(ours, theirs), 1e-12)
    if factor < limit or not _told_apart(train, val, direction):
        return None
    return f"their contrast differs by a factor of {factor:.3g}"


def _level(train: InputFigures, val: InputFigures, limit: float = LEVEL) -> str | None:
    c, std = train.channels, _pixel_std(train)
    shifts = (val.figures[:c] - train.figures[:c]) / max(std, 1e-12)
    far = [i for i in range(c) if abs(shifts[i]) > limit and _told_apart(train, val, _unit(train, i))]
    if not far:
        return None
    return f"their level differs by {max(abs(shifts[far])):.2g} standard deviations"


def _level_and_contrast(train: InputFigures, val: InputFigures) -> str | None:
    """Both at once, each by less: augmentation moves one of them, another scale or gamma moves both."""
    level, contrast = _level(train, val, LEVEL_TOO), _contrast(train, val, CONTRAST_TOO)
    return f"{level} and {contrast}" if level and contrast else None


def _colour(train: InputFigures, val: InputFigures) -> str | None:
    c, std = train.channels, _pixel_std(train)
    for i in range(c):
        for j in range(i + 1, c):
            direction = _unit(train, i, j)
            shift = float(direction @ (val.figures - train.figures)) / max(std, 1e-12)
            if abs(shift) > COLOUR and _told_apart(train, val, direction):
                return f"channel {i} against channel {j} differs by {abs(shift):.2g} standard deviations"
    return None


def _greyness(train: InputFigures, val: InputFigures) -> str | None:
    """Colour pictures on one side, grey ones on the other."""
    ours, theirs = float(train.figures[-3]), float(val.figures[-3])
    if max(ours, theirs) < 2 * GREY or min(ours, theirs) > GREY or min(ours, theirs) > 0.5 * max(ours, theirs):
        return None
    if not _told_apart(train, val, _unit(train, len(train.figures) - 3)):
        return None
    return f"the {'validation' if theirs < ours else 'training'} images are grey, the others have colours"


def _skew(train: InputFigures, val: InputFigures) -> str | None:
    """Light on dark on one side, dark on light on the other."""
    ours, theirs = float(train.figures[-2]), float(val.figures[-2])
    if ours * theirs >= 0 or min(abs(ours), abs(theirs)) < SKEWED:
        return None
    if not _told_apart(train, val, _unit(train, len(train.figures) - 2)):
        return None
    return f"light and dark are exchanged: the pixels' skew is {ours:.2g} and {theirs:.2g}"


def _sharpness(train: InputFigures, val: InputFigures) -> str | None:
    if train.shape != val.shape:
        return None  # another size is another sharpness
    ours, theirs = float(train.figures[-1]), float(val.figures[-1])
    factor = max(ours, theirs) / max(min(ours, theirs), 1e-12)
    if factor < SHARPNESS or not _told_apart(train, val, _unit(train, len(train.figures) - 1)):
        return None
    return f"the {'validation' if theirs < ours else 'training'} images are more blurred, by a factor of {factor:.2g}"


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
        "low": f.low,
        "high": f.high,
    }


FIGURES = needs.epochs(2, "train_loss", "val_loss", "val_accuracy")
RULES = {"train-val-mismatch": Rule(train_val_mismatch, (needs.either(needs.images_on_both_sides(ENOUGH), FIGURES),))}

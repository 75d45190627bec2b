"""In what the images of two sets differ, by their figures: levels and contrasts of the channels, their levels among
each other, colour, skew, sharpness, and where an image is bright.

A difference counts when it is large in itself and many times what the draw of the batches explains. Augmentation moves
these a little, so that the limits lie beyond what it does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wellfit.diagnosis.history import Floats, InputFigures

# Standard errors beyond which no draw of batches explains a difference.
NOISE = 6.0
# Differences in contrast (a factor), in level and among the channels (standard deviations of the pixels).
CONTRAST = 1.7
LEVEL = 0.75
COLOUR = 0.25
# Both at once.
CONTRAST_TOO, LEVEL_TOO = 1.25, 0.2
# Levels of images are the same where they spread by less than this (in standard deviations of the pixels), and agree
# beside others' at a variance of such a share; images of less contrast show none.
EXACT, AGREE, LEAST_CONTRAST = 0.005, 0.01, 0.1
# In sharpness, a factor: random crops enlarge and blur training images by less.
SHARPNESS = 2.0
# Channels that differ by this share of the contrast, and no more, make no colour.
GREY = 0.12
# Pixels of this skew are mostly dark with some light, or the other way round.
SKEWED = 0.3
# Bands of light and dark: a difference (root mean square, in an image's standard deviations) that no turning explains,
# and one that a turning does explain: all but a share of it, and so much better (a difference of χ²).
ELSEWHERE, TURNED, TURNED_LEAVES, BETTER = 0.2, 0.05, 0.4, 25.0
# Levels and contrasts of three channels in the reverse order: so much nearer (a difference of squared Mahalanobis
# distances), and near enough.
SWAPPED, SWAPPED_LEAVES, RIDGE = 20.0, 0.4, 1e-3
# Less is telling where something else speaks for a difference: standard errors, and differences in contrast and skew.
# Level and sharpness are what crops, rotations and blurring change.
LESS_NOISE, LESS_CONTRAST, LESS_SKEW = 4.5, 1.2, 0.3
# Noise raises contrast and grain by this factor, to nearly that of noise alone (2/√π).
NOISY, GRAIN = 1.3, 0.95
# Training images of less contrast, a share, are mostly erased or washed out; noise of more, a factor, drowns them.
WASHED_OUT, DROWNED = 0.5, 2.0
# Less is another scale.
NO_IMAGE = 0.1


def difference(train: InputFigures, val: InputFigures) -> str | None:
    """The first difference that tells by itself, in words; None where the sets are alike."""
    return next((said for way in WAYS if (said := way(train, val))), None)


def lasting_difference(train: InputFigures, val: InputFigures) -> str | None:
    """The first of those that no usual augmentation of the training images makes, whatever else differs."""
    return next((said for way in LASTING if (said := way(train, val))), None)


def slight_difference(train: InputFigures, val: InputFigures) -> str | None:
    """A contrast or a skew that differs by less than would tell by itself, and by more than augmentation changes it.

    Mixing and erasing lower the training images' contrast: only a lower one of validation's counts.
    """
    if train.shape != val.shape:
        return None
    lower = train.deviations > LESS_CONTRAST * val.deviations
    places = [(train.channels + int(i), "contrast") for i in np.flatnonzero(lower)]
    if abs(val.figures[-2] - train.figures[-2]) > LESS_SKEW:
        places.append((len(train.figures) - 2, "skew"))
    for place, name in places:
        if _told_apart(train, val, _unit(train, place), LESS_NOISE):
            return f"their {name} differs ({train.figures[place]:.3g} and {val.figures[place]:.3g})"
    return None


def noisier(train: InputFigures, val: InputFigures) -> bool:
    """Whether the training images have more contrast and more grain: noise, which is added to them on purpose."""
    if train.shape != val.shape:
        return False
    contrast = train.deviations.mean() / max(float(val.deviations.mean()), 1e-12)
    return bool(contrast > NOISY and train.figures[-1] > max(GRAIN, NOISY * val.figures[-1]))


def little_left(train: InputFigures, val: InputFigures) -> str | None:
    """What leaves little of the training images, in words, where validation's show what they were; None else."""
    if train.shape != val.shape or not (train.deviations.mean() > 0 and val.deviations.mean() > 0):
        return None
    contrast = float(train.deviations.mean() / val.deviations.mean())
    if _level(train, val) is not None or contrast < NO_IMAGE:
        return None  # another scale, not less of the same
    if contrast < WASHED_OUT:
        return f"the training images keep {contrast:.0%} of the contrast"
    if noisier(train, val) and contrast > DROWNED:
        return f"the noise in the training images is {(contrast**2 - 1) ** 0.5:.2g} times their contrast"
    return None


def _of_average(f: InputFigures, scatter: Floats, between: Floats) -> Floats:
    """Squared standard errors: by images, or by batches where they differ more. Both are variances of single ones."""
    return np.maximum(scatter / f.images, between / f.batches if f.batches > 1 else 0.0)


def _variance(f: InputFigures, direction: Floats) -> float:
    """Squared standard error of one combination of the figures."""
    return float(_of_average(f, direction @ f.scatter @ direction, direction @ f.between @ direction))


def _told_apart(train: InputFigures, val: InputFigures, direction: Floats, noise: float = NOISE) -> bool:
    error = np.sqrt(_variance(train, direction) + _variance(val, direction))
    return bool(abs(direction @ (train.figures - val.figures)) > noise * error)


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


def _swapped(train: InputFigures, val: InputFigures) -> str | None:
    """Levels and contrasts agree once red and blue change places, and do not as they are."""
    if train.channels != 3:
        return None
    as_is, back = np.arange(6), np.array([2, 1, 0, 5, 4, 3])
    apart, left = (_distance(train, val, order) for order in (as_is, back))
    if apart - left < SWAPPED or left > SWAPPED_LEAVES * apart:
        return None
    return "the first and the last channel are exchanged (RGB and BGR)"


def _distance(train: InputFigures, val: InputFigures, order: NDArray[np.int64]) -> float:
    """Squared Mahalanobis distance of the levels and contrasts, those of the training images in this order."""
    covariance = _covariance(train)[np.ix_(order, order)] + _covariance(val)[:6, :6]
    covariance = covariance + np.eye(6) * (RIDGE * float(np.trace(covariance)) / 6 + 1e-12)
    apart = val.figures[:6] - train.figures[order]
    return float(apart @ np.linalg.solve(covariance, apart))


def _covariance(f: InputFigures) -> Floats:
    """Of the figures' averages."""
    found = f.scatter / f.images
    np.fill_diagonal(found, _of_average(f, np.diag(f.scatter), np.diag(f.between)))
    return found


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


def _upside_down(bands: Floats) -> Floats:
    return np.concatenate([bands[3::-1], bands[4:]])


def _mirrored(bands: Floats) -> Floats:
    return np.concatenate([bands[:4], bands[:3:-1]])


def _transposed(bands: Floats) -> Floats:
    return np.concatenate([bands[4:], bands[:4]])


TURNINGS: dict[str, Callable[[Floats], Floats]] = {
    "upside down": _upside_down,
    "mirrored": _mirrored,
    "turned by 180°": lambda bands: _upside_down(_mirrored(bands)),
    "with rows for columns": _transposed,
    "turned by 90°": lambda bands: _transposed(_mirrored(bands)),
    "turned by 270°": lambda bands: _transposed(_upside_down(bands)),
    "turned by 90° and mirrored": lambda bands: _transposed(_upside_down(_mirrored(bands))),
}


def _bands(train: InputFigures, val: InputFigures) -> tuple[Floats, Floats, Floats] | None:
    """The eight bands of either's average channel, and the squared standard errors of their difference (at most those
    of a channel); None where they cannot be compared."""
    if not len(train.bands) or len(train.bands) != len(val.bands):
        return None
    errors = sum(_of_average(f, f.bands_scatter, f.bands_between).reshape(-1, 8).mean(0) for f in (train, val))
    ours, theirs = (f.bands.reshape(-1, 8).mean(0) for f in (train, val))
    return ours, theirs, np.asarray(errors)


def _turned(train: InputFigures, val: InputFigures) -> str | None:
    """Light and dark lie where they would in images that were turned."""
    if (bands := _bands(train, val)) is None:
        return None
    ours, theirs, errors = bands
    errors = np.maximum(errors, 1e-9)
    apart = float(np.sum((theirs - ours) ** 2 / errors))
    left = {name: float(np.sum((theirs - turn(ours)) ** 2 / errors)) for name, turn in TURNINGS.items()}
    name = min(left, key=lambda turning: left[turning])
    if _rms(theirs - ours) < TURNED or apart - left[name] < BETTER or left[name] > TURNED_LEAVES * apart:
        return None
    return f"light and dark lie in the validation images as in training images {name}"


def _elsewhere(train: InputFigures, val: InputFigures) -> str | None:
    """Light and dark lie elsewhere: images that are shifted, padded or cut otherwise."""
    if (bands := _bands(train, val)) is None:
        return None
    ours, theirs, errors = bands
    far, apart = np.abs(theirs - ours) > NOISE * np.sqrt(errors), _rms(theirs - ours)
    # The same picture more faintly is noise or erasing on one side.
    faint = min(_rms(theirs - _fitted(ours, theirs)), _rms(ours - _fitted(theirs, ours)))
    if not far.any() or apart < ELSEWHERE or faint < 0.5 * apart:
        return None
    return f"light and dark lie elsewhere in the image: its bands differ by {apart:.2g} standard deviations"


def _fitted(bands: Floats, other: Floats) -> Floats:
    """The bands times the factor, none below zero, that comes nearest to the others."""
    size = float(bands @ bands)
    return bands * max(0.0, float(bands @ other) / size if size > 0 else 0.0)


def _each_by_itself(train: InputFigures, val: InputFigures) -> str | None:
    """The levels of all training images agree, in some sum of the channels, and those of validation do not.

    The sum is the one in which the images' levels spread least beside validation's; in grey images it is differences of
    channels that agree. The other way round it is augmentation, which spreads the levels of training images that were
    standardised as validation's are.
    """
    c = train.channels
    sides = [(f, _pixel_std(f)) for f in (train, val)]
    if any(f.deviations.mean() <= LEAST_CONTRAST * std for f, std in sides):
        return None  # images without contrast have no more to agree in
    ours, theirs = (f.scatter[:c, :c] / std**2 + EXACT**2 * np.eye(c) for f, std in sides)
    if not np.isfinite(ours).all() or not np.isfinite(theirs).all():
        return None
    ratios, sums = np.linalg.eig(np.linalg.solve(theirs, ours))
    least = int(np.argmin(ratios.real))
    signs = sums[:, least].real
    if ratios[least].real > AGREE or not (np.all(signs > 0) or np.all(signs < 0)):
        return None
    return "all training images have the same level: each was standardised by itself, those of validation were not"


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


LASTING = (_swapped, _greyness, _skew, _turned, _each_by_itself)
WAYS = (
    _each_by_itself,
    _contrast,
    _level,
    _level_and_contrast,
    _colour,
    _swapped,
    _greyness,
    _skew,
    _sharpness,
    _turned,
    _elsewhere,
)

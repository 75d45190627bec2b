"""Were two sets of pictures prepared alike? What differs, by how much, and whether one known mistake explains it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wellfit.data.appearance import MISTAKES, PARTS, PIXEL_MEASURES, Measure, appearance, block_means
from wellfit.data.two_samples import Difference, within_classes

# Beside being larger than its measure's `least`, a difference shifts ranks this far and lies this many standard errors
# from chance: over some twenty-five measures and two pairs of splits, one alarm in several thousand honest splits.
EFFECT, DEVIATIONS = 0.2, 4.5
# A mistake that explains a difference away is believed at a smaller effect.
EXPLAINED_EFFECT, EXPLAINED_DEVIATIONS, LEFT_OVER = 0.08, 6.0, 0.5
SMALLEST = 20  # pictures on either side, for mean pictures
PRIOR = 5.0  # pictures of any class that a class's mean picture is drawn to

_LIKENESS = Measure("likeness to the class's mean picture", 0.0)

Images = list[np.ndarray]


@dataclass
class Sample:
    """Some pictures of one split. images: N×H×W×C arrays, floats with black at 0 and white at 1, in order.

    classes: the class of each picture. shown: its numbers that do not come from pixels, by measure name.
    """

    images: Images
    classes: np.ndarray
    shown: dict[str, np.ndarray]


@dataclass(frozen=True)
class Contrast:
    """A measure in which two samples differ; class-weighted means, geometric ones of a `log` measure.

    effect, deviations: see two_samples.Difference. gap: difference of the means, of logarithms where they are such.
    """

    measure: str
    training: float
    other: float
    effect: float
    deviations: float
    gap: float

    @classmethod
    def of(cls, measure: Measure, seen: Difference) -> Contrast:
        first, second = (math.exp(v) if measure.log else v for v in (seen.first, seen.second))
        return cls(measure.name, first, second, seen.effect, seen.z, abs(seen.first - seen.second))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def contrasts(
    training: Sample, other: Sample, measures: dict[str, Measure], without: tuple[str, ...] = ()
) -> tuple[list[Contrast], str]:
    """(what differs, largest effect first; the one mistake that explains it, or "").

    measures: those of `shown`. without: pixel measures that may differ for a good reason.
    """
    looks = _pixels(training, None, without), _pixels(other, None, without)
    seen = {**_compare(training, other, *looks, PIXEL_MEASURES)}
    mistake, shown = _explanation(training, other, looks[0], seen, without)
    rows = {**_compare(training, other, training.shown, other.shown, measures), **seen}
    least = {**PIXEL_MEASURES, **measures}
    found = [row for name, row in rows.items() if _matters(row, least[name])]
    if shown is not None and not found:
        found = [shown]
    return sorted(found, key=lambda row: -abs(row.effect)), mistake


def _matters(row: Contrast, measure: Measure) -> bool:
    large = row.gap >= measure.least and abs(row.effect) >= EFFECT
    return large and abs(row.deviations) >= DEVIATIONS


def _compare(
    training: Sample,
    other: Sample,
    first: dict[str, np.ndarray],
    second: dict[str, np.ndarray],
    measures: dict[str, Measure],
) -> dict[str, Contrast]:
    rows = {}
    for key in first:
        if key in second:
            seen = within_classes(first[key], training.classes, second[key], other.classes)
            rows[key] = Contrast.of(measures[key], seen)
    return rows


def _pixels(
    sample: Sample, change: Callable[[np.ndarray], np.ndarray] | None, without: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Appearance of a ragged list of images; those of one shape together."""
    table: dict[str, np.ndarray] = {}
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(sample.images):
        rows_of.setdefault(image.shape, []).append(row)
    for rows in rows_of.values():
        together = np.stack([sample.images[row] for row in rows])
        for name, values in appearance(change(together) if change else together).items():
            if name not in without:
                table.setdefault(name, np.zeros(len(sample.images)))[rows] = values
    return table


def _explanation(
    training: Sample,
    other: Sample,
    look: dict[str, np.ndarray],
    seen: dict[str, Contrast],
    without: tuple[str, ...],
) -> tuple[str, Contrast | None]:
    """The mistake that, undone on the other side, takes away most of what differs, and what shows it; ("", None)."""
    if not seen:
        return "", None
    found = []
    for name, undo in MISTAKES.items():
        pair = _towards(training, other, undo)
        before, after = list(seen.values()), pair[1:] if pair else []
        strongest = _strongest([*before, *pair[:1]] if pair else before)
        if abs(strongest.deviations) < EXPLAINED_DEVIATIONS or abs(strongest.effect) < EXPLAINED_EFFECT:
            continue
        undone = _compare(training, other, look, _pixels(other, undo, without), PIXEL_MEASURES)
        remaining = abs(_strongest([*undone.values(), *after]).deviations)
        if remaining <= LEFT_OVER * abs(strongest.deviations):
            found.append((remaining, name, strongest))
    if not found:
        return "", None
    _, name, shown = min(found, key=lambda item: item[0])
    return name, shown


def _strongest(rows: list[Contrast]) -> Contrast:
    return max(rows, key=lambda row: abs(row.deviations))


def _towards(training: Sample, other: Sample, undo: Callable[[np.ndarray], np.ndarray]) -> list[Contrast] | None:
    """How far the pictures lie from their class's mean picture towards what the mistake makes of it.

    Half of the training pictures give the mean pictures, the other half is compared with the other side, as it is and
    with the mistake undone. None where pictures are too small to be brought to one size.
    """
    if min(len(training.images), len(other.images)) < SMALLEST:
        return None
    sizes = {image.shape for image in (*training.images, *other.images)}
    if len(sizes) > 1 and min(min(shape[:2]) for shape in sizes) < PARTS:
        return None
    first, second = _small(training.images), _small(other.images)
    if first.shape[1:] != second.shape[1:] or first.shape[1] != first.shape[2]:
        return None
    for_mean = np.arange(len(first)) % 2 == 0
    mean = first[for_mean].mean(axis=0)
    directions = {}
    for name in np.unique(training.classes):
        own = first[for_mean & (training.classes == name)]
        typical = (own.sum(axis=0) + PRIOR * mean) / (len(own) + PRIOR)
        directions[name] = (typical - undo(typical[None])[0]).reshape(-1)
    size = max(float(np.linalg.norm(d)) for d in directions.values())
    if size < 1e-4:
        return None

    def along(pictures: np.ndarray, classes: np.ndarray) -> np.ndarray:
        nothing = np.zeros(pictures[0].size)
        rows = zip(pictures, classes, strict=True)
        return np.array([float(p.reshape(-1) @ directions.get(c, nothing)) / size for p, c in rows])

    held_back, classes = first[~for_mean], training.classes[~for_mean]
    ours = along(held_back, classes)
    pair = []
    for pictures in (second, undo(second)):
        seen = within_classes(ours, classes, along(pictures, other.classes), other.classes)
        pair.append(Contrast.of(_LIKENESS, seen))
    return pair


def _small(images: Images) -> np.ndarray:
    return np.concatenate([block_means(image[None]) for image in images])

"""The augmentations by name, and how a configuration asks for one: "flip", "rotate=30" or "my_package.module:name".

A name may carry a strength after "="; without it the default holds. A path "package.module:name" reaches a user's own
augmentation, called for each image as f(image, random): image uint8 S×S×3, random a numpy Generator keyed by (seed,
path, epoch, image); it returns pixels of the same shape and type.

In practice (SPEC R5): flip and crop almost always; cutout and mixup for small sets; policies for long trainings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from wellfit.data.augmentations import colour, erasing, geometry, mirror_and_shift, policies
from wellfit.data.augmentations.draws import Figures
from wellfit.data.augmentations.mixing import MIXINGS
from wellfit.dotted import is_dotted, load_dotted
from wellfit.errors import UserError, unknown_name

Pixels = Callable[[np.ndarray, np.ndarray, Any, Figures], np.ndarray]


@dataclass(frozen=True)
class Augmentation:
    """One entry of the table.

    columns: numbers drawn for each image in an epoch; 0 for mixing, which draws for each batch.
    strength: the default; None where there is none to give. low, high, meaning: its range, low itself left out.
    pixels: (images, draws, strength, figures) → images. place_map: in its stead, for what is resampled together.
    """

    columns: int
    strength: float | str | None = None
    low: float = 0.0
    high: float = 1.0
    meaning: str = ""
    words: tuple[str, ...] = ()
    pixels: Pixels | None = None
    place_map: geometry.PlaceMap | None = None


@dataclass(frozen=True)
class Chosen:
    """An augmentation as a configuration asks for it. own: the user's function, where the name is a path."""

    name: str
    strength: float | str | None
    entry: Augmentation
    own: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None


def parse(text: str) -> Chosen:
    """Read "name" or "name=strength"; UserError for an unknown name or a strength that it cannot have."""
    if is_dotted(text):
        return Chosen(text, None, Augmentation(0), load_dotted(text, "augmentation"))
    name, equals, value = text.partition("=")
    if name in ("auto", "none"):
        raise UserError(f"augment = '{name}' stands alone, got it beside others; leave it or the others out")
    if name not in AUGMENTATIONS:
        raise unknown_name("augmentation", name, [*AUGMENTATIONS, "auto", "none"])
    entry = AUGMENTATIONS[name]
    if not equals:
        return Chosen(name, entry.strength, entry)
    if entry.strength is None:
        raise UserError(f"the augmentation '{name}' has no strength to set, got '{text}'; write '{name}'")
    if entry.words:
        if value not in entry.words:
            raise unknown_name(f"strength of '{name}'", value, entry.words)
        return Chosen(name, value, entry)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not entry.low < number <= entry.high:
        raise UserError(
            f"the strength of '{name}' ({entry.meaning}) is a number above {entry.low:g} and up to {entry.high:g}, "
            f"got '{text}'; write for example '{name}={entry.strength:g}'"
        )
    return Chosen(name, number, entry)


def parse_all(texts: Iterable[str]) -> list[Chosen]:
    """Read each; UserError also where one is named twice."""
    chosen = [parse(text) for text in texts]
    names = [c.name for c in chosen]
    if len(set(names)) < len(names):
        raise UserError(f"each augmentation is named once, got {', '.join(names)}; drop the repeated one")
    return chosen


def mixing_names(texts: Iterable[str]) -> list[str]:
    """Those of the augmentations that blend labels, so that targets become N×C shares."""
    return [name for text in texts if (name := name_of(text)) in MIXINGS]


def name_of(text: str) -> str:
    """The name alone of "name" or "name=strength"."""
    return text.partition("=")[0]


def _plain(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Pixels:
    return lambda images, draws, strength, figures: function(images, draws)


def _by_strength(function: Callable[[np.ndarray, np.ndarray, float], np.ndarray]) -> Pixels:
    return lambda images, draws, strength, figures: function(images, draws, strength)


def _filled(function: Callable[[np.ndarray, np.ndarray, Any, np.ndarray], np.ndarray]) -> Pixels:
    return lambda images, draws, strength, figures: function(images, draws, strength, figures.fill)


def _pca_colour(images: np.ndarray, draws: np.ndarray, strength: float, figures: Figures) -> np.ndarray:
    return colour.pca_colour(images, draws, strength, figures.colour_axes)


def _trivialaugment(images: np.ndarray, draws: np.ndarray, strength: None, figures: Figures) -> np.ndarray:
    return policies.trivialaugment(images, draws, figures.fill)


_colour = partial(Augmentation, 1, 0.4, meaning="how far the factor may lie from 1")

# Where the evaluation view is a centre crop, "crop" takes SPEC D7's random views instead, when the view itself is made.
AUGMENTATIONS: dict[str, Augmentation] = {
    "flip": Augmentation(1, pixels=_plain(mirror_and_shift.flip)),
    # 4 pixels at 32, as ResNet's CIFAR runs
    "crop": Augmentation(
        2,
        0.125,
        high=0.5,
        meaning="the largest shift, as a share of the side",
        pixels=_by_strength(mirror_and_shift.shift),
    ),
    "colour_jitter": Augmentation(
        4, 0.4, meaning="how far factors may lie from 1", pixels=_by_strength(colour.colour_jitter)
    ),
    "brightness": _colour(pixels=_by_strength(colour.brightness)),
    "contrast": _colour(pixels=_by_strength(colour.contrast)),
    "saturation": _colour(pixels=_by_strength(colour.saturation)),
    "hue": Augmentation(
        1, 0.1, high=0.5, meaning="the largest turn, as a share of the circle", pixels=_by_strength(colour.hue)
    ),
    "pca_colour": Augmentation(3, 0.1, meaning="the deviation of the coefficients", pixels=_pca_colour),
    "translate": Augmentation(
        2, 0.125, high=0.5, meaning="the largest offset, as a share of the side", place_map=geometry.translate
    ),
    "rotate": Augmentation(1, 15.0, high=180.0, meaning="the largest angle in degrees", place_map=geometry.rotate),
    "stretch": Augmentation(
        2, 0.2, meaning="how far the factors of width and height may lie from 1", place_map=geometry.stretch
    ),
    "shear": Augmentation(2, 10.0, high=60.0, meaning="the largest angle in degrees", place_map=geometry.shear),
    "lens": Augmentation(1, 0.1, high=0.16, meaning="the largest bend", place_map=geometry.lens),
    "autoaugment": Augmentation(5, "imagenet", words=policies.POLICIES, pixels=_filled(policies.autoaugment)),
    "randaugment": Augmentation(
        4, 9.0, high=30.0, meaning="the magnitude of both operations", pixels=_filled(policies.randaugment)
    ),
    "trivialaugment": Augmentation(3, pixels=_trivialaugment),
    "cutout": Augmentation(
        2, 0.5, meaning="the side of the square, as a share of the image's", pixels=_filled(erasing.cutout)
    ),
    "random_erasing": Augmentation(
        5, 0.25, meaning="the chance that an image is erased in", pixels=_filled(erasing.random_erasing)
    ),
    "mixup": Augmentation(0, 0.2, high=10.0, meaning="α of the Beta distribution of the shares"),
    "cutmix": Augmentation(0, 1.0, high=10.0, meaning="α of the Beta distribution of the shares"),
}

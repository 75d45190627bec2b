"""Several augmentations as one: what a training batch goes through."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from wellfit.data.augmentations.draws import Draws, Figures
from wellfit.data.augmentations.geometry import warp
from wellfit.data.augmentations.mixing import MIXINGS, Blend, draw_blend, mix
from wellfit.data.augmentations.table import Chosen
from wellfit.errors import UserError
from wellfit.randomness import generator


class Chain:
    """Applies the chosen augmentations in their order; those that blend labels come last.

    images: how many the split has. classes: C, for blended targets.
    """

    def __init__(self, chosen: Sequence[Chosen], figures: Figures, *, images: int, classes: int, seed: int) -> None:
        self.figures, self.classes, self.seed = figures, classes, seed
        self.mixings = [(c.name, float(c.strength or 0)) for c in chosen if c.name in MIXINGS]
        single = [c for c in chosen if c.name not in MIXINGS]
        self._draws = {c.name: Draws(seed, c.name, images, c.entry.columns) for c in single}
        # Neighbours that only move pixels are resampled together.
        self._parts = [list(part) for _, part in groupby(single, _kind)]

    def __call__(self, pixels: np.ndarray, positions: np.ndarray, epoch: int) -> np.ndarray:
        """uint8 N×S×S×3 → the same. positions: which of the split's images they are."""
        for part in self._parts:
            rows = [self._draws[c.name].rows(epoch, positions) for c in part]
            first = part[0]
            if first.entry.place_map is not None:
                maps = [
                    (c.entry.place_map, draws, float(c.strength or 0))
                    for c, draws in zip(part, rows, strict=True)
                    if c.entry.place_map is not None
                ]
                pixels = warp(pixels, maps)
            elif first.entry.pixels is not None:
                pixels = first.entry.pixels(pixels, rows[0], first.strength, self.figures)
            else:
                pixels = self._own(first, pixels, positions, epoch)
        return pixels

    def mix(self, pixels: np.ndarray, targets: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch with images and labels blended (targets float32 N×C), where that was asked for; else as it is."""
        if not self.mixings:
            return pixels, targets
        return mix(pixels, targets, self.mixings, classes=self.classes, seed=self.seed, step=step)

    def blend(self, step: int, images: int) -> Blend | None:
        """What a step's batch of so many images is blended by; None where none of these was asked for."""
        if not self.mixings:
            return None
        return draw_blend(self.mixings, images, classes=self.classes, seed=self.seed, step=step)

    def _own(self, chosen: Chosen, pixels: np.ndarray, positions: np.ndarray, epoch: int) -> np.ndarray:
        assert chosen.own is not None
        result = np.empty_like(pixels)
        for out, image, position in zip(result, pixels, positions.tolist(), strict=True):
            try:
                changed = chosen.own(image.copy(), generator(self.seed, chosen.name, epoch, position))
            except Exception as error:  # the user's code may fail in any way
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                raise UserError(
                    f"an augmentation is called with an image (uint8 S×S×3) and a numpy Generator, but "
                    f"'{chosen.name}' failed ({reason}); correct it"
                ) from error
            if not isinstance(changed, np.ndarray) or changed.shape != image.shape or changed.dtype != np.uint8:
                got = f"{changed.dtype} {changed.shape}" if isinstance(changed, np.ndarray) else type(changed).__name__
                raise UserError(
                    f"an augmentation returns pixels of the shape it was given, uint8 {image.shape}, but "
                    f"'{chosen.name}' returned {got}; correct it"
                )
            out[...] = changed
        return result


def _kind(chosen: Chosen) -> str:
    return "geometry" if chosen.entry.place_map is not None else chosen.name

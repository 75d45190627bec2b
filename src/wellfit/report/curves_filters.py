"""Figure data of a network's first filters: what is saved of a run, as colours; nothing is drawn here (SPEC C11)."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wellfit.record import RunFolder

FILE = "first_layer.npz"


@dataclass(frozen=True)
class Filters:
    """colours: K×h×w×3 in [0, 1], 0.5 (grey) where the weight is 0; each filter on its own scale.

    strongest: the largest absolute weight of each filter. flat: how many are near 0 beside the others.
    """

    colours: NDArray[np.float64]
    strongest: NDArray[np.float64]

    @property
    def flat(self) -> int:
        """Filters whose largest weight is below a hundredth of the median one's: they look for nothing."""
        return int((self.strongest < 0.01 * np.median(self.strongest)).sum()) if len(self.strongest) else 0

    def mosaic(self, columns: int | None = None) -> NDArray[np.float64]:
        """The filters in rows, one pixel apart: H×W×4 with alpha, transparent between them."""
        count, height, width = self.colours.shape[:3]
        columns = columns or columns_for(count)
        rows = -(-count // columns)
        sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4))
        for i, colours in enumerate(self.colours):
            top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
            sheet[top : top + height, left : left + width, :3] = colours
            sheet[top : top + height, left : left + width, 3] = 1
        return sheet


def columns_for(count: int) -> int:
    """Columns of a grid about twice as wide as high, and a divisor of the count where one is near."""
    wide = max(1, min(count, round(math.sqrt(2 * count))))
    return next((n for n in range(wide, min(count, wide + 5) + 1) if count % n == 0), wide)


def filters_of(weights: ArrayLike) -> Filters:
    """K×1×h×w or K×3×h×w weights as colours: 0.5 + w / (2·largest |w| of the filter)."""
    array = np.asarray(weights, np.float64)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        raise ValueError(f"filters are K×1×h×w or K×3×h×w, got shape {array.shape}")
    strongest = np.abs(array).max((1, 2, 3))
    scale = np.where(strongest > 0, strongest, 1.0)[:, None, None, None]
    colours = 0.5 + array / (2 * scale)
    return Filters(np.broadcast_to(colours.transpose(0, 2, 3, 1), (*colours[:, 0].shape, 3)), strongest)


def read_filters(folder: RunFolder) -> Filters | None:
    """The filters that the run saved in arrays/; None where there are none, or they cannot be read."""
    try:
        with (folder.arrays / FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return filters_of(arrays["filters"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None

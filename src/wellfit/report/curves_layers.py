"""A figure of each layer at each measured step, thinned for drawing: gradient norms, spreads, shares of dead units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wellfit.report.curves import MOST_COLUMNS, MOST_ROWS, Floats, evenly

Scale = Literal["log", "share"]


@dataclass(frozen=True)
class LayerTracks:
    """One row a layer, in the order of the network, one column a measured step; NaN where nothing was measured.

    scale: "log": positive values; "share": values in [0, 1]. in_all: layers before thinning.
    """

    names: list[str]
    steps: Floats
    values: Floats
    scale: Scale
    in_all: int


def layer_tracks(names: list[str], steps: Floats, values: Floats, scale: Scale) -> LayerTracks | None:
    """The table (layers × steps) as it will be drawn; None where it holds no number that can be.

    Of a logarithmic figure zeros count as not measured. At most 64 layers and 240 steps are kept, evenly.
    """
    if not names or not len(steps):
        return None
    table = np.asarray(values, np.float64)
    table = np.where(np.isfinite(table) & ((table > 0) | (scale == "share")), table, np.nan)
    rows = np.flatnonzero(np.isfinite(table).any(1))
    if not len(rows):
        return None
    kept, columns = rows[evenly(len(rows), MOST_ROWS)], evenly(len(steps), MOST_COLUMNS)
    return LayerTracks([names[i] for i in kept], steps[columns], table[np.ix_(kept, columns)], scale, len(rows))

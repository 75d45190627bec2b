"""A figure of each layer at each measured step, thinned for drawing: gradient norms, spreads, shares of dead units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wellfit.report.curves import MOST_COLUMNS, MOST_ROWS, Floats, column, evenly
from wellfit.report.history import History, mapping
from wellfit.report.words import number

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


def recorded_tracks(history: History, what: str) -> LayerTracks | None:
    """A figure of each layer's activations as the training's monitor saw them: "std", "dead" or "saturated" (SPEC C7).

    None where the record holds none: of older versions, and of layers that cannot have it.
    """
    measured = [line for line in history.steps if mapping(line, "layers")]
    measured = [measured[i] for i in evenly(len(measured), MOST_COLUMNS)]
    names = list(dict.fromkeys(name for line in measured for name in mapping(line, "layers")))
    values = [[number(mapping(mapping(line, "layers"), name).get(what)) for line in measured] for name in names]
    return layer_tracks(names, column(measured, "step"), np.array(values), "log" if what == "std" else "share")


@dataclass(frozen=True)
class GradientNorms:
    """The norm of the whole gradient at each measured step."""

    steps: Floats
    norms: Floats


def gradient_norms(history: History) -> GradientNorms | None:
    """As the training's monitor saw them; None where the record holds none."""
    steps, norms = column(history.steps, "step"), column(history.steps, "gradient_norm")
    kept = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    kept = kept[evenly(len(kept), 2 * MOST_COLUMNS)]
    return GradientNorms(steps[kept], norms[kept]) if len(kept) else None

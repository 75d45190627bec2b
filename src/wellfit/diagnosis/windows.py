"""Medians over a window that slides along a row of numbers, without a copy of the whole row for each place in it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wellfit.diagnosis.history import Floats

# Windows that are copied at once: a run of hundreds of thousands of steps is judged in a few megabytes.
BLOCK = 8192


def windows(values: Floats, width: int, count: int) -> Iterator[Floats]:
    """The first `count` windows of `width` numbers, in blocks n×width."""
    view = np.lib.stride_tricks.sliding_window_view(values, width)[:count]
    for start in range(0, len(view), BLOCK):
        yield view[start : start + BLOCK]


def medians(values: Floats, width: int, count: int) -> Floats:
    """The median of each of the first `count` windows."""
    return np.concatenate([np.empty(0), *(np.median(block, axis=1) for block in windows(values, width, count))])


def deviations(values: Floats, width: int, middles: Floats) -> Floats:
    """For each window the median distance of its numbers from its middle; middles: one a window, such as its median."""
    found, done = [np.empty(0)], 0
    for block in windows(values, width, len(middles)):
        found.append(np.median(np.abs(block - middles[done : done + len(block), None]), axis=1))
        done += len(block)
    return np.concatenate(found)

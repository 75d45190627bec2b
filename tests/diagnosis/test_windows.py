"""Sliding medians are those of each window by itself, and take little memory whatever the length."""

import tracemalloc

import numpy as np
import pytest

from wellfit.diagnosis.windows import BLOCK, deviations, medians


@pytest.mark.parametrize("length", [15, 16, 500, BLOCK + 14, BLOCK + 15, 2 * BLOCK + 40])
@pytest.mark.parametrize("width", [7, 15])
def test_each_window_has_its_own_median(length, width):
    values = np.random.default_rng(0).normal(size=length)
    count = length - width + 1
    middles = medians(values, width, count)
    spreads = deviations(values, width, middles)
    assert len(middles) == len(spreads) == count
    for place in [0, count // 2, max(0, min(count - 1, BLOCK)), count - 1]:
        window = values[place : place + width]
        assert middles[place] == np.median(window)
        assert spreads[place] == np.median(np.abs(window - np.median(window)))


def test_fewer_windows_than_there_are_may_be_asked_for():
    values = np.arange(40.0)
    assert medians(values, 5, 3).tolist() == [2.0, 3.0, 4.0]
    assert medians(values, 5, 0).tolist() == []


def test_a_long_row_is_read_in_a_few_megabytes():
    values = np.random.default_rng(0).normal(size=300_000)
    tracemalloc.start()
    try:
        deviations(values, 15, medians(values, 15, len(values) - 14))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20

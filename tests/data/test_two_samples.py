from __future__ import annotations

import math

import numpy as np
import pytest

from wellfit.data.two_samples import within_classes


def test_one_class_is_the_rank_sum_test() -> None:
    from scipy.stats import mannwhitneyu

    draw = np.random.default_rng(0)
    first, second = draw.integers(0, 12, 37).astype(float), draw.integers(2, 14, 23).astype(float)  # with ties
    seen = within_classes(first, np.zeros(37), second, np.zeros(23))
    expected = mannwhitneyu(second, first, use_continuity=False, method="asymptotic")
    assert seen.effect == pytest.approx(expected.statistic / (37 * 23) - 0.5)
    assert math.erfc(abs(seen.z) / math.sqrt(2)) == pytest.approx(expected.pvalue)
    assert (seen.first, seen.second) == (first.mean(), second.mean())


def test_other_shares_of_classes_that_differ_are_no_difference() -> None:
    draw = np.random.default_rng(1)
    first_classes, second_classes = np.repeat([0, 1], [190, 10]), np.repeat([0, 1], [10, 190])
    first = draw.normal(size=200) + 10 * first_classes
    second = draw.normal(size=200) + 10 * second_classes
    assert abs(within_classes(first, first_classes, second, second_classes).z) < 3
    assert abs(within_classes(first, np.zeros(200), second, np.zeros(200)).z) > 10


def test_every_second_value_larger() -> None:
    seen = within_classes(np.arange(5.0), np.zeros(5), np.arange(5.0) + 9, np.zeros(5))
    assert seen.effect == 0.5
    # U = 25, its variance 25·11/12, so that z = 12.5 / √22.9167
    assert seen.z == pytest.approx(12.5 / math.sqrt(25 * 11 / 12))


def test_equal_constants_and_no_class_in_common() -> None:
    assert within_classes(np.ones(4), np.zeros(4), np.ones(3), np.zeros(3)).z == 0.0
    apart = within_classes(np.ones(4), np.zeros(4), np.full(3, 9.0), np.ones(3))
    assert (apart.effect, apart.z) == (0.0, 0.0)


def test_the_sign_follows_the_second_sample() -> None:
    low, high = np.arange(30.0), np.arange(30.0) + 20
    up = within_classes(low, np.zeros(30), high, np.zeros(30))
    down = within_classes(high, np.zeros(30), low, np.zeros(30))
    assert up.effect == -down.effect > 0
    assert up.z == pytest.approx(-down.z)

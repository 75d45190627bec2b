"""McNemar's test and the paired interval, against SciPy and against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from wellfit.errors import UserError
from wellfit.inference.paired import mcnemar, paired_difference


@pytest.mark.parametrize(
    ("a", "b"), [(0, 0), (0, 1), (0, 5), (0, 6), (3, 12), (12, 3), (10, 10), (10, 11), (0, 400), (4800, 5200), (1, 90)]
)
def test_the_p_value_is_that_of_a_fair_coin(a: int, b: int) -> None:
    expected = binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)


def test_five_to_none_by_hand() -> None:
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(1, 3) == pytest.approx(2 * (1 + 4) / 16)


def test_a_hundred_thousand_images_neither_overflow_nor_vanish() -> None:
    # Half a million to a little more: the normal approximation holds to many digits there.
    a, b = 500_000, 501_500
    z = (b - a - 1) / math.sqrt(a + b)
    assert mcnemar(a, b) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_counts_below_zero_are_refused() -> None:
    with pytest.raises(UserError, match="counted from 0, got -1 and 2"):
        mcnemar(-1, 2)


def test_the_difference_is_that_of_the_accuracies_and_the_interval_holds_it() -> None:
    difference, low, high = paired_difference(3, 12, 269)
    assert difference == pytest.approx(9 / 269)
    assert low < difference < high
    mirrored = paired_difference(12, 3, 269)
    assert mirrored == pytest.approx((-difference, -high, -low))


def test_the_interval_keeps_its_promise() -> None:
    # Two classifiers, 80 images, right together 60% of the time, A alone 10%, B alone 20%.
    rng = np.random.default_rng(0)
    draws = rng.multinomial(80, [0.6, 0.1, 0.2, 0.1], size=2000)
    inside = 0
    for _, only_a, only_b, _ in draws.tolist():
        _, low, high = paired_difference(only_a, only_b, 80)
        inside += low <= 0.1 <= high
    assert 0.93 < inside / 2000 < 0.98


def test_a_difference_on_no_image_is_refused() -> None:
    with pytest.raises(UserError, match="at least one image"):
        paired_difference(0, 0, 0)
    with pytest.raises(UserError, match="count again"):
        paired_difference(3, 3, 5)

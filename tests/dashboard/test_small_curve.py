"""A small curve is the means of equal stretches, however long the training."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wellfit.dashboard.small_curve import SmallCurve
from wellfit.randomness import generator


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 100, 1000, 4097])
def test_it_is_the_mean_of_each_stretch(steps: int) -> None:
    losses = generator(0, "small-curve").random(steps)
    curve = SmallCurve(8)
    for i, loss in enumerate(losses.tolist()):
        curve.add(i + 1, loss, 0.1)
    width = 1
    while math.ceil(steps / width) > 8:
        width *= 2
    expected = [losses[i : i + width].mean() for i in range(0, steps, width)]
    assert curve.losses == pytest.approx(expected)
    assert curve.steps == [min(steps, i + width) for i in range(0, steps, width)]
    assert len(curve.rates) == len(curve.steps)


def test_losses_that_are_no_numbers_are_counted_and_in_no_mean() -> None:
    curve = SmallCurve(4)
    for i, loss in enumerate([1.0, math.nan, math.inf, 3.0]):
        curve.add(i + 1, loss, 0.1)
    assert curve.losses == [1.0, None, None, 3.0]
    assert curve.lost == 2
    curve.add(5, 5.0, 0.1)
    assert curve.losses == [1.0, 3.0, 5.0]


def test_a_resume_takes_back_what_it_repeats() -> None:
    straight, resumed = SmallCurve(100), SmallCurve(100)
    values = generator(1, "small-curve").random(60).tolist()
    for i in range(60):
        straight.add(i + 1, values[i], 0.1)
    for i in range(45):
        resumed.add(i + 1, 9.0 if i >= 30 else values[i], 0.5 if i >= 30 else 0.1)
    for i in range(30, 60):
        resumed.add(i + 1, values[i], 0.1)
    assert resumed.as_dict() == straight.as_dict()


def test_its_last_value_is_a_mean_of_the_end() -> None:
    curve = SmallCurve(200)
    for i in range(200):
        curve.add(i + 1, float(i), 0.1)
    assert curve.last == pytest.approx(np.mean(range(190, 200)))
    assert SmallCurve().last is None

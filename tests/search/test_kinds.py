"""Kinds of ranges: from the unit interval onto their values and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wellfit.errors import UserError
from wellfit.search.kinds import Choice, Fixed, Integer, LogUniform, Uniform

PLACES = st.floats(0, 1)


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.floats(1e-9, 1e3), st.floats(1.01, 1e6), PLACES)
def test_a_place_leads_to_a_value_of_a_logarithmic_range_and_back(low: float, factor: float, place: float) -> None:
    kind = LogUniform(low, low * factor)
    value = kind.at(place)
    assert kind.low <= value <= kind.high
    # Six digits are kept, which on a narrow range is a part of it.
    assert kind.place(value) == pytest.approx(place, abs=1e-5 / math.log(factor) + 1e-9)


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e3), PLACES)
def test_a_place_leads_to_a_value_of_an_even_range_and_back(low: float, width: float, place: float) -> None:
    kind = Uniform(low, low + width)
    value = kind.at(place)
    assert kind.low <= value <= kind.high
    assert kind.place(value) == pytest.approx(place, abs=1e-5 * max(1.0, abs(value)) / width)


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.integers(-50, 50), st.integers(1, 60))
def test_whole_numbers_share_the_unit_interval_evenly(low: int, width: int) -> None:
    kind = Integer(low, low + width)
    everything = [kind.at(place) for place in (i / 1000 for i in range(1001))]
    assert set(everything) == set(range(low, low + width + 1))
    counts = [everything.count(value) for value in range(low, low + width + 1)]
    assert max(counts) - min(counts) <= 2
    assert all(kind.at(kind.place(value)) == value for value in range(low, low + width + 1))


def test_choices_share_the_unit_interval_evenly() -> None:
    kind = Choice(("a", "b", "c"))
    assert [kind.at(place) for place in (0.0, 0.33, 0.34, 0.66, 0.67, 1.0)] == ["a", "a", "b", "b", "c", "c"]
    assert all(kind.at(kind.place(value)) == value for value in kind.values)
    assert [Fixed("a").at(place) for place in (0.0, 1.0)] == ["a", "a"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Uniform(1, 1), "low < high, got 1 to 1"),
        (lambda: Uniform(2, 1), "low < high, got 2 to 1"),
        (lambda: Uniform(0, math.nan), "two finite ends"),
        (lambda: Uniform(0, math.inf), "two finite ends"),
        (lambda: LogUniform(math.nan, 1), "0 < low < high"),
        (lambda: Integer(3, 3), "got 3 to 3"),
        (lambda: Integer(1.5, 3), "two whole numbers"),
        (lambda: Choice((1, 2, 1)), "names each value once"),
    ],
)
def test_a_range_that_is_none_is_refused_in_a_sentence(make, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()


@pytest.mark.parametrize(
    ("kind", "value", "edge"),
    [
        (Uniform(0, 10), 0.9, "low"),
        (Uniform(0, 10), 1.1, None),
        (Uniform(0, 10), 9.1, "high"),
        (Integer(1, 4), 1, "low"),
        (Integer(1, 4), 2, None),
        (Integer(1, 4), 4, "high"),
        (Integer(0, 100), 10, "low"),
        (Integer(0, 100), 11, None),
    ],
)
def test_the_edge_is_the_outer_tenth(kind: Uniform | Integer, value: float, edge: str | None) -> None:
    assert kind.edge(value) == edge


def test_drawn_numbers_have_six_digits_so_that_machines_agree() -> None:
    assert LogUniform(1e-6, 1.0).at(1 / 3) == 1e-4
    assert Uniform(0, 1).at(1 / 3) == 0.333333

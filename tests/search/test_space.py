from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wellfit.errors import UserError
from wellfit.search.space import Choice, Integer, LogUniform, Space, Uniform, contains, draw, in_order, ranges


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, math.inf)])
def test_a_range_in_log_space_is_positive_and_ordered(low: float, high: float) -> None:
    with pytest.raises(UserError, match="needs 0 < low < high"):
        LogUniform(low, high)


def test_a_choice_has_something_to_choose() -> None:
    with pytest.raises(UserError, match=r"at least two values, got \['sgd'\]"):
        Choice(("sgd",))


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.floats(1e-9, 1e3), st.floats(1.5, 100))
def test_a_range_around_a_value_has_it_in_its_logarithmic_middle(value: float, factor: float) -> None:
    around = LogUniform(1e-12, 1e12).around(value, factor)
    assert math.isclose(math.sqrt(around.low * around.high), value, rel_tol=1e-9)
    assert around.edge(value) is None


@pytest.mark.parametrize(
    ("value", "edge"),
    [(1e-5, "low"), (1.9e-5, "low"), (2.1e-5, None), (1e-3, None), (4.9e-1 / 10, None), (8e-2, "high"), (0.1, "high")],
)
def test_the_edge_is_the_outer_tenth_in_the_logarithm(value: float, edge: str | None) -> None:
    """1e-5 to 1e-1 spans four decades: a tenth is 0.4 of a decade, a factor of 2.51."""
    assert LogUniform(1e-5, 1e-1).edge(value, share=math.log10(2) / 4) == edge
    assert LogUniform(1e-5, 1e-1).edge(2.5e-5) == "low"
    assert LogUniform(1e-5, 1e-1).edge(2.6e-5) is None


def test_ranges_are_plain_json() -> None:
    assert ranges({"lr": LogUniform(1e-4, 0.1), "balance": Choice(("none", "weights"))}) == {
        "lr": [1e-4, 0.1],
        "balance": ["none", "weights"],
    }


CONDITIONAL: Space = {
    "momentum": Uniform(0.5, 0.99, only_with={"optimizer": ("momentum", "nesterov")}),
    "lr": LogUniform(1e-4, 1e-1),
    "optimizer": Choice(("adam", "momentum", "nesterov")),
}


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_setting_is_there_exactly_where_its_condition_is_met(places: list[float]) -> None:
    place = dict(zip(CONDITIONAL, places, strict=True))
    settings = draw(CONDITIONAL, place.__getitem__)
    assert ("momentum" in settings) == (settings["optimizer"] != "adam")
    assert contains(CONDITIONAL, settings)
    assert list(settings) == [name for name in CONDITIONAL if name in settings]


def test_a_condition_of_a_condition_needs_both() -> None:
    space: Space = {
        "freeze": Integer(1, 4, only_with={"model": ("resnet",)}),
        "model": Choice(("resnet", "lenet"), only_with={"optimizer": ("adam",)}),
        "optimizer": Choice(("adam", "sgd")),
    }
    assert in_order(space) == ["optimizer", "model", "freeze"]
    assert set(draw(space, lambda name: 0.0)) == {"optimizer", "model", "freeze"}
    assert draw(space, lambda name: 0.99) == {"optimizer": "sgd"}


def test_settings_are_in_the_space_or_not() -> None:
    inside = {"optimizer": "momentum", "momentum": 0.9, "lr": 0.01}
    assert contains(CONDITIONAL, inside)
    assert not contains(CONDITIONAL, {**inside, "lr": 1.0})
    assert not contains(CONDITIONAL, {**inside, "optimizer": "adam"})  # adam has no momentum
    assert not contains(CONDITIONAL, {"optimizer": "momentum", "lr": 0.01})
    assert not contains(CONDITIONAL, {**inside, "dropout": 0.1})
    assert not contains(CONDITIONAL, {**inside, "optimizer": "sgd"})

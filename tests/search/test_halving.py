"""Successive halving: counts and lengths by hand, and what a stage may cost as a property."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wellfit.search.halving import Ladder, Wish, finalists, ladder

WISH = Wish(settings=16, most=100, rungs=3, first=1.0, last=5.0)


def test_what_a_ladder_costs_is_counted_by_hand() -> None:
    made = Ladder((8, 4, 2), (1.0, 2.0, 4.0))
    assert made.cost == 8 * 1 + 4 * 1 + 2 * 2
    assert made.trials == 14


def test_enough_settings_come_before_length() -> None:
    made = ladder(WISH, epochs=14.0, trials=math.inf, shortest=0.1)
    assert made is not None
    assert made.settings == (16, 8, 4)
    # 16 r + 8 r + 4 · 2 r = 32 r
    assert made.epochs == pytest.approx((14 / 32, 14 / 16, 14 / 8))


def test_length_comes_before_more_settings() -> None:
    made = ladder(WISH, epochs=100.0, trials=math.inf, shortest=0.1)
    assert made is not None
    assert made.epochs == (1.0, 2.0, 4.0)
    assert made.settings == (51, 25, 12)
    assert made.cost == 51 * 1 + 25 * 1 + 12 * 2
    unlimited = ladder(WISH, epochs=math.inf, trials=math.inf, shortest=0.1)
    assert unlimited is not None
    assert unlimited.settings == (100, 50, 25)


def test_where_runs_would_be_too_short_there_are_fewer_of_them() -> None:
    made = ladder(WISH, epochs=4.0, trials=math.inf, shortest=0.5)
    assert made is not None
    assert made.epochs[0] == 0.5
    assert 1 <= made.settings[0] < 16
    single = ladder(WISH, epochs=0.5, trials=math.inf, shortest=0.5)
    assert single == Ladder((1,), (0.5,))
    assert ladder(WISH, epochs=0.4, trials=math.inf, shortest=0.5) is None
    assert ladder(WISH, epochs=10.0, trials=0, shortest=0.5) is None


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    st.floats(0.01, 1e4),
    st.one_of(st.integers(0, 500), st.just(math.inf)),
    st.integers(1, 60),
    st.integers(1, 4),
    st.floats(0.01, 10),
    st.floats(1, 30),
    st.floats(1e-3, 1),
)
def test_a_ladder_keeps_to_its_limits(
    epochs: float, trials: float, settings: int, rungs: int, first: float, last: float, short: float
) -> None:
    wish = Wish(settings, max(settings, 40), rungs, first, max(first, last))
    made = ladder(wish, epochs=epochs, trials=trials, shortest=min(short, first))
    if made is None:
        assert trials < 1 or epochs < min(short, first) * (1 + 1e-9)
        return
    assert made.cost <= epochs * (1 + 1e-9)
    assert made.trials <= trials
    assert made.epochs[0] >= min(short, first) * (1 - 1e-9)
    assert made.epochs[0] <= first
    assert made.epochs[-1] <= wish.last
    assert list(made.epochs) == sorted(made.epochs)
    assert list(made.settings) == sorted(made.settings, reverse=True)
    assert made.settings[0] <= wish.most
    assert made.settings[-1] >= 1


def test_finalists_come_to_full_length_by_halving() -> None:
    made = finalists([1.2, 1.2, 0.6, 0.6, 0.3], longest=5.0, epochs=10.0, trials=math.inf, least=2, most=4)
    # From 1.2 epochs on: 2.5, then 5. Four of them to 2.5 cost 1.3 + 1.3 + 1.9 + 1.9, two on to 5 cost 5, in all 11.4.
    assert made == Ladder((2,), (5.0,))  # two straight on: 3.8 each
    made = finalists([1.2, 1.2, 0.6, 0.6, 0.3], longest=5.0, epochs=11.5, trials=math.inf, least=2, most=4)
    assert made == Ladder((4, 2), (2.5, 5.0))
    assert finalists([1.2, 1.2], longest=5.0, epochs=7.7, trials=5, least=2, most=4) == Ladder((2, 2), (2.5, 5.0))


def test_one_finalist_alone_is_none() -> None:
    assert finalists([1.2, 1.2, 0.6], longest=5.0, epochs=7.0, trials=math.inf, least=2, most=4) is None
    assert finalists([1.2], longest=5.0, epochs=100.0, trials=math.inf, least=2, most=4) is None
    assert finalists([], longest=5.0, epochs=100.0, trials=math.inf, least=2, most=4) is None
    assert finalists([1.2, 1.2], longest=5.0, epochs=100.0, trials=1, least=2, most=4) is None


@given(st.lists(st.floats(0.01, 20), max_size=12), st.floats(1, 20), st.floats(0, 100), st.integers(0, 20))
def test_finalists_cost_no_more_than_there_is(reached: list[float], longest: float, epochs: float, trials: int) -> None:
    reached = [min(each, longest) for each in reached]
    made = finalists(reached, longest=longest, epochs=epochs, trials=trials, least=2, most=4)
    if made is None:
        return
    assert made.epochs[-1] == longest
    assert made.trials <= trials
    spent, runs = 0.0, list(reached)
    for count, length in zip(made.settings, made.epochs, strict=True):
        runs = [max(length, each) for each in runs[:count]]
        spent += sum(after - before for after, before in zip(runs, reached, strict=False))
        reached = runs
    assert len(runs) >= 2
    assert spent <= epochs * (1 + 1e-9)

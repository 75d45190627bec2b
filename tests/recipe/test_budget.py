from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellfit.errors import UserError
from wellfit.recipe.budget import SMALLEST, Budget, in_words, parse_budget, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h 30m 5s", 5405),
        ("1.5m", 90),
        (" 90S ", 90),
        ("90", 90),
        (90, 90),
        (90.5, 90.5),
        ("0.5h", 1800),
    ],
)
def test_durations_people_write(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "",
        "s",
        "10x",
        "10 minutes",
        "m10",
        "-5",
        "-5s",
        "1e3",
        "nan",
        "inf",
        "0",
        "0s",
        0,
        -1,
        math.nan,
        math.inf,
    ],
)
def test_anything_else_is_refused_with_the_rule_and_the_value(text: str | float) -> None:
    with pytest.raises(UserError, match=r"a number with s, m or h, such as 90s, 10m or 2h") as caught:
        parse_duration(text)
    assert f"got '{text}'" in str(caught.value)


def test_too_small_a_budget_names_the_smallest_sensible_one() -> None:
    with pytest.raises(UserError, match=rf"a budget of 1 s is too small.*--budget {SMALLEST:g}s"):
        parse_budget("1s")
    assert parse_budget(f"{SMALLEST:g}s") == SMALLEST


@given(st.integers(1, 10**6))
def test_a_duration_in_words_is_read_back(seconds: int) -> None:
    """ "7 min 30 s" is the duration, to the minute from an hour on."""
    words = in_words(float(seconds)).replace(" min", "m").replace(" ", "")
    coarse = 60 if seconds >= 3600 else 1
    assert abs(parse_duration(words) - seconds) < coarse


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1 min"), (450, "7 min 30 s"), (7500, "2 h 5 min")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_budget_counts_down_and_stops_at_nothing() -> None:
    now = [100.0]
    budget = Budget(60.0, 95.0, lambda: now[0])
    assert (budget.spent, budget.left, budget.deadline) == (5.0, 55.0, 155.0)
    now[0] = 200.0
    assert budget.left == 0.0


def test_without_seconds_there_is_no_deadline() -> None:
    budget = Budget(None, 0.0)
    assert budget.deadline is None
    assert budget.left == math.inf

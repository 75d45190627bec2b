from __future__ import annotations

import math

import pytest

from wellfit.report.words import count, counted, duration, figure, interval, moment, number, percent, plain, points


@pytest.mark.parametrize(
    ("value", "expected"),
    [("nan", math.nan), (None, math.nan), ("inf", math.inf), ([], math.nan), ("1e-3", 0.001), (3, 3.0)],
)
def test_number_reads_what_a_record_may_hold(value: object, expected: float) -> None:
    assert number(value) == pytest.approx(expected, nan_ok=True)


def test_number_survives_an_integer_beyond_any_float() -> None:
    assert math.isnan(number(10**400))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.9163, "91.6%"),
        (1.0, "100.0%"),
        (0.99996, "99.9%"),
        (0.0, "0.0%"),
        (0.0001, "<0.1%"),
        ("nan", "–"),
        (None, "–"),
    ],
)
def test_percent_never_rounds_to_perfect(share: object, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.7, "1 min 00 s"), (252.3, "4 min 12 s"), (3725, "1 h 02 min"), (None, "–")],
)
def test_duration(seconds: object, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0003, "3e-4"), (0.02, "0.02"), (1234.5, "1234"), (2.5e7, "2.5e7"), (0, "0"), (None, "–"), ("inf", "inf")],
)
def test_figure(value: object, text: str) -> None:
    assert figure(value) == text


def test_small_forms() -> None:
    assert interval(0.9, 0.95) == "90.0–95.0%"
    assert points(0.0123) == "+1.2 points"
    assert points(None) == "–"
    assert count(10_000) == "10,000"
    assert counted(1, "class", "classes") == "1 class"
    assert counted(2000, "class", "classes") == "2,000 classes"


def test_plain_shows_no_control_characters_and_no_direction_override() -> None:
    said = plain("a\x1b[31mb\u202egpj.exe\ud800\n")
    assert said == "a\ufffd[31mb\ufffdgpj.exe\ufffd\ufffd"
    assert said.encode("utf-8")


def test_plain_cuts_long_text() -> None:
    assert plain("x" * 50, limit=10) == "x" * 9 + "…"
    assert plain("x" * 10, limit=10) == "x" * 10


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "1970-01-01 00:00 UTC"),
        (1736245293.9, "2025-01-07 10:21 UTC"),
        ("2025-01-07T10:21:33", "2025-01-07T10:21:33"),
        (math.nan, "–"),
        (10**400, "–"),
        (None, "–"),
    ],
)
def test_moment_is_a_time_of_day_anywhere(value: object, text: str) -> None:
    assert moment(value) == text

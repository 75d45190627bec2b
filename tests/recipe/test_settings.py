"""What a fit's search begins with, and how long it may take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.recipe.plans import longer, small_plan
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.plan import Plan, SearchPlan
from wellfit.recipe.settings import (
    ALIKE,
    MOST_SEARCH_TIME,
    rate_of_checks,
    schedule_of,
    search_time,
    starting_space,
)
from wellfit.record import Record, RunFolder
from wellfit.search.knobs import reaching
from wellfit.search.rounds import Round
from wellfit.search.space import LogUniform


def material(plan: Plan | None = None) -> Material:
    return cast(Material, SimpleNamespace(plan=plan or small_plan(), imbalanced=False))


def job_with(folder: Path, *checks: dict[str, Any]) -> Job:
    record = Record(RunFolder(folder).record)
    for check in checks:
        record.write("check", **{"check": "no-good-lr", "passed": True, "finished": True, "value": None, **check})
    record.close()
    return cast(Job, SimpleNamespace(folder=RunFolder(folder)))


@pytest.mark.parametrize(
    ("checks", "rate"),
    [
        ([{"value": 0.02}], 0.02),
        ([{"value": 0.02}, {"value": 0.01}], 0.01),  # checked again after a kill
        ([{"check": "initial-loss", "value": 2.3}], None),
        ([{"value": 0.02, "passed": False}], None),
        ([{"value": 0.02, "finished": False}], None),  # the time decided, which is not the same twice
        ([{}], None),
        ([], None),
    ],
)
def test_the_checks_tell_a_rate_where_they_came_to_one(
    tmp_path: Path, checks: list[dict[str, Any]], rate: float | None
) -> None:
    assert rate_of_checks(job_with(tmp_path, *checks)) == rate


def test_the_default_is_tried_first_the_rate_of_the_checks_second_then_rates_on_both_sides() -> None:
    usual = small_plan().optimizer.lr
    first = schedule_of(material(), 10 * usual).first
    assert [round(settings["lr"] / usual, 6) for settings in first] == [1, 10, 3, 0.333333]
    first = schedule_of(material()).first
    assert [round(settings["lr"] / usual, 6) for settings in first] == [1, 3, 0.333333]
    first = schedule_of(material(), 2.5 * usual).first  # near to three times: not tried twice
    assert [round(settings["lr"] / usual, 6) for settings in first] == [1, 2.5, 0.333333]


def test_beside_the_default_rate_what_else_varies_is_drawn() -> None:
    """Of a set whose classes differ in size: few trials have to tell of the ways to balance them, too."""
    plan = small_plan(training=replace(small_plan().training, balance="auto"))
    unequal = cast(Material, SimpleNamespace(plan=plan, imbalanced=True))
    drawn = set()
    for seed in range(12):
        plan = plan.replace(seed=seed)
        first = schedule_of(cast(Material, SimpleNamespace(plan=plan, imbalanced=True))).next([])
        assert isinstance(first, Round)
        assert first.tasks[0].settings["balance"] == "none"
        drawn |= {task.settings["balance"] for task in first.tasks[1:]}
    assert drawn == {"none", "weights", "sampler"}
    assert schedule_of(unequal).first[1].keys() == {"lr"}


@pytest.mark.parametrize("times", [1.0, 0.99 * ALIKE, 1.01 / ALIKE])
def test_a_rate_like_the_default_is_not_tried_twice(times: float) -> None:
    assert len(schedule_of(material(), times * small_plan().optimizer.lr).first) == 3


def test_the_space_reaches_beyond_the_rate_of_the_checks() -> None:
    usual = small_plan().optimizer.lr
    plain, wider = (starting_space(material(), found)["lr"] for found in (None, 10 * usual))
    assert isinstance(plain, LogUniform)
    assert isinstance(wider, LogUniform)
    assert (plain.low, plain.high) == pytest.approx((usual / 30, usual * 10))
    assert (wider.low, wider.high) == pytest.approx((usual / 30, usual * 30))


def test_a_range_that_holds_the_rate_well_within_is_left() -> None:
    rates = LogUniform(1e-4, 1e-1)
    assert reaching(rates, 4e-2) == rates
    above, below = reaching(rates, 6e-2), reaching(rates, 5e-5)
    assert (above.low, above.high) == pytest.approx((1e-4, 0.18))
    assert (below.low, below.high) == pytest.approx((5e-6, 1e-1))


def test_a_search_may_take_somewhat_more_than_its_planned_share_of_the_steps() -> None:
    """4 × 4 and 4 × 9 steps of trials, beside 300 of one network or 600 of two."""
    plan = small_plan(training=longer(300))
    assert search_time(plan) == pytest.approx(1.35 * 52 / 352)
    two = plan.replace(ending=replace(plan.ending, members=2))
    assert search_time(two) == pytest.approx(1.35 * 52 / 652)


def test_a_search_never_takes_more_than_half() -> None:
    assert search_time(small_plan(search=SearchPlan(10, 5, 50, 150, 100), training=longer(10))) == MOST_SEARCH_TIME

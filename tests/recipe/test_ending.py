"""What the plan spends on further networks, snapshots and views."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from wellfit.config import Config
from wellfit.errors import UserError
from wellfit.inference.views import VIEWS
from wellfit.recipe.ending import (
    ENOUGH,
    JUDGED,
    LATE,
    MOST_NETWORKS,
    MOST_TRIALS,
    Means,
    judging_passes,
    networks,
    plan_ending,
)
from wellfit.recipe.plan import EndingPlan

AMPLE = Means(seconds=600, rate=5000, validation=500, tests=500, affordable=300, wanted=10)


def ending(config: Config, means: Means = AMPLE, **changes: Any) -> EndingPlan:
    given: dict[str, Any] = {"members": 1, "trains": True, "rate": "one_cycle", "augment": ("flip", "crop"), **changes}
    return plan_ending(config, means, **given)


@pytest.mark.parametrize(("affordable", "count"), [(10, 1), (39, 1), (41, 2), (65, 3), (500, MOST_NETWORKS)])
def test_networks_are_as_many_as_can_each_be_trained_long_enough(affordable: float, count: int) -> None:
    reasons: list[str] = []
    means = replace(AMPLE, affordable=affordable)
    assert networks(Config(), means, reasons) == count
    assert count == 1 or affordable / count >= ENOUGH * means.wanted
    assert bool(reasons) == (count > 1)


def test_an_asked_for_number_is_taken_as_it_is() -> None:
    short = replace(AMPLE, affordable=1.0)
    assert networks(Config(ensemble="3"), short, []) == 3
    assert networks(Config(ensemble="none"), AMPLE, []) == 1
    assert networks(Config().replace(**{"training.epochs": 5.0}), AMPLE, []) == 1


def test_many_test_images_leave_fewer_networks() -> None:
    slow = replace(AMPLE, tests=300_000)
    count = networks(Config(), slow, [])
    assert count < networks(Config(), AMPLE, [])
    assert count == 1 or slow.judging(count) <= JUDGED


def test_snapshots_are_taken_at_the_ends_of_cycles_or_late_in_a_training() -> None:
    assert ending(Config(), rate="cyclic").snapshots == (0.25, 0.5, 0.75, 1.0)
    assert ending(Config(), rate="one_cycle").snapshots == LATE
    assert ending(Config(ensemble="none")).snapshots == ()
    assert ending(Config(), trains=False).snapshots == ()


def test_trials_may_be_members_where_other_candidates_are_and_judging_them_is_cheap() -> None:
    assert ending(Config(), searched=True).trials == MOST_TRIALS
    assert ending(Config()).trials == 0
    assert ending(Config(ensemble="none"), searched=True).trials == 0
    assert ending(Config(), replace(AMPLE, seconds=0.5), searched=True).trials == 0
    assert judging_passes(EndingPlan(1, (0.7, 1.0), trials=2), tests=0.0) == 4 + 2


def test_views_are_tried_as_far_as_the_time_goes_and_mirrors_only_where_training_saw_them() -> None:
    everything = ending(Config(), replace(AMPLE, seconds=60_000)).views
    assert everything == tuple(VIEWS)[1:]
    plain = ending(Config(), replace(AMPLE, seconds=60_000), augment=("crop",)).views
    assert plain == tuple(name for name in everything if not VIEWS[name].mirrored)
    little = ending(Config(), replace(AMPLE, seconds=20)).views
    assert len(little) < len(everything)
    assert ending(Config(), replace(AMPLE, seconds=0.1)).views == ()


def test_the_time_that_judging_takes_is_counted_in_passes_over_validation() -> None:
    assert judging_passes(EndingPlan(), tests=1.0) == 0
    # Three trainings of two snapshots, an average and the best; three views tried; kept, members and views see the
    # validation and the test images again.
    full = EndingPlan(3, (0.7, 1.0), ("shift",))
    assert judging_passes(full, tests=1.0) == 3 * 4 + (1 + 3) + 2 * (2 + 2)  # views are compared with none


def test_what_was_asked_for_by_name_is_noted() -> None:
    asked = ending(Config(views="ten", ensemble="3"), replace(AMPLE, seconds=0.1), members=3)
    assert asked.views == ("ten",)
    assert asked.members == 3
    assert set(asked.asked) == {"ensemble", "views"}
    assert ending(Config(views="none")).asked == ()


@pytest.mark.parametrize("value", ["0", "-1", "three", "101", ""])
def test_an_ensemble_is_a_number_of_networks(value: str) -> None:
    with pytest.raises(UserError, match=f"from 1 to 100, got '{value}'"):
        Config(ensemble=value)

"""The budget in epochs follows from the speed of the trials, where the one look at the machine was wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.search.landscape import SPACE, Landscape
from wellfit.search.asked import TimeLimit
from wellfit.search.pacing import corrected, images_per_second
from wellfit.search.schedule import Finished, Round, Schedule
from wellfit.search.trial import Trial

IMAGES = 10_000  # of an epoch
SPEED = 2_000.0  # images a second, in truth
SECONDS = 600.0


def timed(begun: float, ended: float, images: int = 1000, training: float | None = None, number: int = 0) -> Trial:
    seconds = ended - begun
    within = seconds if training is None else training
    return Trial("coarse", number, {}, "finished", 0.5, images=images, seconds=seconds, training=within, ended=ended)


def limit(expected: float | None = SPEED, wanted: float = 15.0) -> TimeLimit:
    return TimeLimit(SECONDS, IMAGES, expected, wanted, 0.2)


def schedule(expected: float | None, seed: int = 0) -> Schedule:
    time = limit(expected)
    budget = None if expected is None else time.epochs(expected, SECONDS)
    longest = 15.0 if budget is None else time.longest(budget)
    return Schedule.plan(SPACE, seed=seed, longest=longest, shortest=0.2, budget_epochs=budget, time=time)


def run(asked: Schedule, seed: int = 0, speed: float = SPEED) -> tuple[Finished, list[Trial], list[Round]]:
    """The schedule on a machine of that speed; each trial costs half a second beside its training."""
    land, now = Landscape(seed), 0.0
    trials: list[Trial] = []
    rounds: list[Round] = []
    while isinstance(step := asked.next(trials), Round):
        rounds.append(step)
        by_number = {trial.number: trial for trial in trials}
        for task in step.tasks:
            trial = land.run(task)
            before = 0.0 if task.continues is None else by_number[task.continues].epochs
            images = max(1, round((trial.epochs - before) * IMAGES))
            training = images / speed
            now += training + 0.5
            trials.append(replace(trial, images=images, training=training, seconds=training + 0.5, ended=now))
    return step, trials, rounds


def stages(rounds: list[Round]) -> list[str]:
    return list(dict.fromkeys(step.stage for step in rounds))


# The speed


def test_one_worker_after_the_other_has_the_speed_of_its_training() -> None:
    assert images_per_second([timed(0, 1), timed(1, 2), timed(2, 3)]) == pytest.approx(1000)
    # Four seconds of training and one beside it: in a trial four times as long that is a sixteenth more.
    assert images_per_second([timed(0, 5, 4000, 4.0)]) == pytest.approx(1000 * 16 / 17)


def test_workers_beside_each_other_are_counted() -> None:
    assert images_per_second([timed(0, 1), timed(0, 1)]) == pytest.approx(2000)
    # The second one is alone for half of its time: one and a half workers.
    assert images_per_second([timed(0, 1), timed(0, 2, images=2000)]) == pytest.approx(1500)


def test_time_in_which_nobody_ran_does_not_count() -> None:
    """As between a kill and its resume."""
    assert images_per_second([timed(0, 1), timed(5000, 5001)]) == pytest.approx(1000)


def test_trials_that_say_nothing_are_left_out() -> None:
    assert images_per_second([]) is None
    assert images_per_second([replace(timed(0, 2), training=0.0), replace(timed(0, 2), ended=0.0)]) is None
    assert images_per_second([timed(0, 1), replace(timed(0, 1), images=0)]) == pytest.approx(1000)


# The correction


def test_the_epochs_that_are_left_follow_from_the_time_that_is_left() -> None:
    asked = schedule(500.0)
    assert asked.budget_epochs == pytest.approx(30.0)
    done = [timed(0, 60, images=120_000)]
    found = corrected(asked, done, done, spent=6.0)
    assert found is not None
    # 2,000 images/s for the 540 s that are left: 108 epochs beside the 6 that were trained.
    assert found.asked.budget_epochs == pytest.approx(114.0)
    assert found.asked.longest == pytest.approx(15.0)  # a fifth of the budget would be more than is wanted
    assert found.raised
    assert found.reason == (
        "1 trial was run at 2,000 images/s, which was taken to be 500, so there are 114 epochs in all instead of 30"
    )
    slow = corrected(schedule(20_000.0), done, done, spent=6.0)
    assert slow is not None
    assert not slow.raised


def test_a_small_difference_changes_nothing() -> None:
    done = [timed(0, 60, images=120_000)]
    budget = 114.0
    for there, changes in [(budget, False), (1.09 * budget, False), (1.12 * budget, True), (budget / 1.12, True)]:
        asked = replace(schedule(SPEED), budget_epochs=there)
        assert (corrected(asked, done, done, spent=6.0) is not None) == changes


def test_without_a_time_there_is_nothing_to_correct() -> None:
    done = [timed(0, 60)]
    assert corrected(Schedule.plan(SPACE, seed=0, longest=5.0, budget_epochs=25.0), done, done, 1.0) is None
    assert corrected(schedule(SPEED), done, [], 1.0) is None


# The search


@pytest.mark.parametrize("seed", range(3))
def test_a_busy_first_second_costs_no_stage(seed: int) -> None:
    """The look at the machine fell into a moment in which it had a tenth of its speed."""
    _, _, right = run(schedule(SPEED, seed), seed)
    _, trials, rounds = run(schedule(SPEED / 10, seed), seed)
    assert stages(rounds)[-1] == stages(right)[-1] == "final"
    assert "fine" in stages(rounds)
    assert 0.55 * SECONDS < trials[-1].ended < 1.2 * SECONDS
    second = next(step for step in rounds if step.tasks[0].number > 0)
    assert "images/s, which was taken to be 200, so there are" in second.reason
    # Without the correction it would have ended after a tenth of its time.
    uncorrected = replace(schedule(SPEED / 10, seed), time=None)
    assert run(uncorrected, seed)[1][-1].ended < 0.15 * SECONDS


@pytest.mark.parametrize("factor", [3, 8])
@pytest.mark.parametrize("seed", range(2))
def test_a_machine_that_became_busy_still_comes_to_a_finer_stage(seed: int, factor: float) -> None:
    """Trials are trained at a third, an eighth of the speed that was measured beforehand."""
    _, trials, rounds = run(schedule(factor * SPEED, seed), seed)
    assert "fine" in stages(rounds)
    assert 0.5 * SECONDS < trials[-1].ended < 1.2 * SECONDS
    uncorrected = replace(schedule(factor * SPEED, seed), time=None)
    coarse = [trial for trial in run(uncorrected, seed)[1] if trial.stage == "coarse"]
    assert coarse[-1].ended > (0.7 if factor == 3 else 1.5) * SECONDS  # it would have had the most of the time, or more


def test_where_no_speed_was_measured_the_first_trials_say_it() -> None:
    _, trials, rounds = run(schedule(None))
    assert "fine" in stages(rounds)
    assert trials[-1].ended < 1.3 * SECONDS
    assert any("images/s, which was not known, so there are" in step.reason for step in rounds)


def test_where_the_measurement_was_right_nothing_is_said() -> None:
    _, _, rounds = run(schedule(SPEED))
    assert not any("images/s" in step.reason for step in rounds[:2])


@hypothesis_settings(max_examples=6, deadline=None)
@given(st.sampled_from([0.1, 0.3, 3.0]), st.integers(0, 50), st.randoms(use_true_random=False))
def test_who_takes_the_search_up_comes_to_the_same_from_its_trials(factor: float, seed: int, order: Any) -> None:
    asked = schedule(SPEED * factor, seed)
    end, trials, rounds = run(asked, seed)
    again = Schedule.from_dict(json.loads(json.dumps(asked.to_dict())))
    assert again == asked
    shuffled = list(trials)
    order.shuffle(shuffled)
    assert again.next(shuffled) == end
    for step in rounds[:: max(1, len(rounds) // 3)]:
        assert again.next([trial for trial in shuffled if trial.number < step.tasks[0].number]) == step

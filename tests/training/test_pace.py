"""Progress by counted steps is exact; under a deadline it ends when the time does, however the speed drifts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wellfit.training.pace import Pace


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(pace: Pace, clock: Clock, seconds: Callable[[int], float]) -> list[float]:
    """Progress before each step, until the pace is finished."""
    seen = []
    while not pace.finished:
        seen.append(pace.progress)
        clock.now += seconds(pace.step)
        pace.advance()
    return seen


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_without_a_deadline_progress_is_the_share_of_steps(steps: int) -> None:
    pace = Pace(steps)
    seen = run(pace, Clock(), lambda step: 0.0)
    assert seen == [i / steps for i in range(steps)]
    assert pace.progress == 1.0
    assert pace.expected_steps == steps


SPEEDS: dict[str, Callable[[int], float]] = {
    "steady": lambda step: 0.1,
    "twice as slow from the middle": lambda step: 0.1 if step < 300 else 0.2,
    "twice as fast from the middle": lambda step: 0.1 if step < 300 else 0.05,
    "a long evaluation every 50 steps": lambda step: 0.1 + (2.0 if step % 50 == 49 else 0.0),
    "slow at first": lambda step: 1.0 if step < 5 else 0.1,
    "drifting": lambda step: 0.1 * (1 + 0.5 * np.sin(step / 60)),
}


@pytest.mark.parametrize("name", SPEEDS)
def test_under_a_deadline_progress_reaches_its_end_when_the_time_does(name: str) -> None:
    clock = Clock()
    deadline = clock.now + 60.0
    pace = Pace(100_000, deadline, clock)
    seen = run(pace, clock, SPEEDS[name])
    slowest = max(SPEEDS[name](step) for step in range(pace.step))
    assert clock.now <= deadline + slowest
    assert clock.now >= deadline - 1.5 - 2 * slowest
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] > 0.9  # the schedule is not cut off: its last steps are its end
    assert pace.progress == 1.0


def test_at_steady_speed_progress_is_linear_in_time() -> None:
    clock = Clock()
    pace = Pace(100_000, clock.now + 100.0, clock)
    seen = run(pace, clock, lambda step: 0.25)
    np.testing.assert_allclose(seen, np.arange(len(seen)) / 400, atol=0.01)


def test_the_plans_steps_are_the_most_even_where_time_is_left() -> None:
    clock = Clock()
    pace = Pace(50, clock.now + 1e6, clock)
    seen = run(pace, clock, lambda step: 0.1)
    assert len(seen) == 50
    np.testing.assert_allclose(seen, np.arange(50) / 50, atol=1e-9)


def test_a_deadline_that_has_passed_allows_one_step() -> None:
    clock = Clock()
    pace = Pace(1000, clock.now - 5.0, clock)
    assert len(run(pace, clock, lambda step: 0.1)) == 1


def test_a_clock_that_stands_still_divides_by_nothing() -> None:
    clock = Clock()
    assert len(run(Pace(10, clock.now + 5.0, clock), clock, lambda step: 0.0)) == 10


def test_resumed_progress_goes_on_from_where_it_was() -> None:
    clock = Clock()
    pace = Pace(100_000, clock.now + 60, clock)
    for _ in range(100):
        clock.now += 0.2
        pace.advance()
    again = Pace(100_000, clock.now + 20, clock)
    again.resume(pace.step, pace.progress)
    assert (again.step, again.progress) == (100, pace.progress)
    seen = run(again, clock, lambda step: 0.2)
    assert seen[0] == pace.progress
    assert 90 <= len(seen) <= 101
    assert again.step == 100 + len(seen)


def test_a_counted_pace_resumes_exactly() -> None:
    pace = Pace(40)
    pace.resume(30, 0.75)
    assert run(pace, Clock(), lambda step: 0.0) == [i / 40 for i in range(30, 40)]


def test_the_estimate_of_all_steps_follows_the_speed() -> None:
    clock = Clock()
    pace = Pace(100_000, clock.now + 100, clock)
    for _ in range(100):
        clock.now += 0.1
        pace.advance()
    assert abs(pace.expected_steps - 1000) < 30

"""Batches made between the network's steps, or ahead of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from wellfit.data import supply as room
from wellfit.data.supply import DEPTH, STRETCH, TURN, ahead_of_steps, supply

LONG = TURN + 2 * (2 * TURN + STRETCH)  # the first steps, then both ways and the quicker one, twice


def is_ahead() -> bool:
    return threading.current_thread().name.startswith("wellfit-batches")


def own_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("wellfit-batches")]


class Clock:
    """Stands for the module's `time`: it moves only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(room, "time", clock)
    return clock


def ways(clock: Clock, seconds: Callable[[int, bool], float], device: str = "cpu", count: int = LONG) -> list[bool]:
    """Which batches were made ahead, where each takes seconds(number, made ahead), its making and its step together."""
    found = []
    for (number, ahead), _ in supply(lambda number: (number, is_ahead()), range(count), device):
        found.append(ahead)
        clock.now += seconds(number, ahead)
    return found


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("numbers", [range(0), range(1), range(7, 30), range(3, 400, 2)], ids=str)
def test_every_number_is_handed_over_once_and_in_order(device: str, numbers: range) -> None:
    assert [number for number, _ in supply(int, numbers, device)] == list(numbers)
    assert not own_threads()


def test_beside_an_accelerator_a_thread_makes_all_of_them(clock: Clock) -> None:
    assert ways(clock, lambda number, ahead: 1.0, "cuda", 300) == [True] * 300


def test_on_the_processor_a_thread_that_slows_the_steps_is_only_tried(clock: Clock) -> None:
    first, tried, kept = [False] * TURN, [False] * TURN + [True] * TURN, [False] * STRETCH
    assert ways(clock, lambda number, ahead: 1.1 if ahead else 1.0) == first + 2 * (tried + kept)


def test_on_the_processor_a_thread_that_saves_waiting_goes_ahead(clock: Clock) -> None:
    first, tried, kept = [False] * TURN, [False] * TURN + [True] * TURN, [True] * STRETCH
    assert ways(clock, lambda number, ahead: 1.0 if ahead else 1.1) == first + 2 * (tried + kept)


def test_a_disk_that_becomes_slow_is_noticed(clock: Clock) -> None:
    """It waits from the first long stretch on."""
    first, tried = [False] * TURN, [False] * TURN + [True] * TURN
    slow = ways(clock, lambda number, ahead: 2.0 if number >= 4 * TURN and not ahead else 1.1 if ahead else 1.0)
    assert slow == first + tried + [False] * STRETCH + tried + [True] * STRETCH


def test_one_long_pause_of_the_caller_decides_nothing(clock: Clock) -> None:
    """Two evaluations fall into the turn without a thread, which is the quicker one."""
    first, tried, kept = [False] * TURN, [False] * TURN + [True] * TURN, [False] * STRETCH
    found = ways(clock, lambda number, ahead: 50.0 if number in (TURN + 3, TURN + 5) else 1.1 if ahead else 1.0)
    assert found == first + 2 * (tried + kept)


def test_steps_beside_which_nothing_is_made_do_not_speak_for_the_thread(clock: Clock) -> None:
    """While the thread works a step takes 1.2; at a turn's end it has nothing left to make, and a step takes 0.9."""
    first, tried, kept = [False] * TURN, [False] * TURN + [True] * TURN, [False] * STRETCH

    def seconds(number: int, ahead: bool) -> float:
        drained = (number - 2 * TURN) % (2 * TURN + STRETCH) >= TURN - 1 - DEPTH
        return (0.9 if drained else 1.2) if ahead else 1.1

    assert ways(clock, seconds) == first + 2 * (tried + kept)


def test_what_was_waited_is_the_time_of_making(clock: Clock) -> None:
    def made(number: int) -> int:
        clock.now += 0.25 * number
        return number

    assert [seconds for _, seconds in supply(made, range(4), "cpu")] == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("at", [0, 3, 2 * TURN + 3])
def test_an_error_while_making_one_reaches_the_reader(device: str, at: int) -> None:
    def broken(number: int) -> int:
        if number == at:
            raise RuntimeError(f"cannot read row {at}")
        return number

    reader = supply(broken, range(300), device)
    assert [next(reader)[0] for _ in range(at)] == list(range(at))
    with pytest.raises(RuntimeError, match=f"cannot read row {at}"):
        next(reader)
    assert not own_threads()


def test_leaving_early_ends_the_thread_and_its_reading_ahead() -> None:
    asked: list[int] = []

    def noted(number: int) -> int:
        asked.append(number)
        return number

    reader = ahead_of_steps(noted, range(1000))
    next(reader)
    deadline = time.monotonic() + 5
    while len(asked) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    reader.close()
    assert asked == [0, 1, 2]  # the one that was taken, and two ahead
    assert not own_threads()


@pytest.mark.parametrize("taken", [1, TURN + 1, 2 * TURN + 3])
def test_leaving_a_supply_early_leaves_no_thread(taken: int) -> None:
    reader = supply(int, range(1000), "cpu")
    for _ in range(taken):
        next(reader)
    assert bool(own_threads()) == (taken > 2 * TURN)
    reader.close()
    assert not own_threads()

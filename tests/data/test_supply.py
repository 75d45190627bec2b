"""Batches made between the network's steps, or ahead of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from wellfit.data import supply as room
from wellfit.data.supply import WATCHED, prefetch, supply


def own_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("wellfit-batches")]


def maker(number: int) -> tuple[int, str]:
    """The number, and the thread that it was made in."""
    return number, threading.current_thread().name


class Clock:
    """Stands for the module's `time`: it moves only where a test says so, the processor's time less than the wall's."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    def perf_counter(self) -> float:
        return self.wall

    def process_time(self) -> float:
        return self.processor

    def works(self, seconds: float) -> None:
        self.wall += seconds
        self.processor += seconds

    def waits(self, seconds: float) -> None:
        self.wall += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(room, "time", clock)
    return clock


def train_on(batches: Iterator[tuple[tuple[int, str], float]], clock: Clock, step: float) -> list[bool]:
    """Whether each batch was made ahead, by a thread; a step between two of them takes `step` seconds."""
    ahead = []
    for (_, thread), _ in batches:
        ahead.append(thread.startswith("wellfit-batches"))
        clock.works(step)
    return ahead


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("numbers", [range(0), range(1), range(7, 30), range(3, 40, 2)], ids=str)
def test_every_number_is_handed_over_once_and_in_order(device: str, numbers: range) -> None:
    assert [number for (number, _), _ in supply(maker, numbers, device)] == list(numbers)


def test_beside_an_accelerator_a_thread_makes_them(clock: Clock) -> None:
    assert train_on(supply(maker, range(5), "cuda"), clock, 1.0) == [True] * 5


@pytest.mark.parametrize("waits", [0.0, 0.04])
def test_on_the_processor_they_are_made_between_the_steps(clock: Clock, waits: float) -> None:
    def made(number: int) -> tuple[int, str]:
        clock.works(0.3)
        clock.waits(waits)
        return maker(number)

    assert train_on(supply(made, range(3 * WATCHED), "cpu"), clock, 1 - 0.3 - waits) == [False] * (3 * WATCHED)


def test_where_making_them_waits_for_a_disk_a_thread_goes_ahead(clock: Clock) -> None:
    """The first window is quick; from the second on each batch waits for a tenth of its time."""

    def made(number: int) -> tuple[int, str]:
        if WATCHED <= number < 2 * WATCHED:
            clock.waits(0.1)
        return maker(number)

    batches = supply(made, range(4 * WATCHED), "cpu")
    assert train_on(batches, clock, 0.9) == [False] * (2 * WATCHED) + [True] * (2 * WATCHED)


def test_what_was_waited_is_the_time_of_making(clock: Clock) -> None:
    def made(number: int) -> tuple[int, str]:
        clock.works(0.25 * number)
        return maker(number)

    assert [seconds for _, seconds in supply(made, range(4), "cpu")] == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_error_while_making_one_reaches_the_reader(device: str) -> None:
    def broken(number: int) -> int:
        if number == 3:
            raise RuntimeError("cannot read row 3")
        return number

    reader = supply(broken, range(10), device)
    assert [next(reader)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="cannot read row 3"):
        next(reader)
    assert not own_threads()


def test_leaving_early_ends_the_thread_and_its_reading_ahead() -> None:
    asked: list[int] = []

    def noted(number: int) -> int:
        asked.append(number)
        return number

    reader = prefetch(noted, range(1000), depth=2)
    next(reader)
    deadline = time.monotonic() + 5
    while len(asked) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    reader.close()
    assert asked == [0, 1, 2]  # the one that was taken, and two ahead
    assert not own_threads()

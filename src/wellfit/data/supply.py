"""Hands over batches as the network asks for them: made between its steps, or ahead of them by a thread.

What is handed over is the same either way: a batch is made from its number alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from statistics import median
from typing import TypeVar

TURN, DEPTH = 10, 2  # batches in which a way is timed against the other; that lie ready where they are made ahead
STRETCH = 160  # batches that the quicker way makes before both are timed again: a disk may have become slow

Made = TypeVar("Made")


def supply(make: Callable[[int], Made], numbers: range, device: str) -> Generator[tuple[Made, float], None, None]:
    """Yield (make(number), seconds that the caller waited for it) for each of the numbers in turn.

    device: where the network runs. Beside an accelerator a thread makes batches ahead. A network on the processor
    needs the cores itself, and a thread that works beside its steps may slow them by more than it prepares, unless
    making a batch waits for something else, as a disk. Which way is quicker is therefore timed, now and again: by the
    median step of a turn, so that a pause of the caller, as for an evaluation, decides nothing. Each call begins anew,
    with 2 · TURN batches that no thread makes.
    """
    if device != "cpu":
        yield from ahead_of_steps(make, numbers)
        return
    left, way, stretch = numbers, between_steps, TURN  # the first steps of a network are not like the others
    while left:
        now, left = left[:stretch], left[stretch:]
        yield from way(make, now)
        seconds = []
        for tried in (between_steps, ahead_of_steps):
            turn, left = left[:TURN], left[TURN:]
            lengths, begun = [], time.perf_counter()
            with closing(tried(make, turn)) as batches:
                for made in batches:
                    yield made
                    ended = time.perf_counter()
                    lengths.append(ended - begun)
                    begun = ended
            # At a turn's begin the thread fills what lies ready, at its end it has nothing left to make.
            seconds.append(median(lengths[1 : TURN - 1 - DEPTH] or [0.0]))
        way, stretch = between_steps if seconds[0] <= seconds[1] else ahead_of_steps, STRETCH


def between_steps(make: Callable[[int], Made], numbers: range) -> Generator[tuple[Made, float], None, None]:
    """Yield (make(number), seconds that it took), made when it is asked for."""
    for number in numbers:
        begun = time.perf_counter()
        made = make(number)
        yield made, time.perf_counter() - begun


def ahead_of_steps(make: Callable[[int], Made], numbers: range) -> Generator[tuple[Made, float], None, None]:
    """Yield (make(number), seconds waited for it), made by one thread that stays DEPTH ahead.

    An error in the thread is raised here; leaving the loop early ends the thread after the batch that it makes.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wellfit-batches")
    ahead: deque[Future[Made]] = deque()
    try:
        for i in range(len(numbers)):
            for number in numbers[i + len(ahead) : i + 1 + DEPTH]:
                ahead.append(thread.submit(make, number))
            begun = time.perf_counter()
            made = ahead.popleft().result()
            yield made, time.perf_counter() - begun
    finally:
        thread.shutdown(cancel_futures=True)

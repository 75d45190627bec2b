"""Hands over batches as the network asks for them: made between its steps, or ahead of them by a thread.

What is handed over is the same either way: a batch is made from its number alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

WATCHED = 10  # batches: over so many it is judged whether making them waits
WAITS = 0.05  # of the time: from here on a thread that reads ahead costs less than standing still

Made = TypeVar("Made")


def supply(make: Callable[[int], Made], numbers: range, device: str) -> Iterator[tuple[Made, float]]:
    """Yield (make(number), seconds that the caller waited for it) for each of the numbers in turn.

    device: where the network runs. Beside an accelerator a thread makes batches ahead. A network on the processor
    needs every core itself, and a thread that works beside its steps slows them by more than it prepares; there
    batches are made between the steps, until making them is seen to wait for something else, as a disk.
    """
    if device != "cpu":
        yield from prefetch(make, numbers)
        return
    stood = 0.0
    window = time.perf_counter()
    for done, number in enumerate(numbers, start=1):
        begun, worked = time.perf_counter(), time.process_time()
        made = make(number)
        seconds = time.perf_counter() - begun
        stood += max(0.0, seconds - (time.process_time() - worked))
        yield made, seconds
        if done % WATCHED == 0:
            now = time.perf_counter()
            if stood > WAITS * (now - window):
                yield from prefetch(make, numbers[done:])
                return
            stood, window = 0.0, now


def prefetch(make: Callable[[int], Made], numbers: range, depth: int = 2) -> Iterator[tuple[Made, float]]:
    """Yield (make(number), seconds waited for it), made by one thread that stays `depth` ahead.

    An error in the thread is raised here; leaving the loop early ends the thread after the batch that it makes.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wellfit-batches")
    ahead: deque[Future[Made]] = deque()
    try:
        for i in range(len(numbers)):
            for number in numbers[i + len(ahead) : i + 1 + depth]:
                ahead.append(thread.submit(make, number))
            begun = time.perf_counter()
            made = ahead.popleft().result()
            yield made, time.perf_counter() - begun
    finally:
        thread.shutdown(cancel_futures=True)

"""Ctrl-C and termination: the first asks the run to finish what it is at, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wellfit.recipe.job import Job


@contextmanager
def interrupts(job: Job) -> Iterator[None]:
    """First Ctrl-C (or SIGTERM): finish what is under way and save. Second: abort."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        job.say("stopping: what is under way is finished and saved; press Ctrl-C again to abort")

    job.stop = lambda: asked
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

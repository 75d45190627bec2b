"""What stops a run from outside: Ctrl-C, termination, and the wish that somebody left in the run's folder."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wellfit.recipe.job import Job
from wellfit.recipe.processes import processes
from wellfit.request import Requests


@contextmanager
def interrupts(job: Job) -> Iterator[None]:
    """First Ctrl-C (or SIGTERM): finish the step that is under way and save. Second: abort.

    A wish in request.json: finish the epoch, or the trial, evaluate and save. Its notes are written into the record.
    """
    asked = False
    requests = Requests(
        job.folder,
        on_stop=lambda: job.say("asked to stop: the epoch, or the trial, is finished, evaluated and saved"),
        on_note=lambda note: job.record.write("note", text=note),
    )

    def stop() -> bool:
        return requests.stop() or asked

    def stop_now() -> bool:
        requests.stop()  # for its notes
        return asked

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            if processes() > 1:  # torchrun passes on what the terminal has sent already, and kills after 30 seconds
                return
            raise KeyboardInterrupt
        asked = True
        job.say("stopping: what is under way is finished and saved; press Ctrl-C again to abort")

    job.stop, job.stop_now = stop, stop_now
    if threading.current_thread() is not threading.main_thread():  # others receive no signals
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

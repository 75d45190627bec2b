"""A schedule and workers of the tests. Worker processes import this file: it must not import torch."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from wellfit.search.schedule import Finished, Round
from wellfit.search.study import Study
from wellfit.search.trial import Task, Trial

FAST = {"interval": 0.3, "grace": 2.5, "poll": 0.05}  # seconds


class Rounds:
    """Rounds of the given sizes. Tasks of a round depend on all results of the one before."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes

    def next(self, trials: Sequence[Trial]) -> Round | Finished:
        known = {trial.number: trial for trial in trials}
        begin, best = 0, None
        for rung, size in enumerate(self.sizes):
            tasks = tuple(
                Task(number, "coarse", {"lr": score_of(number)}, 1.0, rung) for number in range(begin, begin + size)
            )
            if any(task.number not in known for task in tasks):
                return Round("coarse", rung, tasks, {}, f"{size} tasks")
            begin += size
            best = max(trials, key=lambda trial: trial.score or 0.0)
        return Finished("the rounds are done", (), best)


def score_of(number: int) -> float:
    """In (0, 1), different for each number."""
    return (number * 0.618034 + 0.1) % 1.0


def run(task: Task) -> Trial:
    """A trial whose score follows from its task; some are broken off, some fail."""
    if task.number % 10 == 3:
        return Trial(task.stage, task.number, task.settings, "pruned", reason="the loss rose")
    if task.number % 10 == 7:
        return Trial(task.stage, task.number, task.settings, "failed", reason="out of memory")
    return Trial(task.stage, task.number, task.settings, "finished", score_of(task.number), loss=0.5, images=100)


def busy(seconds: float) -> None:
    """Real work on one core."""
    until, block = time.thread_time() + seconds, b"\0" * 4096
    while time.thread_time() < until:
        block = hashlib.blake2b(block).digest() * 64


def note(folder: Path, text: str) -> None:
    """One line of the log, whole also where several processes write."""
    handle = os.open(folder / "log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, f"{text}\n".encode())
    finally:
        os.close(handle)


def work(
    storage: str,
    folder: Path,
    sizes: tuple[int, ...],
    doomed: dict[str, float],
    *,
    worker: str,
    stop: Callable[[], bool],
) -> int:
    """Work at the study "tiny", from when all four workers are there; a doomed one is killed so many seconds later."""
    ran = 0

    def one(task: Task) -> Trial:
        nonlocal ran
        ran += 1
        note(folder, f"{task.number} {worker}")
        busy(0.05)
        return run(task)

    with Study.open(storage, "tiny", identity={"data": "tiny"}, schedule={"sizes": list(sizes)}) as study:
        (folder / f"{worker}.here").touch()
        while len(list(folder.glob("*.here"))) < 4:
            time.sleep(0.01)
        if worker in doomed:
            threading.Timer(doomed[worker], os.kill, (os.getpid(), signal.SIGKILL)).start()
        assert study.work(Rounds(*sizes), one, worker=worker, stop=stop, **FAST) is not None
    return ran


def work_in_threads(storage: str, sizes: tuple[int, ...], *, worker: str, stop: Callable[[], bool]) -> list[int]:
    """Two workers in one process; the numbers of the tasks that they ran."""
    ran: list[int] = []

    def one(task: Task) -> Trial:
        ran.append(task.number)
        time.sleep(0.02)
        return run(task)

    def shift(name: str) -> None:
        with Study.open(storage, "tiny", identity={"data": "tiny"}, schedule={}) as study:
            study.work(Rounds(*sizes), one, worker=name, stop=stop, **FAST)

    threads = [threading.Thread(target=shift, args=(f"{worker}{letter}",)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ran


def sleep_through(storage: str, folder: Path, *, worker: str, stop: Callable[[], bool]) -> None:
    """A worker that says its process number at its first task, so that it can be paused there."""

    def one(task: Task) -> Trial:
        if not (folder / "asleep").exists():
            (folder / "asleep").write_text(str(os.getpid()))
            until = time.monotonic() + 30
            while not (folder / "awake").exists() and time.monotonic() < until:
                time.sleep(0.02)
        note(folder, f"{task.number} {worker}")
        return run(task)

    with Study.open(storage, "tiny", identity={"data": "tiny"}, schedule={}) as study:
        study.work(Rounds(2), one, worker=worker, stop=stop, **FAST)


def heavy_modules(*, worker: str, stop: Callable[[], bool]) -> list[str]:
    """Which heavy packages a worker holds that is ready to claim."""
    return [name for name in ("torch", "matplotlib", "pandas", "sklearn") if name in sys.modules]

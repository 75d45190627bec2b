"""How many workers: measured on the training itself, since small nets beside each other may be faster than in turn."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wellfit import engine as engines
from wellfit.errors import UserError
from wellfit.recipe.material import Material, Settings
from wellfit.search.workers import run_workers
from wellfit.training.loop import train
from wellfit.training.pace import Pace
from wellfit.training.schedules import schedule

MEASURED = 2.0  # seconds of training, each time
MOST = 8  # workers that are tried: each has a Python and a torch of its own in memory
BETTER = 1.1  # how much more they must do together: a search has more to wait for than this measurement
SHORTEST = 120.0  # seconds of searching below which the measurement would cost more than it brings
PATIENCE = 60.0  # seconds that a worker waits for the others to be ready


@dataclass(frozen=True)
class Workforce:
    """Workers of a search on this machine, threads of each, images a second of all together, and why."""

    workers: int
    threads: int
    images_per_second: float
    reason: str


def choose_workforce(material: Material, asked: int, seconds: float, say: Callable[[str], None]) -> Workforce:
    """As many workers as asked for; 0: one, or several where they are measured to train more images together.

    seconds: of searching; infinite without a deadline. Measures only where that is worth its time.
    """
    engine = material.plan.engine
    cores = engines.CORES if engine.device == "cpu" else MOST
    if asked:
        threads = engine.threads if asked == 1 or engine.device != "cpu" else max(1, engines.CORES // asked)
        return Workforce(asked, threads, 0.0, f"{_counted(asked)} as asked")
    if min(cores, MOST) < 2:
        return Workforce(1, engine.threads, 0.0, "one worker: torch may use one thread here")
    if seconds < SHORTEST:
        return Workforce(
            1, engine.threads, 0.0, "one worker: the search is too short to measure whether more are faster"
        )
    alone = speed(material, MEASURED)
    count = min(cores, MOST) if engine.device == "cpu" else 4
    threads = max(1, cores // count) if engine.device == "cpu" else engine.threads
    together = _together(with_threads(material, threads), count, say)
    said = f"{count} train {together:,.0f} images/s together, one with {engine.threads} threads {alone:,.0f}"
    if together > BETTER * alone:
        return Workforce(count, threads, together, f"{_counted(count)}: {said}")
    return Workforce(1, engine.threads, alone, f"one worker: {said}")


def with_threads(material: Material, threads: int) -> Material:
    """The material with another number of threads in its plan."""
    plan = material.plan
    return replace(material, plan=plan.replace(engine=replace(plan.engine, threads=threads)))


def threads_for(position: int, tasks: int, workers: int, threads: int, cores: int) -> int:
    """Threads for one of a round's tasks: more where it is one of the last ones, which leave workers without any.

    position: of the task in its round of `tasks`, from 0. A function of these alone, so that a search that is repeated
    with as many workers adds in the same order.
    """
    last = tasks % workers
    return max(threads, cores // last) if position >= tasks - last else threads


def for_workers(material: Material) -> Material:
    """The material without what trials do not need, so that it travels: images are in the store."""
    data = copy.copy(material.data)
    data.source = replace(data.source, reader=NoReader())
    return replace(material, data=data)


class NoReader:
    """Stands in for the source's reader where images come from the store."""

    def read(self, index: int) -> bytes:
        raise NotImplementedError("a worker reads images from the pixel store")

    def stamp(self, index: int) -> tuple[int, int]:
        raise NotImplementedError("a worker reads images from the pixel store")


def speed(material: Material, seconds: float, ready: Callable[[], None] = lambda: None) -> float:
    """Images a second of the real training, batches and all. ready: called after a step to warm up."""
    plan = material.plan
    plan.engine.activate()
    settings = Settings.of(plan)
    module = plan.engine.place(material.network().module)
    optimizer = material.optimizer(module, settings)
    batches = material.training(plan.seed, "none")

    def some(pace: Pace) -> int:
        outcome = train(
            module,
            batches,
            material.criterion("none"),
            optimizer,
            engine=plan.engine,
            preprocessing=material.preprocessing,
            schedule=schedule("constant"),
            penalty=material.penalty(),
            pace=pace,
            stop=lambda: pace.deadline is not None and time.monotonic() > pace.deadline,
        )
        return outcome.steps

    some(Pace(2))
    ready()
    begun = time.monotonic()
    steps = some(Pace(10**9, begun + seconds))
    return steps * batches.batch_size / (time.monotonic() - begun)


def measure(material: Material, folder: str, count: int, *, worker: str, stop: Callable[[], bool]) -> float:
    """What each worker runs: it waits until all are ready, so that they are measured beside each other."""

    def ready() -> None:
        (Path(folder) / worker).touch()
        until = time.monotonic() + PATIENCE
        while len(list(Path(folder).iterdir())) < count and time.monotonic() < until and not stop():
            time.sleep(0.02)

    return speed(material, MEASURED, ready)


def _together(material: Material, count: int, say: Callable[[str], None]) -> float:
    """Images a second of all workers; 0 where they cannot run beside each other, which is said."""
    threads = material.plan.engine.threads
    with tempfile.TemporaryDirectory(prefix="wellfit-") as folder:
        arguments: tuple[Any, ...] = (for_workers(material), folder, count)
        try:
            speeds = run_workers(
                count, measure, arguments, threads=threads, line=lambda *_: None, say=lambda _: None, replacements=0
            )
        except (UserError, RuntimeError) as error:
            say(f"several workers cannot run beside each other here ({error}); one is used")
            return 0.0
    return math.fsum(speeds) if len(speeds) == count else 0.0


def _counted(workers: int) -> str:
    return "one worker" if workers == 1 else f"{workers} workers"

"""The work of a search: trials of a shared study, run in this process or by worker processes (SPEC S1 rows 4, 5, 7)."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wellfit.errors import Interrupted
from wellfit.findings import Finding
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.trials import TrialRunner
from wellfit.recipe.workforce import for_workers, threads_for, with_threads
from wellfit.record import Record, RunFolder, read_record
from wellfit.search.importance import importance
from wellfit.search.schedule import Finished, Round, Schedule
from wellfit.search.space import ranges
from wellfit.search.stages import ranked
from wellfit.search.study import Study
from wellfit.search.trial import Task, Trial
from wellfit.search.workers import run_workers

MARK = "wellfit-line "  # begins what a worker prints of its record
LAST_TRIALS, LOOK = 10.0, 0.2  # seconds that others are waited for at the end, and between two looks
DEATHS = 3  # of workers at one task, after which it counts as failed
CHECKPOINTS = 4e9  # bytes that checkpoints of trials may take together
CUT_OFF = "ended within"  # how the reason of a search begins that its time cut off
PROMISING = 3.0  # a trial that is at most so many times shorter than the longest may be the best


@dataclass(frozen=True)
class Orders:
    """What a worker needs to take part; it can be pickled.

    workers, cores: of this machine, for the search. until: on `time.time`'s scale, None without a deadline.
    begun: when the search's own time began, on the same scale.
    """

    material: Material
    folder: Path
    storage: str
    study: str
    identity: dict[str, Any]
    founding: dict[str, Any]
    workers: int
    cores: int
    until: float | None
    begun: float


class News:
    """What the search's own record keeps of its rounds, and what is said of trials that other processes ran."""

    def __init__(self, job: Job, study: Study) -> None:
        self.job, self.study = job, study
        self.schedule = Schedule.from_dict(study.schedule["schedule"])
        lines = list(read_record(job.folder.record))
        self.rounds = {
            (line["name"], line.get("first")) for line in lines if line["kind"] == "stage" and "first" in line
        }
        self.weighed = {(line.get("stage"), line.get("trials")) for line in lines if line["kind"] == "importance"}

    def opened(self, fields: dict[str, Any]) -> None:
        """A round began, here or in a worker: written down once, with what came up before it."""
        key = fields["name"], fields["first"]
        if key in self.rounds:
            return
        trials = self.study.trials()
        if key[0] not in {name for name, _ in self.rounds}:
            self.weigh([trial for trial in trials if trial.number < key[1]])
        self.rounds.add(key)
        tidy(self.job.folder, trials, set(fields["continues"]))
        found = fields.pop("findings")
        self.job.record.write("stage", **fields)
        self.job.report(*(Finding(**each) for each in found))

    def weigh(self, trials: list[Trial]) -> None:
        """How much each setting matters by these trials, which end with a stage: written down once."""
        key = (trials[-1].stage, len(trials)) if trials else None
        if key is None or key in self.weighed:
            return
        self.weighed.add(key)
        shares = importance(self.schedule.space, trials, self.schedule.seed)
        if shares is not None:
            self.job.record.write("importance", stage=key[0], trials=key[1], shares=shares)

    def catch_up(self, trials: list[Trial]) -> None:
        """Write down the rounds that were opened and ended elsewhere."""
        for round_ in self.schedule.rounds(trials):
            self.opened(stage_line(round_))

    def heard(self, worker: str, text: str) -> None:
        """A line that a worker printed."""
        if not text.startswith(MARK):
            self.job.say(f"worker {worker}: {text}")
            return
        try:
            line = json.loads(text.removeprefix(MARK))
        except ValueError:  # torn by its worker's death
            return
        kind = line.pop("kind")
        if kind == "stage":
            self.opened(line)
        else:
            self.job.record.tell(kind, **line)


def work(orders: Orders, job: Job, study: Study) -> None:
    """Until the schedule has finished, the time is up or somebody asks to stop; what came of it is in the study."""
    news = News(job, study)
    if orders.workers == 1:
        _shift(orders, study, job.record.write, news.opened, worker="1", stop=job.stop)
        return
    given = Orders(**{**vars(orders), "material": for_workers(orders.material)})
    run_workers(
        orders.workers,
        serve,
        (given,),
        threads=orders.material.plan.engine.threads,
        stop=job.stop,
        line=news.heard,
        say=job.say,
    )


def wait_for_others(study: Study, stop: Callable[[], bool]) -> None:
    """Until no other worker is at a trial: the time ends for all at once, and all are to conclude from the same trials.

    Not for long: a worker that died without a word is not waited for.
    """
    until = time.monotonic() + LAST_TRIALS
    while study.watch() and not stop() and time.monotonic() < until:
        time.sleep(LOOK)


def serve(orders: Orders, *, worker: str, stop: Callable[[], bool]) -> None:
    """What a worker process runs. Its record is a file of its own; each line is printed for the process above too."""
    folder = RunFolder(orders.folder)
    record = Record(folder.workers / f"{worker}-{os.getpid()}.jsonl", _print_line)
    try:
        with Study.open(
            orders.storage, orders.study, identity=orders.identity, schedule=orders.founding, say=_print
        ) as study:
            _shift(orders, study, record.write, lambda fields: record.tell("stage", **fields), worker=worker, stop=stop)
    finally:
        record.close()


def _shift(
    orders: Orders,
    study: Study,
    write: Any,
    opened: Callable[[dict[str, Any]], None],
    *,
    worker: str,
    stop: Callable[[], bool],
) -> None:
    """One worker at work. A trial that cannot end before the deadline is not begun; one that does not is given back."""
    behind = time.time() - time.monotonic()  # the one clock may be set, the other not
    deadline = math.inf if orders.until is None else orders.until - behind
    clock = _Clock(deadline)
    own = orders.material.plan.engine.threads
    threads: dict[int, int] = {}  # by number of the task
    runner = TrialRunner(
        orders.material,
        orders.folder,
        write,
        worker,
        stop=lambda: stop() or time.monotonic() > deadline,
        clock=lambda: time.monotonic() + behind - orders.begun,
    )

    def run(task: Task) -> Trial:
        begun = time.monotonic()
        trial = replace(runner, material=with_threads(orders.material, threads.get(task.number, own)))(task)
        clock.took(trial, time.monotonic() - begun)
        return trial

    def on_round(round_: Round) -> None:
        threads.update(threads_of(round_, orders))
        clock.next_round(round_)
        opened(stage_line(round_))

    with contextlib.suppress(Interrupted):
        study.work(
            Schedule.from_dict(study.schedule["schedule"]),
            run,
            worker=worker,
            stop=lambda: stop() or clock.too_late(),
            opened=on_round,
            deaths=DEATHS,
        )


def threads_of(round_: Round, orders: Orders) -> dict[int, int]:
    """Threads for each task of a round, by its number."""
    engine, tasks = orders.material.plan.engine, sorted(task.number for task in round_.tasks)
    if engine.device != "cpu":
        return dict.fromkeys(tasks, engine.threads)
    return {
        number: threads_for(position, len(tasks), orders.workers, engine.threads, orders.cores)
        for position, number in enumerate(tasks)
    }


class _Clock:
    """Whether another trial of the open round still fits before the deadline, by what the last ones took."""

    def __init__(self, deadline: float) -> None:
        self.deadline, self.rate, self.length = deadline, 0.0, 0.0

    def next_round(self, round_: Round) -> None:
        self.length = min(task.epochs for task in round_.tasks)
        if any(task.continues is not None for task in round_.tasks):
            self.length /= 2  # a part of it is trained already

    def took(self, trial: Trial, seconds: float) -> None:
        if trial.state == "finished" and trial.continues is None and trial.epochs > 0:
            self.rate = seconds / trial.epochs

    def too_late(self) -> bool:
        return time.monotonic() + self.rate * self.length > self.deadline


def stage_line(round_: Round) -> dict[str, Any]:
    """The fields of a round's line in the record. first: the number of its first trial, which names the round."""
    return {
        "name": round_.stage,
        "rung": round_.rung,
        "first": min(task.number for task in round_.tasks),
        "tasks": len(round_.tasks),
        "epochs": max(task.epochs for task in round_.tasks),
        "continues": [task.continues for task in round_.tasks if task.continues is not None],
        "ranges": ranges(round_.space),
        "reason": round_.reason,
        "findings": [finding.as_dict() for finding in round_.findings],
    }


def concluded(schedule: Schedule, trials: list[Trial]) -> Finished:
    """What the search came to: by its schedule, or, where it was ended early, by the rounds that were complete.

    Trials are compared within their round, and of one that was cut off there may be too few to compare.
    """
    step = schedule.next(trials)
    if isinstance(step, Finished):
        return step
    cut_off = {task.number for task in step.tasks}
    complete = [trial for trial in trials if trial.number not in cut_off]
    judged = complete if any(trial.score is not None for trial in complete) else trials
    order = [judged[i] for i in ranked(judged, schedule.space)]
    longest = max((trial.epochs for trial in order), default=0.0)
    best = next((trial for trial in order if trial.epochs * PROMISING >= longest), None)
    return Finished(f"{CUT_OFF} the {step.stage} stage", (), best)


def tidy(folder: RunFolder, trials: list[Trial], wanted: set[int], most: float = CHECKPOINTS) -> None:
    """Remove checkpoints that nobody will go on from: of trials that were continued, and the worst beyond `most` bytes.

    wanted: numbers that stay in any case. A trial whose checkpoint is gone can still be continued: it starts again.
    """
    continued = {trial.continues for trial in trials if trial.state != "failed"}
    scores = {trial.number: trial.score for trial in trials if trial.score is not None}
    room = most
    kept = {int(path.name): path for path in (folder.path / "trials").glob("*") if path.name.isdecimal()}
    needed = wanted | (kept.keys() - scores.keys())  # those without a score may be under way
    for number in sorted(kept, key=lambda number: (number not in needed, -scores.get(number, 0.0))):
        path = kept[number]
        with contextlib.suppress(OSError):
            size = sum(file.stat().st_size for file in path.iterdir())
            if number in needed or (number not in continued and size <= room):
                room -= size
            else:
                shutil.rmtree(path, ignore_errors=True)


def _print_line(kind: str, fields: dict[str, Any]) -> None:
    _print(MARK + json.dumps({"kind": kind, **fields}, default=str))


def _print(text: str) -> None:
    # The process above may be gone: what is printed is a courtesy, what is written is in the record.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)

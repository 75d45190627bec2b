"""Workers of their own processes share one study: each trial is finished once, whoever dies, sleeps or is cut off."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import TrialState

from tests.search.conftest import Server
from tests.search.rounds import FAST, Rounds, run, score_of, sleep_through, work, work_in_threads
from wellfit.randomness import generator
from wellfit.search.claims import CLAIM
from wellfit.search.place import connect, place_of
from wellfit.search.study import Study
from wellfit.search.trial import Task, Trial
from wellfit.search.workers import run_workers


def ended(storage: str) -> Counter[int]:
    """How often each task was finished, past all of our reading."""
    kept = connect(place_of(storage))
    trials = optuna.load_study(study_name="tiny", storage=kept).get_trials()
    kept.engine.dispose()
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return Counter(t.user_attrs[CLAIM]["task"]["number"] for t in trials if CLAIM in t.user_attrs and t.state in states)


def test_four_workers_of_which_two_are_killed_finish_sixty_trials_once_each(storage: str, tmp_path: Path) -> None:
    draw = generator(5, "kill", storage.partition(":")[0][:6])
    doomed = {name: float(draw.uniform(0.0, 0.5)) for name in ("2", "3")}
    said: list[str] = []
    arguments = (storage, tmp_path, (36, 16, 8), doomed)
    ran = run_workers(4, work, arguments, threads=1, say=said.append, replacements=0)
    assert ended(storage) == dict.fromkeys(range(60), 1)
    assert sorted(line.partition(";")[0] for line in said) == [f"worker {n} died (killed by SIGKILL)" for n in (2, 3)]
    begun = [line.split() for line in (tmp_path / "log.txt").read_text().splitlines()]
    # Two at most were begun twice: those that the dead were at.
    assert 60 <= len(begun) <= 62
    assert len(ran) == 2
    assert sum(ran) == sum(worker in ("1", "4") for _, worker in begun)
    with Study.existing(storage, "tiny") as study:
        trials = study.trials()
    assert [trial.number for trial in trials] == list(range(60))
    assert all(trial.score == score_of(trial.number) for trial in trials if trial.state == "finished")
    assert Counter(trial.state for trial in trials) == {"finished": 48, "pruned": 6, "failed": 6}


def test_the_number_of_trials_counts_the_whole_study(file: Path) -> None:
    storage = str(file)
    ran = run_workers(2, work_in_threads, (storage, (12, 5)), threads=1)
    assert sorted(number for numbers in ran for number in numbers) == list(range(17))
    assert ended(storage) == dict.fromkeys(range(17), 1)


def test_a_server_that_restarts_is_waited_for_and_no_result_is_lost(postgresql: Server, tmp_path: Path) -> None:
    storage, said, down = postgresql.database(), [], threading.Event()
    lock = threading.Lock()
    ran: list[int] = []

    def one(task: Task) -> Trial:
        with lock:
            ran.append(task.number)
        if task.number == 5 and not down.is_set():
            postgresql.stop()
            down.set()
            threading.Timer(1.0, postgresql.start).start()
        return run(task)

    def shift(name: str) -> None:
        with Study.open(storage, "tiny", identity={"data": "tiny"}, schedule={}, say=said.append) as study:
            study.work(Rounds(8, 4), one, worker=name, stop=lambda: False, interval=1, grace=8, poll=0.05)

    threads = [threading.Thread(target=shift, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended(storage) == dict.fromkeys(range(12), 1)
    assert sorted(ran) == list(range(12))  # the results of the time without a server were kept, none was made again
    away = [line for line in said if "does not answer" in line]
    back = [line for line in said if "answers again" in line]
    assert 1 <= len(away) <= 2
    assert len(away) == len(back)
    assert len(said) == len(away) + len(back)


def test_a_worker_that_wakes_late_leaves_its_result_out(postgresql: Server, tmp_path: Path) -> None:
    storage = postgresql.database()
    printed: list[str] = []
    crew = threading.Thread(
        target=run_workers,
        args=(1, sleep_through, (storage, tmp_path)),
        kwargs={"threads": 1, "line": lambda _, line: printed.append(line)},
    )
    crew.start()
    asleep = tmp_path / "asleep"
    while not (asleep.exists() and asleep.read_text()):
        assert crew.is_alive()
        time.sleep(0.02)
    os.kill(int(asleep.read_text()), signal.SIGSTOP)
    said: list[str] = []
    with Study.open(storage, "tiny", identity={"data": "tiny"}, schedule={}, say=said.append) as study:
        study.work(Rounds(2), run, worker="awake", stop=lambda: False, **FAST)
        taken = study.trials()
    (tmp_path / "awake").touch()
    os.kill(int(asleep.read_text()), signal.SIGCONT)
    crew.join(timeout=30)
    assert not crew.is_alive()
    assert [trial.worker for trial in taken] == ["awake", "awake"]
    assert len(said) == 1
    assert "trial 0 of worker 1 is taken up: it was not heard of for" in said[0]
    assert len(printed) == 1
    assert "trial 0 was taken up by another worker" in printed[0]
    assert ended(storage) == {0: 1, 1: 1}
    with Study.existing(storage, "tiny") as study:
        assert study.trials() == taken

"""Worker processes: what they are given, what they print, how they are stopped, and what is said of their deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.search import targets
from tests.search.rounds import heavy_modules
from wellfit.errors import UserError
from wellfit.search import workers
from wellfit.search.workers import run_workers


def silent(worker: str, line: str) -> None:
    """Takes what workers print."""


def wait_until(there: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


def test_each_worker_gets_the_arguments_a_name_and_its_threads() -> None:
    given = {"lr": [0.1, None], "name": "Vögel"}
    answers = run_workers(2, targets.answer, [given], threads=3)
    assert sorted(answers, key=lambda a: a[1]) == [(given, "1", "3", False), (given, "2", "3", False)]


def test_whole_lines_come_back_under_their_workers_name() -> None:
    lines: list[tuple[str, str]] = []
    run_workers(2, targets.talk, [6], line=lambda worker, text: lines.append((worker, text)))
    for worker in ("1", "2"):
        own = [text for name, text in lines if name == worker]
        assert [text for text in own if text.startswith("line")] == [f"line {i} of {worker}" for i in range(6)]
        assert [text for text in own if text.startswith("step")] == [f"step {i} of {worker}" for i in range(6)]
        assert len(own) == 12


def test_a_worker_that_is_ready_holds_no_heavy_package() -> None:
    assert run_workers(1, heavy_modules) == [[]]


def test_a_mistake_of_the_users_is_raised_here_once() -> None:
    said: list[str] = []
    with pytest.raises(UserError, match="the password is wrong; check it"):
        run_workers(2, targets.refuse, line=silent, say=said.append)
    assert said == ["the password is wrong; check it"]


def test_a_worker_that_cannot_go_on_leaves_the_others_at_work() -> None:
    said: list[str] = []
    assert run_workers(2, targets.refuse_unless_first, line=silent, say=said.append) == ["1"]
    assert said == ["the disk is full; make room"]


def test_a_worker_that_dies_is_named_and_replaced(tmp_path: Path) -> None:
    said: list[str] = []
    assert run_workers(1, targets.leave_once, [tmp_path], say=said.append) == ["2"]
    assert said == ["worker 1 died (exit code 7); another takes its place"]


def test_where_all_die_the_last_words_are_told() -> None:
    said: list[str] = []
    with pytest.raises(
        RuntimeError, match=r"worker 1 died \(exit code 1\): ZeroDivisionError: a defect; worker 2 died"
    ):
        run_workers(1, targets.break_down, line=silent, say=said.append, replacements=1)
    assert said == [
        "worker 1 died (exit code 1); another takes its place",
        "worker 2 died (exit code 1); none is left",
    ]


def test_stop_asks_all_workers_to_end_tidily(tmp_path: Path) -> None:
    answers = run_workers(2, targets.wait_for_stop, [tmp_path], stop=lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    assert sorted(answers) == ["1", "2"]
    assert [(tmp_path / f"{name}.stopped").read_text() for name in ("1", "2")] == ["True", "True"]


def test_the_first_interrupt_asks_and_the_second_ends_at_once(tmp_path: Path) -> None:
    said: list[str] = []

    def interrupt() -> None:
        wait_until(lambda: (tmp_path / "1.pid").exists() and bool((tmp_path / "1.pid").read_text()))
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: bool(said))
        time.sleep(0.2)
        assert alive(int((tmp_path / "1.pid").read_text()))
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, behind a script
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_workers(1, targets.never_stop, [tmp_path], say=said.append)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert said == ["stopping: each worker ends what it is at; press Ctrl-C again to end them at once"]
    assert not alive(int((tmp_path / "1.pid").read_text()))


class Deaf:
    """A process that takes so long to end, on the clock of the test; killed, it ends at once."""

    stdin = stdout = stderr = None

    def __init__(self, clock: list[float], ends_after: float) -> None:
        self.clock, self.ends, self.asked, self.killed = clock, ends_after, False, False

    def terminate(self) -> None:
        self.asked = True

    def kill(self) -> None:
        assert self.asked
        self.killed = True

    def wait(self, timeout: float | None = None) -> int:
        if self.killed or timeout is None or self.clock[0] + timeout >= self.ends:
            self.clock[0] = self.clock[0] if self.killed else max(self.clock[0], self.ends)
            return -9 if self.killed else 0
        self.clock[0] += timeout
        raise subprocess.TimeoutExpired("worker", timeout)


def test_after_the_second_ctrl_c_each_has_five_seconds_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not five each: three deaf workers do not keep the terminal for a quarter of a minute."""
    clock = [100.0]
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    crew = workers._Crew(targets.answer, [], None, silent, lambda _: None, 0)
    processes = [Deaf(clock, ends) for ends in (102.0, 104.9, 1e9, 1e9)]
    crew._working = [workers.Worker(str(i), process) for i, process in enumerate(processes)]
    crew.end_at_once()
    assert [process.killed for process in processes] == [False, False, True, True]
    assert all(process.asked for process in processes)
    assert clock[0] == 105.0
    assert crew._working == []


def test_workers_end_tidily_when_we_are_killed(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from tests.search import targets; from wellfit.search.workers import run_workers\n"
        f"run_workers(1, targets.wait_for_stop, [Path({str(tmp_path)!r})])"
    )
    # No `if __name__ == '__main__'`: a worker does not run its parent's script again.
    path = tmp_path / "script.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(path)], env=environment)
    try:
        wait_until(lambda: (tmp_path / "1.pid").exists())
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: (tmp_path / "1.stopped").exists())
    assert (tmp_path / "1.stopped").read_text() == "True"


@pytest.mark.parametrize("count", [0, -2])
def test_less_than_one_worker_is_refused(count: int) -> None:
    with pytest.raises(UserError, match=f"at least 1, got {count}"):
        run_workers(count, targets.answer, [1])


def test_a_target_that_cannot_be_imported_is_a_defect() -> None:
    def target(**_: Any) -> None: ...

    target.__module__ = "__main__"
    with pytest.raises(ValueError, match="stands in no module"):
        run_workers(1, target)


def test_where_all_are_killed_memory_is_named() -> None:
    with pytest.raises(UserError, match=r"memory runs out; take fewer of them \(worker 1 died \(killed by SIGKILL\)"):
        run_workers(1, targets.be_killed, say=lambda _: None, replacements=0)

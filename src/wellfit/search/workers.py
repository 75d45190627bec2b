"""Worker processes on this machine: started, listened to, asked to stop, named when they die, and replaced.

Each is a fresh interpreter, so that a script needs no `if __name__ == "__main__"`. It reads its orders from a pipe
on standard input: what to call, and later one byte (or the end of the pipe, where we were killed ourselves) that asks
it to stop. What it prints comes back line by line, under its name. A pipe holds no lock that a killed worker could take
with it.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from wellfit.errors import UserError

REPLACEMENTS = 3  # of workers that died: where more die, something kills them all
LAST_MOMENTS = 5.0  # seconds that a worker has to end after the second Ctrl-C, before it is killed
LOOK = 0.05  # seconds between two looks at the workers
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass
class Worker:
    """One process. ended: what it handed over, None where it died or is at work."""

    name: str
    process: subprocess.Popen[bytes]
    listeners: list[threading.Thread] = field(default_factory=list)
    message: bytearray = field(default_factory=bytearray)
    last_line: str = ""
    asked: bool = False

    def ask_to_stop(self) -> None:
        if not self.asked and self.process.stdin is not None:
            self.asked = True
            try:
                self.process.stdin.close()
            except OSError:  # it is gone
                return


def run_workers(
    count: int,
    target: Callable[..., Any],
    arguments: Sequence[Any] = (),
    *,
    threads: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    line: Callable[[str, str], None] | None = None,
    say: Callable[[str], None] | None = None,
    replacements: int = REPLACEMENTS,
) -> list[Any]:
    """Run `target(*arguments, worker=NAME, stop=STOP)` in `count` processes, and return what each handed over.

    target: a function of an importable module; arguments and what it returns can be pickled. worker: "1", "2", …;
        stop: a function that says whether the worker is asked to end tidily.
    threads: for the numerical libraries of each worker; None leaves it to them.
    stop: asked often; True asks all workers to end tidily, as the first Ctrl-C does. The second ends them at once, and
        KeyboardInterrupt is raised.
    line: takes (worker, line) of all that workers print; say: takes messages of our own. Default: standard error.
    replacements: how many workers that die are replaced by fresh ones, in all.

    Raises UserError where a worker ended with one and none ended well, or where all were killed; RuntimeError where all
    died otherwise.
    """
    if count < 1:
        raise UserError(f"the number of workers is at least 1, got {count}")
    if target.__module__ == "__main__":
        raise ValueError(f"a worker imports what it runs, and '{target.__qualname__}' stands in no module")
    crew = _Crew(target, list(arguments), threads, line or _line_to_stderr, say or _to_stderr, replacements)
    try:
        for _ in range(count):
            crew.start()
        crew.watch_over(stop)
    except BaseException:
        crew.end_at_once()
        raise
    return crew.answers()


class _Crew:
    """The workers of one call of `run_workers`."""

    def __init__(
        self,
        target: Callable[..., Any],
        arguments: list[Any],
        threads: int | None,
        line: Callable[[str, str], None],
        say: Callable[[str], None],
        replacements: int,
    ) -> None:
        self._orders = (f"{target.__module__}:{target.__qualname__}", arguments)
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # what we can import, they can
        if threads is not None:
            self._environment |= dict.fromkeys(THREADS, str(threads))
        self._line, self._say, self._replacements = line, say, replacements
        self._printing = threading.Lock()
        self._working: list[Worker] = []
        self._begun = 0
        self._values: list[Any] = []
        self._refusals: list[str] = []
        self._deaths: list[str] = []
        self._interrupts = self._passed_on = 0  # Ctrl-C pressed, and told to the workers or raised
        self._killed = 0  # of the dead: by a signal that is no fault of the program
        self._stopping = False

    def start(self) -> None:
        self._begun += 1
        name = str(self._begun)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from wellfit.search.worker_process import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
        )
        worker = Worker(name, process)
        self._working.append(worker)
        for listen in (self._hear_lines, self._hear_message):
            thread = threading.Thread(target=listen, args=(worker,), name=f"worker {name}", daemon=True)
            thread.start()
            worker.listeners.append(thread)
        orders = pickle.dumps({"name": name, "call": self._orders})
        assert process.stdin is not None
        try:
            process.stdin.write(len(orders).to_bytes(8, "little") + orders)
            process.stdin.flush()
        except OSError:  # it died at once, which is seen when it is looked at
            return

    def watch_over(self, stop: Callable[[], bool]) -> None:
        """Until all have ended. The first Ctrl-C, or `stop`, asks them to; the second is passed on."""
        with self._counting_interrupts():
            self._look_after(stop)

    @contextmanager
    def _counting_interrupts(self) -> Iterator[None]:
        """Counts Ctrl-C where nobody else does: an exception raised anywhere may be swallowed, as within `__del__`."""
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if not usual or threading.current_thread() is not threading.main_thread():
            yield
            return

        def count(number: int, frame: Any) -> None:
            self._interrupts += 1

        signal.signal(signal.SIGINT, count)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _look_after(self, stop: Callable[[], bool]) -> None:
        while self._working:
            try:
                if self._interrupts > self._passed_on:
                    self._passed_on += 1
                    raise KeyboardInterrupt
                if not self._stopping and stop():
                    self._ask_to_stop()
                for worker in [one for one in self._working if one.process.poll() is not None]:
                    self._see_off(worker)
                time.sleep(LOOK)
            except KeyboardInterrupt:
                if self._stopping:
                    raise
                self._say("stopping: each worker ends what it is at; press Ctrl-C again to end them at once")
                self._ask_to_stop()

    def end_at_once(self) -> None:
        for worker in self._working:
            worker.process.terminate()
        until = time.monotonic() + LAST_MOMENTS
        for worker in self._working:
            try:
                worker.process.wait(timeout=max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            self._close(worker)
        self._working = []

    def answers(self) -> list[Any]:
        if self._values or self._stopping:
            return self._values
        if self._refusals:
            raise UserError(self._refusals[0])
        deaths = "; ".join(self._deaths)
        if self._killed == len(self._deaths):
            raise UserError(f"all workers were killed, as happens where memory runs out; take fewer of them ({deaths})")
        raise RuntimeError(f"no worker came to its end: {deaths}")

    def _ask_to_stop(self) -> None:
        self._stopping = True
        for worker in self._working:
            worker.ask_to_stop()

    def _see_off(self, worker: Worker) -> None:
        self._close(worker)
        self._working.remove(worker)
        code = worker.process.returncode
        if code == 0 and worker.message:
            kind, value = pickle.loads(bytes(worker.message))
            if kind == "done":
                self._values.append(value)
                return
            if value not in self._refusals:
                self._say(value)
            self._refusals.append(value)
            return
        how = f"worker {worker.name} died ({_how_it_died(code)})"
        self._killed += code == -getattr(signal, "SIGKILL", 0) != 0
        self._deaths.append(f"{how}: {worker.last_line}" if worker.last_line else how)
        if self._stopping:
            self._say(how)
        elif self._replacements > 0:
            self._replacements -= 1
            self._say(f"{how}; another takes its place")
            self.start()
        else:
            self._say(f"{how}; " + (f"{len(self._working)} go on without it" if self._working else "none is left"))

    def _close(self, worker: Worker) -> None:
        worker.ask_to_stop()
        for thread in worker.listeners:
            thread.join(timeout=1.0)  # a grandchild may keep the pipe open
        for pipe in (worker.process.stdout, worker.process.stderr):
            if pipe is not None and not any(thread.is_alive() for thread in worker.listeners):
                pipe.close()

    def _hear_lines(self, worker: Worker) -> None:
        assert worker.process.stderr is not None
        for raw in worker.process.stderr:
            for text in raw.decode("utf-8", "replace").splitlines():
                if text.strip():
                    worker.last_line = text.strip()
                    with self._printing:
                        self._line(worker.name, text.rstrip())

    def _hear_message(self, worker: Worker) -> None:
        pipe = worker.process.stdout
        assert pipe is not None
        for part in iter(lambda: os.read(pipe.fileno(), 1 << 16), b""):
            worker.message.extend(part)


def _how_it_died(code: int) -> str:
    """Exit code or signal, in words.

    >>> _how_it_died(-9), _how_it_died(3)
    ('killed by SIGKILL', 'exit code 3')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _line_to_stderr(worker: str, text: str) -> None:
    print(f"[worker {worker}] {text}", file=sys.stderr, flush=True)


def _to_stderr(message: str) -> None:
    print(f"wellfit: {message}", file=sys.stderr, flush=True)

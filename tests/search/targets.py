"""What the tests let a worker process do. Worker processes import this file: it is light, and starts at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wellfit.errors import UserError


def answer(value: Any, *, worker: str, stop: Callable[[], bool]) -> Any:
    """What a worker was given, and what it sees of the world."""
    return value, worker, os.environ.get("OMP_NUM_THREADS"), stop()


def talk(lines: int, *, worker: str, stop: Callable[[], bool]) -> None:
    """Prints slowly, in pieces, on both streams."""
    for line in range(lines):
        print(f"line {line} ", end="")
        time.sleep(0.005)
        print(f"of {worker}")
        print(f"\rstep {line} of {worker}", file=sys.stderr)


def refuse(*, worker: str, stop: Callable[[], bool]) -> None:
    raise UserError("the password is wrong; check it")


def refuse_unless_first(*, worker: str, stop: Callable[[], bool]) -> str:
    if worker != "1":
        raise UserError("the disk is full; make room")
    return worker


def break_down(*, worker: str, stop: Callable[[], bool]) -> None:
    raise ZeroDivisionError("a defect")


def leave_once(folder: Path, *, worker: str, stop: Callable[[], bool]) -> str:
    """The first worker leaves with code 7."""
    if worker == "1":
        sys.stdout.flush()
        os._exit(7)
    return worker


def wait_for_stop(folder: Path, *, worker: str, stop: Callable[[], bool]) -> str:
    """Works until it is asked to stop, and says in a file that it was."""
    (folder / f"{worker}.pid").write_text(str(os.getpid()))
    until = time.monotonic() + 30
    while not stop() and time.monotonic() < until:
        time.sleep(0.01)
    (folder / f"{worker}.stopped").write_text(str(stop()))
    return worker


def never_stop(folder: Path, *, worker: str, stop: Callable[[], bool]) -> None:
    """Deaf to being asked."""
    (folder / f"{worker}.pid").write_text(str(os.getpid()))
    time.sleep(180)


def be_killed(*, worker: str, stop: Callable[[], bool]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)

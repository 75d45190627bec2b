"""The other end of `workers.py`: what runs inside a worker's process."""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
import threading
from functools import reduce
from importlib import import_module
from typing import Any

from wellfit.errors import WellfitError


def main() -> None:
    """Read the orders, call what they name, hand over what it returned; an error of the user's is handed over too.

    Any other exception ends the process with its traceback, which our parent shows.
    """
    # The terminal sends Ctrl-C to all of its processes; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What is printed goes to standard error, so that standard output carries the one message.
    answer = os.dup(1)
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    orders = pickle.loads(_read(int.from_bytes(_read(8), "little")))
    stop = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(stop,), daemon=True).start()
    (target, arguments), name = orders["call"], orders["name"]
    try:
        message: tuple[str, Any] = ("done", _load(target)(*arguments, worker=name, stop=stop.is_set))
    except WellfitError as error:
        message = ("refused", str(error))
    with os.fdopen(answer, "wb") as pipe:
        pipe.write(pickle.dumps(message))


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return reduce(getattr, name.split("."), import_module(module))


def _read(count: int) -> bytes:
    # The descriptor itself: a thread that waits on sys.stdin would hold its lock when the interpreter ends.
    read = b""
    while len(read) < count:
        part = os.read(0, count - len(read))
        if not part:
            raise SystemExit("the process that started this worker is gone")
        read += part
    return read


def _wait_for_the_end(stop: threading.Event) -> None:
    os.read(0, 1)  # returns nothing when the pipe is closed, also by the parent's death
    stop.set()

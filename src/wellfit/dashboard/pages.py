"""Keeps the histories of the runs whose pages are open, and reads on in them: a page costs what was added, no more."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wellfit.dashboard.details import page_of, trials_of
from wellfit.dashboard.tail import Tail
from wellfit.record import RunFolder
from wellfit.report.history import Reading

MOST_LINES = 150_000  # kept over all pages; the latest page is kept in any case
_EVERYTHING = 1 << 40


@dataclass
class _Open:
    folder: RunFolder
    reading: Reading
    tails: dict[Path, Tail] = field(default_factory=dict)
    lines: int = 0
    stamp: tuple[Any, ...] = ()
    answers: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Pages:
    """`get` from any thread: many pages of one run share what was read and drawn up."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, folder: RunFolder, what: str) -> bytes:
        """The JSON of a run's "page" or "trials", as its files are now. OSError where the record cannot be read."""
        with self._lock:
            opened = self._open.pop(folder.path, None) or _Open(folder, Reading(folder))
            self._open[folder.path] = opened
        with opened.lock:
            self._read_on(opened)
            if what not in opened.answers:
                history = opened.reading.history()
                made = page_of(history) if what == "page" else trials_of(history)
                opened.answers[what] = json.dumps(_plain(made), ensure_ascii=False).encode()
            answer = opened.answers[what]
        self._forget()
        return answer

    def _read_on(self, opened: _Open) -> None:
        folder = opened.folder
        tails = opened.tails
        main = tails.setdefault(folder.record, Tail(folder.record, _EVERYTHING))
        lines, anew = main.read()
        if anew and opened.lines:  # another file under the same name
            opened.reading, opened.lines = Reading(folder), 0
            tails = opened.tails = {folder.record: main}
        new = lines
        workers: list[bytes] = []
        for file in folder.worker_records():
            tail = tails.setdefault(file, Tail(file, _EVERYTHING))
            with contextlib.suppress(OSError):
                workers += [raw for raw in tail.read()[0] if raw.startswith(b'{"kind": "trial"')]
        for raw in (*workers, *new):
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(raw)
                if isinstance(line, dict) and "kind" in line:
                    opened.reading.take(line)
                    opened.lines += 1
        stamp = tuple(_stamp(path) for path in (folder.config, folder.plan, folder.model_card, folder.report))
        if workers or new or anew or stamp != opened.stamp:
            opened.stamp = stamp
            opened.answers.clear()

    def _forget(self) -> None:
        with self._lock:
            while len(self._open) > 1 and sum(o.lines for o in self._open.values()) > MOST_LINES:
                self._open.popitem(last=False)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def _plain(value: Any) -> Any:
    """JSON has no NaN: it becomes null; and text that is no Unicode cannot be sent."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value

"""Hands a record's lines to the tools of others. Nothing that happens there slows a training down or ends it.

Each tool has a thread and a queue of its own: a server that does not answer keeps that thread waiting, not the run.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from wellfit.errors import UserError, unknown_name
from wellfit.record import RunFolder
from wellfit.trackers.figures import (
    Tracker,
    flat,
    of_epoch,
    of_evaluation,
    of_step,
    of_trial,
    settings_of,
)

# Each is a module beside this one with a class `Tracker`; the library that it needs; what people call that.
TRACKERS = {
    "tensorboard": ("tensorboard", "TensorBoard"),
    "wandb": ("wandb", "Weights & Biases"),
    "mlflow": ("mlflow", "MLflow"),
}
LONGEST_QUEUE = 20_000  # lines
PATIENCE = 60.0  # seconds that the end of a run waits for what is still in the queue
LOGGER = logging.getLogger("wellfit.trackers")
_WANTED = ("run", "step", "epoch", "evaluation", "trial", "finding", "best", "end")
Say = Callable[[str], None]


def check_trackers(log: str | Iterable[str] | None) -> tuple[str, ...]:
    """The names, each once. UserError for an unknown one, and where its library is not installed."""
    names = tuple(dict.fromkeys([log] if isinstance(log, str) else log or ()))
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("tool to log into", name, TRACKERS)
        library, called = TRACKERS[name]
        if not _installed(library):
            raise UserError(f"--log {name} needs {called}, which is not installed; pip install 'wellfit[{name}]'")
    return names


def feeds(names: Iterable[str], folder: RunFolder, say: Say | None = None) -> Feeds | None:
    """What a record's lines are handed to; None where no tool was asked for. say: takes a sentence for who watches."""
    made = [Feed(name, folder, say or LOGGER.warning) for name in names if name in TRACKERS]
    return Feeds(made) if made else None


class Feeds:
    """Takes the lines of a record, for all tools that were asked for."""

    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = feeds

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        for feed in self._feeds:
            feed(kind, fields)
        if kind == "end":
            self.close()

    def close(self) -> None:
        """Wait for what is still on its way, PATIENCE seconds at most."""
        until = time.monotonic() + PATIENCE
        for feed in self._feeds:
            feed.close(until)


class Feed:
    """One tool's queue and thread. What goes wrong is said once, in the thread of whoever hands over the next line."""

    def __init__(self, name: str, folder: RunFolder, say: Say) -> None:
        self.name, self._folder, self._say = name, folder, say
        self._lines: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(LONGEST_QUEUE)
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._broken = self._full = False
        self._thread: threading.Thread | None = None

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        self._tell()
        if self._broken or kind not in _WANTED:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"wellfit-log-{self.name}", daemon=True)
            self._thread.start()
        try:
            self._lines.put_nowait((kind, fields))
        except queue.Full:
            if not self._full:
                self._full = True
                self._say(f"{_called(self.name)} takes lines more slowly than they come: some are left out there")

    def close(self, until: float) -> None:
        if self._thread is None:
            return
        with suppress(queue.Full):
            self._lines.put(None, timeout=max(0.0, until - time.monotonic()))
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._say(f"{_called(self.name)} has not taken everything in {PATIENCE:.0f} s and is left to itself")
        self._tell()
        self._thread = None

    def _tell(self) -> None:
        while True:
            try:
                self._say(self._news.get_nowait())
            except queue.Empty:
                return

    def _work(self) -> None:
        try:
            translate = _Translator(_make(self.name), self._folder, self._news.put)
            while (line := self._lines.get()) is not None:
                translate(*line)
        except Exception as error:  # whatever a foreign library, its server or its disk came upon
            self._broken = True
            said = " ".join(str(error).split())[:300] or type(error).__name__
            self._news.put(f"logging to {_called(self.name)} broke off and the run goes on without it: {said}")
        except SystemExit:  # a library's way to give up
            self._broken = True
            self._news.put(f"logging to {_called(self.name)} broke off and the run goes on without it")


class _Translator:
    """From the record's lines to what an adapter can do."""

    def __init__(self, tracker: Tracker, folder: RunFolder, say: Say) -> None:
        self._tracker, self._folder, self._say = tracker, folder, say
        self._step = 0
        self._results: dict[str, float] = {}

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        getattr(self, f"_on_{kind}")(fields)

    def _on_run(self, fields: dict[str, Any]) -> None:
        request, versions = fields.get("request") or {}, fields.get("versions") or {}
        about = {"command": fields.get("command"), "data": request.get("data"), "wellfit": versions.get("wellfit")}
        known = {name: str(value) for name, value in about.items() if value}
        resumed = bool(fields.get("spent_before"))
        self._say(self._tracker.begin(self._folder, settings_of(self._folder), known, resumed))

    def _on_step(self, fields: dict[str, Any]) -> None:
        self._step = int(fields["step"])
        self._tracker.scalars(self._step, of_step(fields))

    def _on_epoch(self, fields: dict[str, Any]) -> None:
        self._step = max(self._step, int(fields["step"]))
        self._tracker.scalars(int(fields["step"]), of_epoch(fields))

    def _on_evaluation(self, fields: dict[str, Any]) -> None:
        values = of_evaluation(fields)
        self._results |= values
        self._tracker.scalars(self._step, values)

    def _on_trial(self, fields: dict[str, Any]) -> None:
        settings, curve = flat(fields.get("settings") or {}), fields.get("curve") or []
        self._tracker.trial(int(fields["trial"]), settings, of_trial(fields), curve)

    def _on_best(self, fields: dict[str, Any]) -> None:
        self._results |= {f"best/{name}": value for name, value in of_trial(fields).items()}

    def _on_finding(self, fields: dict[str, Any]) -> None:
        self._tracker.text(f"finding/{fields['id']}", f"{fields['severity']}: {fields['message']} {fields['action']}")

    def _on_end(self, fields: dict[str, Any]) -> None:
        self._tracker.end(str(fields["status"]), settings_of(self._folder), self._results)


def _make(name: str) -> Tracker:
    made: Tracker = importlib.import_module(f"wellfit.trackers.{name}").Tracker()
    return made


def _called(name: str) -> str:
    return TRACKERS[name][1]


def _installed(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except (ImportError, ValueError):
        return False

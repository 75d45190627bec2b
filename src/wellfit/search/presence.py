"""Proof of life for workers that share a folder: a file that its worker keeps locked until it dies.

It tells a dead worker at once, where the heartbeat needs its grace; a paused worker keeps its lock, and is given up by
the heartbeat. Folders on which locks do not work, and workers on other machines, are left to the heartbeat as well.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

UNUSABLE = (OSError, NotImplementedError)  # of locks on a folder that knows none


class Presence:
    """This worker's file in the folder, and a look at those of others. folder: None where there is none to share."""

    def __init__(self, folder: Path | None, session: str) -> None:
        self._folder, self._session = folder, session
        self._lock: FileLock | None = None

    def __enter__(self) -> Presence:
        for _ in range(3 if self._folder is not None else 0):  # whoever leaves last may remove the folder meanwhile
            with suppress(*UNUSABLE, Timeout):
                self._file(self._session).parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self._file(self._session))
                lock.acquire(timeout=0)
                self._lock = lock
                break
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()
            self._remove(self._session)

    def is_dead(self, session: str) -> bool:
        """Whether that session's file is there and locked by nobody. False also where it cannot be told."""
        if self._folder is None or not self._file(session).is_file():
            return False
        lock = FileLock(self._file(session))
        try:
            lock.acquire(timeout=0)
        except (*UNUSABLE, Timeout):
            return False
        lock.release()
        self._remove(session)
        return True

    def _file(self, session: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{session}.lock"

    def _remove(self, session: str) -> None:
        with suppress(OSError):
            self._file(session).unlink(missing_ok=True)
            self._file(session).parent.rmdir()  # the last one leaves no folder behind

"""A storage that is away is waited for, with one message; one that will never answer is told in a sentence."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

import optuna
import sqlalchemy

from wellfit.errors import UserError, WellfitError
from wellfit.search.place import Place, cause_of

Answer = TypeVar("Answer")

FAILURES = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
# What SQLAlchemy says of a connection that broke in the middle of something, or is not to be had.
BROKEN = (sqlalchemy.exc.PendingRollbackError, sqlalchemy.exc.DisconnectionError, sqlalchemy.exc.TimeoutError)
FIRST_PAUSE, GROWTH, LONGEST_PAUSE = 0.1, 1.6, 5.0  # seconds between two attempts
OPENING = 15.0  # seconds: whoever begins waits less, since a mistyped address looks like a server that is away
TRANSIENT = re.compile(r"starting up|shutting down|recovery|too many|terminating|not yet accepting|reserved", re.I)
FATAL = re.compile(r"FATAL:\s*(.+)")


class Stopped(WellfitError):
    """The worker was asked to stop while it waited for the storage."""

    exit_code = 130


class Patience:
    """Asks a storage again until it answers. limit: seconds after which it is given up."""

    def __init__(self, place: Place, limit: float, say: Callable[[str], None]) -> None:
        self.place, self.limit, self.say = place, limit, say

    def until(
        self, action: Callable[[], Answer], *, stop: Callable[[], bool] | None = None, opening: bool = False
    ) -> Answer:
        """What `action` returns. It may run more than once, also after it did its work and the answer was lost.

        stop: asked between two attempts; where True, Stopped is raised.
        Raises UserError where waiting does not help, or was as long as the limit.
        """
        since, pause = 0.0, FIRST_PAUSE
        while True:
            try:
                answer = action()
            except FAILURES as error:
                reason = self.worth_waiting(error)
                limit = min(self.limit, OPENING) if opening and not TRANSIENT.search(reason) else self.limit
                now = time.monotonic()
                if not since:
                    since = now
                    self.say(f"{self.place.shown} does not answer ({reason}); waiting for it, {limit:.0f} s at most")
                if now - since >= limit:
                    raise UserError(
                        f"{self.place.shown} did not answer for {limit:.0f} s ({reason}); "
                        "see that it runs and can be reached, then give the command again: no finished trial is lost"
                    ) from error
                if stop is not None and stop():
                    raise Stopped("stopped while waiting for the storage") from error
                time.sleep(pause)
                pause = min(pause * GROWTH, LONGEST_PAUSE)
            else:
                if since:
                    self.say(f"{self.place.shown} answers again, after {time.monotonic() - since:.0f} s")
                return answer

    def worth_waiting(self, error: Exception) -> str:
        """The short reason why the storage does not answer; raises where no waiting helps."""
        cause = cause_of(error)
        if isinstance(cause, sqlite3.Error):
            return self._sqlite(cause, error)
        if isinstance(cause, BROKEN):
            return "the connection broke"
        text = str(cause).strip()
        code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""
        fatal = FATAL.search(text)
        first = fatal.group(1).strip() if fatal else text.partition("\n")[0]
        if code == "53100":
            raise self._refusal("its disk is full", "make room there") from error
        if code == "42501":
            raise self._refusal(first, "grant that user the right to create tables and to write to them") from error
        # Before a connection stands, the driver gives no code: what the server itself says is FATAL.
        refused = fatal is not None and not TRANSIENT.search(text)
        if code[:2] in ("28", "3D") or refused or "no password supplied" in text:
            raise self._refusal(first, "check user, password and name of the database") from error
        # Names of PEP 249, since neither driver must be installed: connections that break or are closed, deadlocks.
        if not {"OperationalError", "InterfaceError"} & {kind.__name__ for kind in type(cause).__mro__}:
            raise error  # a defect, and no state of the server
        return first

    def _sqlite(self, cause: sqlite3.Error, error: Exception) -> str:
        name, text = getattr(cause, "sqlite_errorname", ""), str(cause)
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return "another process keeps it locked"
        if name.startswith("SQLITE_FULL"):
            raise self._refusal("the disk is full", "make room there") from error
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            raise self._refusal(text, "it is no study, or was damaged; take another file or another --out") from error
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR", "SQLITE_AUTH")):
            raise self._refusal(text, "check the path, its permissions and the space left") from error
        raise error

    def _refusal(self, reason: str, advice: str) -> UserError:
        return UserError(f"the study cannot be kept in {self.place.shown} ({reason.rstrip('.')}); {advice}")

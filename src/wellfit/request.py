"""What people ask of a run from outside: `request.json` in its folder, which a run that is under way looks at.

The dashboard writes it, the run only reads it; so the two need no connection, and may be on different machines.

    {"schema": 1, "stop": "8f3c…" or null, "note": "text", "changed": seconds since 1970}

`stop` is a new word for each time that somebody asks: a run that is resumed knows the old one and goes on.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wellfit.errors import UserError
from wellfit.record import RunFolder, write_atomically

FILE = "request.json"
LONGEST_NOTE = 4000
POLL_SECONDS = 1.0
_LARGEST = 100_000  # bytes; what is larger was not written by us


@dataclass(frozen=True)
class Request:
    """stop: the word of the last wish to stop, "" where there was none. note: what somebody wrote about the run."""

    stop: str = ""
    note: str = ""
    changed: float = 0.0
    schema: int = 1


def request_file(folder: RunFolder) -> Path:
    return folder.path / FILE


def read_request(folder: RunFolder) -> Request:
    """What is asked at present; nothing where there is no file, or none that can be read."""
    try:
        with request_file(folder).open("rb") as file:
            value = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return Request()
    if not isinstance(value, dict):
        return Request()
    stop, note, changed = value.get("stop"), value.get("note"), value.get("changed")
    return Request(
        stop=stop if isinstance(stop, str) else "",
        note=note[:LONGEST_NOTE] if isinstance(note, str) else "",
        changed=float(changed) if isinstance(changed, int | float) else 0.0,
    )


def ask_to_stop(folder: RunFolder) -> Request:
    """Ask the run to finish its epoch (or its trial), to evaluate and to save."""
    return _write(folder, replace(read_request(folder), stop=secrets.token_hex(8)))


def leave_note(folder: RunFolder, note: str) -> Request:
    """Write a note beside the run, in place of the one that was there. UserError above 4,000 characters."""
    if len(note) > LONGEST_NOTE:
        raise UserError(f"a note has at most {LONGEST_NOTE:,} characters, got {len(note):,}; shorten it")
    return _write(folder, replace(read_request(folder), note=note))


def _write(folder: RunFolder, request: Request) -> Request:
    request = replace(request, changed=time.time())
    try:
        write_atomically(request_file(folder), json.dumps(asdict(request), ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(
            f"the request could not be written into '{folder.path}' ({error.strerror}); check its permissions and "
            "the space left"
        ) from error
    return request


class Requests:
    """Looks at the file for a run that is under way, once a second at most, however often it is asked."""

    def __init__(
        self,
        folder: RunFolder,
        on_stop: Callable[[], None] = lambda: None,
        on_note: Callable[[str], None] = lambda note: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._on_stop, self._on_note, self._clock = folder, on_stop, on_note, clock
        self._before = read_request(folder)  # asked of an earlier session
        self._note = self._before.note
        self._looked = clock()
        self._stop = False

    def stop(self) -> bool:
        """Whether somebody has asked to stop since this object was made; tells of new notes by the way."""
        now = self._clock()
        if now - self._looked < POLL_SECONDS:
            return self._stop
        self._looked = now
        request = read_request(self._folder)
        if request.note != self._note:
            self._note = request.note
            self._on_note(request.note)
        if not self._stop and request.stop and request.stop != self._before.stop:
            self._stop = True
            self._on_stop()
        return self._stop

"""Watches a folder of runs from one thread, for all pages together; each run has a version that its changes raise."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wellfit.dashboard.folders import Found, escapes, find_runs, leads_out
from wellfit.dashboard.summary import Summary
from wellfit.dashboard.tail import Tail
from wellfit.record import SCHEMA, RunFolder
from wellfit.report.words import plain
from wellfit.request import read_request, request_file

PAUSE = 1.0  # seconds between two looks while somebody watches
IDLE = 30.0  # seconds without a page after which nothing is looked at
_READ_AT_ONCE = 0.5  # seconds of reading after which pages are shown what there is


@dataclass
class Watched:
    """One run, as far as it is read. problem: why it can not be shown as others are, for people; "" where it can."""

    key: int
    name: str
    folder: RunFolder
    tail: Tail
    workers: dict[Path, Tail] = field(default_factory=dict)
    summary: Summary = field(default_factory=Summary)
    version: int = 0
    state: str = "starting"
    problem: str = ""
    changed: float = 0.0  # when its record last changed, by this machine's clock
    texts: tuple[int, ...] = ()  # times and sizes of config.toml and plan.toml as they were read
    request: tuple[int, int] = (0, 0)
    note: str = ""
    asked_to_stop: bool = False
    read: bool = False
    barred: bool = False  # it holds a link out of the folder
    torn: bool = False  # its record ends within a line, and nobody is at it any more
    line: bytes = b""  # the JSON that pages are given

    def as_dict(self) -> dict[str, Any]:
        shown = self.summary.as_dict() | {
            "key": self.key,
            "name": plain(self.name, 200),
            "version": self.version,
            "state": self.state,
            "problem": self.problem,
            "started": self.summary.started or self.changed,
            "changed": self.changed,
            "note": self.note,
            "stopping": self.asked_to_stop and self.state in ("running", "silent", "starting"),
            "read": self.read,
            "torn": self.torn,
        }
        return shown


class Watch:
    """All runs below `root`. Its methods can be called from any thread; `close` ends its own."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.version = 1
        self.behind = 0  # runs that are not read to their end yet
        self.outside: list[str] = []
        self.missing = False
        self._runs: dict[str, Watched] = {}
        self._by_key: dict[int, Watched] = {}
        self._wanted: set[int] = set()  # keys of runs that are in sight and not read yet
        self._gone: list[tuple[int, int]] = []  # (version, key)
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._first = threading.Event()
        self._closed = False
        self._asked = time.monotonic()
        self._passed = -1e9  # when all runs were last looked at
        self._listed, self._listing_took = -1e9, 0.0
        self._thread = threading.Thread(target=self._follow, name="wellfit-dashboard", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=10)

    def get(self, key: int) -> Watched | None:
        with self._lock:
            return self._by_key.get(key)

    def changes(self, since: int) -> bytes:
        """What changed after version `since`, as JSON; the whole of it for 0."""
        idle = time.monotonic() - self._asked > IDLE
        self._asked = time.monotonic()
        if idle:
            self._first.clear()
            self._wake.set()
        self._first.wait(1.0)
        with self._lock:
            runs = [run.line for run in self._runs.values() if run.version > since]
            head = {
                "version": self.version,
                "behind": self.behind,
                "total": len(self._runs),
                "outside": [plain(name, 200) for name in self.outside[:20]],
                "missing": self.missing,
                "gone": [key for version, key in self._gone if version > since] if since else [],
            }
        return json.dumps(head)[:-1].encode() + b', "runs": [' + b", ".join(runs) + b"]}"

    def curves(self, keys: list[int]) -> dict[str, Any]:
        """The small curves of some runs, with the version that they belong to."""
        with self._lock:
            found = {key: self._by_key[key] for key in keys if key in self._by_key}
            self._wanted = {key for key, run in found.items() if not run.read}
            return {str(key): {"version": run.version, **run.summary.curves()} for key, run in found.items()}

    def touch(self, key: int) -> None:
        """Read a run's request anew at once: somebody has just written it."""
        run = self.get(key)
        if run is not None:
            with self._lock:
                self._look_at_request(run)
                self._settle(run)

    def _follow(self) -> None:
        while not self._closed:
            self._wake.clear()
            begun = time.monotonic()
            with contextlib.suppress(OSError):  # a folder that goes while it is read: the next look says so
                self.look()
            self._first.set()
            took = time.monotonic() - begun
            if not self.behind:
                self._wake.wait(max(PAUSE, 3 * took))
            while not self._closed and time.monotonic() - self._asked > IDLE:
                self._wake.wait(5.0)
                self._wake.clear()

    def look(self) -> None:
        """One look at everything: folders that came or went, lines that were added."""
        now = time.monotonic()
        if now - self._listed > max(2.0, 10 * self._listing_took):
            found = find_runs(self.root)
            self._listed, self._listing_took = time.monotonic(), time.monotonic() - now
            with self._lock:
                self._take(found)
        begun, behind = time.monotonic(), 0
        # First what is in sight on a page, then the latest.
        wanted, self._wanted = self._wanted, set()
        runs = sorted(self._runs.values(), key=lambda run: (run.read, run.key not in wanted, -run.changed))
        if self.behind and begun - self._passed < PAUSE:
            runs = [run for run in runs if not run.read]  # those that were read are looked at once a second
        else:
            self._passed = begun
        for run in runs:
            if not run.read and (self._wanted or time.monotonic() - begun > _READ_AT_ONCE):
                behind += 1  # somebody has scrolled, and that comes first; or pages have waited long enough
                continue
            try:
                behind += self._read(run)
            except Exception as error:  # whatever one record holds, the others are shown
                run.read = True
                self._change(run, f"Its record cannot be understood ({type(error).__name__}): it is damaged.")
        if behind != self.behind:
            with self._lock:
                self.behind = behind

    def _take(self, found: Found) -> None:
        self.missing = not self.root.is_dir()
        if found.outside != self.outside:
            self.outside = found.outside
            self.version += 1
        for name in [name for name in self._runs if name not in found.runs]:
            run = self._runs.pop(name)
            del self._by_key[run.key]
            self.version += 1
            self._gone.append((self.version, run.key))
        del self._gone[:-10_000]
        for name, path in found.runs.items():
            if name not in self._runs:
                folder = RunFolder(path)
                self.version += 1
                run = Watched(self.version, name, folder, Tail(folder.record), version=self.version)
                with contextlib.suppress(OSError):
                    run.changed = path.stat().st_mtime
                    run.changed = folder.record.stat().st_mtime
                self._runs[name] = self._by_key[run.key] = run
                run.line = json.dumps(run.as_dict()).encode()

    def _read(self, run: Watched) -> bool:
        """Read what was added to a run; whether there is more."""
        if run.barred:
            return False
        record = run.folder.record
        # The rest is looked at again where it is read; the record may be exchanged for a link at any time.
        out = leads_out(run.folder, self.root) if not run.read else record.name if escapes(record, self.root) else ""
        if out:
            run.read = run.barred = True
            run.summary = Summary()
            self._change(run, f"A link in it leads out of the runs folder ({plain(out, 60)}), so it is not read.")
            return False
        try:
            lines, anew = run.tail.read()
        except FileNotFoundError:
            run.read = True
            self._change(run, "It has no record.jsonl yet: it is about to begin, or only a part of a run was copied.")
            return False
        except OSError as error:
            run.read = True
            self._change(run, f"Its record cannot be read ({error.strerror or 'no reason given'}).")
            return False
        with self._lock:
            before = run.state, run.note, run.asked_to_stop
            if anew:
                run.summary = Summary()
                run.workers = {}
            if lines or anew:
                run.summary.take(lines)
            left, added = self._read_workers(run)
            more = run.tail.behind | left
            if lines or not run.read:
                self._look_at_texts(run)
            self._look_at_request(run)
            if lines:
                # Another machine's clock may differ: what is seen to come counts, at first its own time.
                run.changed = time.time() if run.read else run.tail.changed_ns / 1e9
            first = not run.read and not more
            run.read = run.read or not more
            run.problem = _problem(run)
            self._settle(run, changed=bool(lines or added or anew or first), before=before)
        return more

    def _read_workers(self, run: Watched) -> tuple[bool, bool]:
        """Whether there is more to read of the records of a search's workers, and whether lines were added."""
        more = added = False
        if not run.summary.search:
            return more, added
        for file in run.folder.worker_records():
            if escapes(file, self.root):
                continue
            tail = run.workers.setdefault(file, Tail(file))
            with contextlib.suppress(OSError):
                lines, _ = tail.read()
                if lines:
                    run.summary.take([line for line in lines if line.startswith(b'{"kind": "trial"')])
                    run.changed = time.time()
                    added = True
                more |= tail.behind
        return more, added

    def _look_at_texts(self, run: Watched) -> None:
        seen: list[int] = []
        for path in (run.folder.config, run.folder.plan):
            if escapes(path, self.root):
                return
            try:
                stat = path.stat()
                seen += [stat.st_mtime_ns, stat.st_size]
            except OSError:
                seen += [0, 0]
        if tuple(seen) != run.texts:
            run.texts = tuple(seen)
            run.summary.configured(_text(run.folder.config), _text(run.folder.plan))

    def _look_at_request(self, run: Watched) -> None:
        try:
            if escapes(request_file(run.folder), self.root):
                return
            stat = request_file(run.folder).stat()
            seen = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            seen = (0, 0)
        if seen != run.request:
            run.request = seen
            request = read_request(run.folder)
            run.note = "\n".join(plain(line, 4000) for line in request.note.splitlines())
            # A wish from before the run's present session is old: a resumed run goes on.
            run.asked_to_stop = bool(request.stop) and request.changed >= (run.summary.session or 0.0)

    def _settle(self, run: Watched, changed: bool = False, before: tuple[Any, ...] | None = None) -> None:
        """Raise the version where anything that is shown has changed."""
        run.state = "unreadable" if run.problem else run.summary.status(time.time() - run.changed)
        run.torn = run.state not in ("running", "starting") and run.tail.torn
        if changed or before is None or before != (run.state, run.note, run.asked_to_stop):
            self.version += 1
            run.version = self.version
            run.line = json.dumps(run.as_dict(), ensure_ascii=False).encode()

    def _change(self, run: Watched, problem: str) -> None:
        if problem != run.problem:
            with self._lock:
                run.problem = problem
                self._settle(run)


def _problem(run: Watched) -> str:
    schema = run.summary.schema
    if isinstance(schema, bool) or not isinstance(schema, int):
        return "Its record says no version that can be understood: it was changed, or is damaged."
    if schema > SCHEMA:
        return (
            f"It was written by a newer wellfit (record version {schema}, this one reads {SCHEMA}); upgrade to see it."
        )
    if run.read and not run.summary.known:
        if run.tail.offset > 0:
            return "Its record holds no line that can be understood: it is damaged, or no record of wellfit."
        if run.summary.status(time.time() - run.changed) == "silent":
            return "Its record holds no whole line: it was killed as it began, or only a part of it was copied."
    return ""


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(200_000).decode("utf-8", "replace")
    except OSError:
        return ""

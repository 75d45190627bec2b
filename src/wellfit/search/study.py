"""The study: trials that any number of workers, on any number of machines, share, each of which is finished once.

The storage is Optuna's. `claims.py` says why no trial is lost or done twice, `heartbeat.py` who counts as dead,
`outage.py` what happens while the storage is away.
"""

from __future__ import annotations

import platform
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import optuna

from wellfit.errors import UserError
from wellfit.search.claims import Claims, results
from wellfit.search.founding import Founding, found, read_founding, refuse_another
from wellfit.search.heartbeat import GRACE, INTERVAL, Heartbeat
from wellfit.search.outage import Patience, Stopped
from wellfit.search.place import Place, connect, now, place_of
from wellfit.search.presence import Presence
from wellfit.search.schedule import Finished, Round
from wellfit.search.shift import Plan, Shift
from wellfit.search.trial import Task, Trial

Answer = TypeVar("Answer")

PATIENCE = 600.0  # seconds that a storage may be away
POLL = 0.5  # seconds between two looks, where the others hold the rest of a round


class NoStudy(UserError):
    """There is no study of that name yet."""


@dataclass(frozen=True)
class Held:
    """A task that is worked at. seconds: since its worker began, by that worker's clock and by ours."""

    task: Task
    worker: str
    seconds: float


class Study:
    """One study in one storage. Made by `open` or `existing`; each process makes its own.

    identity, schedule: plain JSON, as the worker that founded the study gave them.
    """

    identity: dict[str, Any]
    schedule: dict[str, Any]

    def __init__(self, place: Place, name: str, patience: Patience) -> None:
        self.name, self.shown = name, place.shown
        self._place, self._patience = place, patience
        self._storage = patience.until(lambda: connect(place), opening=True)
        self._study: optuna.Study
        self._reader: Claims

    @classmethod
    def open(
        cls,
        storage: str | Path,
        name: str,
        *,
        identity: dict[str, Any],
        schedule: dict[str, Any],
        patience: float = PATIENCE,
        say: Callable[[str], None] | None = None,
    ) -> Study:
        """The study of that name, founded where there is none.

        storage: path of a SQLite file, or postgresql://USER@HOST/DATABASE.
        identity: plain JSON that must be the same for all workers: hashes of the data, seed, what the user asked.
        schedule: plain JSON, kept where this worker is the first; `study.schedule` is what the first one gave.
        patience: seconds that a storage which is away is waited for. say: takes messages; standard error by default.

        Raises UserError where the study has another identity, is not wellfit's or of a newer one, and where the storage
        cannot be used.
        """
        _check_name(name)
        place = place_of(storage)
        study = cls(place, name, Patience(place, patience, say or _to_stderr))
        try:
            study._begin(Founding(identity, schedule))
        except BaseException:
            study.close()
            raise
        return study

    @classmethod
    def existing(
        cls,
        storage: str | Path,
        name: str,
        *,
        patience: float = PATIENCE,
        say: Callable[[str], None] | None = None,
    ) -> Study:
        """The study of that name as it stands, to look at or to go on with. Raises NoStudy where there is none."""
        place = place_of(storage)
        if place.file is not None and not place.file.is_file():
            raise NoStudy(f"there is no study in '{place.shown}': no such file; check the path")
        study = cls(place, name, Patience(place, patience, say or _to_stderr))
        try:
            study._find()
        except BaseException:
            study.close()
            raise
        return study

    def close(self) -> None:
        """Give the connections back. Nothing is written."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def trials(self) -> list[Trial]:
        """What came of all tasks that ended, in the order of their numbers, whoever ran them."""
        return results(self._patience.until(self._reader.read))

    def age(self) -> float:
        """Seconds since the study was founded, by the clock that all workers share, whoever works at it."""
        return max(0.0, self._patience.until(lambda: now(self._storage)) - self._founded)

    def watch(self) -> list[Held]:
        """What is worked at now, in the order of the tasks; also the claims of the dead, until they are taken up."""
        running = self._patience.until(self._reader.running)
        held = [Held(claim.task, claim.worker, _seconds_since(claim.begun)) for claim in running]
        return sorted(held, key=lambda one: one.task.number)

    def work(
        self,
        schedule: Plan,
        run: Callable[[Task], Trial],
        *,
        worker: str,
        stop: Callable[[], bool],
        opened: Callable[[Round], None] | None = None,
        interval: float = INTERVAL,
        grace: float = GRACE,
        poll: float = POLL,
        deaths: int | None = None,
    ) -> Finished | None:
        """Run tasks of the open round, one after the other, until the schedule has finished; None where stopped.

        run: one task to its trial, of the same number; what it raises gives the task free and is passed on. It may be
            called for a task that another worker was at: one that died, or that fell asleep and still goes on.
        worker: a name for people. stop: asked before each task and while waiting for other workers or the storage.
        opened: told of each round that this worker comes upon, before its first task.
        interval, grace: seconds between signs of life, and of silence after which a worker counts as dead.
        poll: seconds between two looks at the rest of a round that others hold.
        deaths: of workers at one task, after which it counts as failed and is not run again: a task that exhausts the
            memory would kill them one by one. None: never, so that a search ends the same however often it is killed.
        """
        claims = self._claims(session=secrets.token_hex(8))
        shared = self._place.file.with_name(f"{self._place.file.name}.workers") if self._place.file else None
        with (
            Presence(shared, claims.session) as presence,
            Heartbeat(claims, interval=interval, grace=grace) as heartbeat,
        ):
            shift = Shift(self._patience, claims, presence, heartbeat, worker, stop, deaths)
            with suppress(Stopped):
                return shift.work(schedule, run, opened or (lambda _: None), poll)
        return None

    def _claims(self, session: str) -> Claims:
        return self._patience.until(lambda: Claims(self._study, self._storage, session, platform.node()))

    def _begin(self, mine: Founding) -> None:
        until = self._patience.until
        self._study = until(
            lambda: optuna.create_study(
                storage=self._storage, study_name=self.name, direction="maximize", load_if_exists=True
            )
        )
        written = until(lambda: read_founding(self._study, self.shown))
        if written is None:
            until(lambda: found(self._study, self._storage, replace(mine, when=now(self._storage))))
            written = until(lambda: read_founding(self._study, self.shown))
        assert written is not None
        refuse_another(self.name, self.shown, written.identity, mine.identity)
        self._enter(written)

    def _find(self) -> None:
        try:
            self._study = self._patience.until(lambda: optuna.load_study(storage=self._storage, study_name=self.name))
        except KeyError:
            raise self._none_such() from None
        written = self._patience.until(lambda: read_founding(self._study, self.shown))
        if written is None:
            raise self._none_such()
        self._enter(written)

    def _enter(self, founding: Founding) -> None:
        self.identity, self.schedule, self._founded = founding.identity, founding.schedule, founding.when
        self._reader = self._claims(session="")

    def _none_such(self) -> NoStudy:
        return NoStudy(f"there is no study '{self.name}' in {self.shown}; check the name given with --study")


def _check_name(name: str) -> None:
    if not 0 < len(name.strip()) <= 200:
        raise UserError(f"a study's name has 1 to 200 characters, got {len(name.strip())}; give another with --study")


def _seconds_since(begun: datetime | None) -> float:
    return 0.0 if begun is None else max(0.0, (datetime.now() - begun).total_seconds())


def _to_stderr(message: str) -> None:
    print(f"wellfit: {message}", file=sys.stderr, flush=True)

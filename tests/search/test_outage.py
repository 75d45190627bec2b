"""A storage that is away is waited for; what no waiting helps is one sentence."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from tests.search.conftest import GUARDED, Server
from wellfit.errors import UserError
from wellfit.search import outage, place
from wellfit.search.outage import Patience, Stopped
from wellfit.search.place import Place
from wellfit.search.study import Study


class OperationalError(Exception):
    """What a driver of PostgreSQL raises, by its name."""

    def __init__(self, text: str, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class ProgrammingError(OperationalError):
    """Another kind of PEP 249's."""


def wrapped(error: Exception) -> Exception:
    return sqlalchemy.exc.OperationalError("SELECT 1", {}, error)


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.pauses = 1000.0, list[float]()
        monkeypatch.setattr(outage, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [times]

    def action() -> str:
        if left[0]:
            left[0] -= 1
            raise wrapped(error)
        return "answer"

    return action


def patience(limit: float = 600.0) -> tuple[Patience, list[str]]:
    said: list[str] = []
    return Patience(Place("the storage"), limit, said.append), said


def test_an_outage_is_told_once_and_its_end_once(clock: Clock) -> None:
    waiting, said = patience()
    assert waiting.until(failing(9, OperationalError("connection refused"))) == "answer"
    assert said == [
        "the storage does not answer (connection refused); waiting for it, 600 s at most",
        f"the storage answers again, after {sum(clock.pauses):.0f} s",
    ]
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[0] == outage.FIRST_PAUSE
    assert max(clock.pauses) <= outage.LONGEST_PAUSE


def test_what_answers_at_once_is_not_spoken_of(clock: Clock) -> None:
    waiting, said = patience()
    assert waiting.until(lambda: 7) == 7
    assert said == clock.pauses == []


@pytest.mark.parametrize(
    ("opening", "text", "limit"), [(False, "gone", 60), (True, "gone", 15), (True, "starting up", 60)]
)
def test_the_limit_is_a_sentence(clock: Clock, opening: bool, text: str, limit: float) -> None:
    waiting, said = patience(60)
    with pytest.raises(UserError, match=f"did not answer for {limit} s .{text}.; see that it runs"):
        waiting.until(failing(10**6, OperationalError(text)), opening=opening)
    assert limit <= sum(clock.pauses) <= limit + outage.LONGEST_PAUSE
    assert len(said) == 1


def test_who_waits_can_be_stopped(clock: Clock) -> None:
    waiting, _ = patience()
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        waiting.until(failing(99, OperationalError("gone")), stop=lambda: next(asked))
    assert len(clock.pauses) == 2


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("terminating connection due to administrator command", "57P01"),
        ('connection to server at "db", port 5432 failed: Connection refused\n\tIs the server running', None),
        ('connection to server at "db", port 5432 failed: FATAL:  the database system is starting up', None),
        ('connection to server at "db", port 5432 failed: FATAL:  sorry, too many clients already', None),
        ("deadlock detected", "40P01"),
        ("failed to resolve host 'db'", None),
    ],
)
def test_states_that_pass_are_waited_for(clock: Clock, text: str, code: str | None) -> None:
    waiting, _ = patience()
    assert waiting.until(failing(1, OperationalError(text, code))) == "answer"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OperationalError('FATAL:  password authentication failed for user "ann"'),
            'failed for user "ann".; check user',
        ),
        (OperationalError('FATAL:  database "birds" does not exist'), "check user, password and name of the database"),
        (OperationalError("fe_sendauth: no password supplied"), "no password supplied.; check user"),
        (OperationalError("could not extend file", "53100"), "its disk is full.; make room"),
        (ProgrammingError("permission denied for schema public", "42501"), "grant that user the right"),
    ],
)
def test_states_that_do_not_pass_are_a_sentence_at_once(clock: Clock, error: Exception, sentence: str) -> None:
    waiting, said = patience()
    with pytest.raises(UserError, match=sentence) as refused:
        waiting.until(failing(1, error))
    assert "\n" not in str(refused.value)
    assert said == clock.pauses == []


class Defect(Exception):
    """No state of a server."""


def test_a_defect_is_raised_as_it_is(clock: Clock) -> None:
    waiting, _ = patience()
    with pytest.raises(sqlalchemy.exc.OperationalError, match="a defect"):
        waiting.until(failing(1, Defect("a defect")))
    assert clock.pauses == []


def test_a_connection_that_broke_in_the_middle_is_waited_for(clock: Clock) -> None:
    waiting, said = patience()
    broken = [sqlalchemy.exc.PendingRollbackError("Can't reconnect")]

    def action() -> int:
        if broken:
            raise broken.pop()
        return 1

    assert waiting.until(action) == 1
    assert "the connection broke" in said[0]


def opened(storage: Any, said: list[str], wait: float = 20.0) -> Study:
    return Study.open(storage, "x", identity={}, schedule={}, say=said.append, patience=wait)


def test_a_locked_file_is_waited_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "BUSY", 0.05)
    said: list[str] = []
    with opened(file, said) as study:
        other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.5, other.execute, ["COMMIT"])
        timer.start()
        assert study.trials() == []
        timer.join()
        other.close()
    assert said[0].endswith("does not answer (another process keeps it locked); waiting for it, 20 s at most")
    assert "answers again" in said[1]
    assert len(said) == 2


def test_a_full_disk_is_a_sentence(file: Path) -> None:
    with opened(file, []) as study:
        # SQLite's own limit on the size of the file gives the error of a full disk.
        storage = study._storage
        pages = storage.engine.connect()
        limit = pages.exec_driver_sql("PRAGMA page_count").scalar()
        pages.close()

        def full(connection: Any, _: Any) -> None:
            connection.execute(f"PRAGMA max_page_count = {limit}")

        sqlalchemy.event.listen(storage.engine, "connect", full)
        storage.engine.dispose()
        with pytest.raises(UserError, match=r"the disk is full\); make room there"):
            study._patience.until(lambda: storage.set_study_user_attr(1, "long", "x" * 10**6))


def test_a_file_that_is_no_study_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8 no database " * 100)
    with pytest.raises(UserError, match=r"file is not a database.; it is no study, or was damaged"):
        opened(path, [])
    assert path.read_bytes() == b"\xff\xd8 no database " * 100


def test_a_folder_in_place_of_the_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unable to open database file.; check the path"):
        opened(tmp_path, [])


def refusal(address: str) -> str:
    said: list[str] = []
    with pytest.raises(UserError) as refused:
        opened(address, said)
    assert said == []  # nothing was waited for
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_real_server_that_refuses_is_a_sentence(postgresql: Server) -> None:
    wrong = postgresql.url("postgres", f"{GUARDED}:wrong")
    assert f'(password authentication failed for user "{GUARDED}"); check user' in refusal(wrong)
    assert "wrong@" not in refusal(wrong)
    assert "no password supplied" in refusal(postgresql.url("postgres", GUARDED))
    assert '(database "nests" does not exist); check user' in refusal(postgresql.url("nests"))
    assert '(role "nobody_here" does not exist)' in refusal(postgresql.url("postgres", "nobody_here"))


def test_a_user_who_may_not_make_tables_is_told(postgresql: Server) -> None:
    allowed = postgresql.database()
    address = allowed.replace("postgres@", f"{GUARDED}:open%20sesame@")
    postgresql.ask("SELECT 1")
    sentence = refusal(address)
    assert "permission denied for schema public" in sentence
    assert "grant that user the right to create tables" in sentence


def test_a_server_that_is_not_there_is_waited_for_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg", reason="needs psycopg, which is not installed")
    monkeypatch.setattr(outage, "OPENING", 0.5)
    said: list[str] = []
    with pytest.raises(UserError, match=r"did not answer for 0 s \(connection failed: .*refused.*see that it runs"):
        opened("postgresql://postgres@127.0.0.1:1/x", said)
    assert len(said) == 1

"""Where a study is kept: what an address means, and many that open the same place at once."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from wellfit.errors import UserError
from wellfit.search import place
from wellfit.search.place import connect, place_of


@pytest.mark.parametrize("text", ["runs/a/s.sqlite", "sqlite:///runs/a/s.sqlite", Path("runs/a/s.sqlite")])
def test_a_path_is_a_sqlite_file(text: str | Path) -> None:
    assert place_of(text).file == Path.cwd() / "runs/a/s.sqlite"
    assert place_of(text).shown == "runs/a/s.sqlite"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "PostgreSQL", "postgresql+psycopg"])
def test_an_address_of_postgresql_is_given_the_installed_driver_and_hides_its_password(scheme: str) -> None:
    found = place_of(f"{scheme}://ann:s%40cret@db.example:6543/birds?sslmode=require")
    assert found.file is None
    assert found.url.drivername == "postgresql+psycopg"
    assert (found.url.username, found.url.password, found.url.port) == ("ann", "s@cret", 6543)
    assert found.url.query == {"sslmode": "require"}
    assert found.shown == "postgresql://ann:***@db.example:6543/birds?sslmode=require"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("mysql://user@host/db", "in a SQLite file or in PostgreSQL, got 'mysql://…'"),
        ("postgre://user@host/db", "did you mean 'postgresql'"),
        ("postgresql://user@host:port/db", "cannot be read"),
        ("postgresql+asyncpg://user@host/db", "psycopg or psycopg2, got 'asyncpg'"),
        ("postgresql://user@host/db?password=s3cret", "would be written down"),
        ("postgresql://user@host/db?sslpassword=s3cret", "would be written down"),
    ],
)
def test_another_address_is_refused_in_a_sentence(address: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        place_of(address)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_the_other_driver_serves_too_and_a_missing_one_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"psycopg2"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in there else None)
    assert place_of("postgresql://user@host/db").url.drivername == "postgresql+psycopg2"
    there.clear()
    with pytest.raises(UserError, match=r"pip install 'wellfit\[postgresql\]'"):
        place_of("postgresql://user@host/db")


def test_the_address_reaches_optuna_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    class Storage:
        def __init__(self, url: str, engine_kwargs: dict[str, dict[str, object]]) -> None:
            seen["url"] = url.format()  # as Optuna does
            seen.update(engine_kwargs["connect_args"])

    monkeypatch.setattr(optuna.storages, "RDBStorage", Storage)
    connect(place_of("postgresql://ann:a%7Bb%7D@host/db?connect_timeout=3"))
    url = make_url(str(seen["url"]))
    assert url.password == "a{b}"
    assert url.query["connect_timeout"] == "3"
    assert "connect_timeout" not in seen  # what the user says holds
    assert seen["keepalives_idle"] == place.CONNECTION["keepalives_idle"]


@pytest.mark.parametrize("name", ["search.sqlite", "100%25 {b} #1 ü?x=1.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    storage = connect(place_of(tmp_path / "new" / name))
    optuna.create_study(storage=storage, study_name="x")
    storage.engine.dispose()
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_of_two_that_read_a_running_trial_in_a_file_one_alone_ends_it(file: Path) -> None:
    # Optuna reads the state and writes it in two statements; without our transactions both of them end the trial.
    first, second = (connect(place_of(file)) for _ in range(2))
    optuna.create_study(storage=first, study_name="x")
    between, ended = threading.Barrier(2), []
    key = first.create_new_trial(1, optuna.trial.create_trial(state=TrialState.RUNNING))

    def pause(*_: object) -> None:
        # Both wait here for each other after they read the state, where they can: one of them is kept out.
        with contextlib.suppress(threading.BrokenBarrierError):
            between.wait(timeout=0.5)

    def end(storage: optuna.storages.RDBStorage, state: TrialState) -> None:
        try:
            ended.append((storage.set_trial_state_values(key, state), state))
        except optuna.exceptions.UpdateFinishedTrialError:
            ended.append((False, state))

    for storage in (first, second):
        storage.check_trial_is_updatable = pause_after(storage.check_trial_is_updatable, pause)
    ways = [(first, TrialState.PRUNED), (second, TrialState.FAIL)]
    threads = [threading.Thread(target=end, args=way) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done for done, _ in ended) == [False, True]
    assert (True, first.get_trial(key).state) in ended
    for storage in (first, second):
        storage.engine.dispose()


def pause_after(check: Callable[..., None], pause: Callable[..., None]) -> Callable[..., None]:
    def both(*arguments: object) -> None:
        check(*arguments)
        pause()

    return both


def test_many_may_open_a_new_storage_at_the_same_moment(storage: str) -> None:
    opened: list[optuna.storages.RDBStorage] = []
    start = threading.Barrier(6)

    def one() -> None:
        start.wait()
        opened.append(connect(place_of(storage)))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 6
    optuna.create_study(storage=opened[0], study_name="x")
    assert all(one.get_study_id_from_name("x") == 1 for one in opened)
    for one in opened:
        one.engine.dispose()


def test_tables_of_another_optuna_are_told(file: Path) -> None:
    storage = connect(place_of(file))
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v99.0.0'")
    storage.engine.dispose()
    with pytest.raises(UserError, match="install the same Optuna on all machines"):
        connect(place_of(file))

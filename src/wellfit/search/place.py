"""Where a study is kept: a SQLite file beside the run, or a PostgreSQL database that many machines share."""

from __future__ import annotations

import importlib.util
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from sqlalchemy.engine import URL, make_url

from wellfit.errors import UserError, nearest

BUSY = 10.0  # seconds that SQLite itself waits for a file that another process writes to
DRIVERS = {"psycopg": "psycopg", "psycopg2": "psycopg2"}  # SQLAlchemy's name of the driver: the module it needs
CONNECTION = {
    "connect_timeout": 10,  # seconds, for a machine that does not answer at all
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}
FIRST_OPENING = 12  # workers that begin at the same moment all make the tables; all but one are turned away


@dataclass(frozen=True)
class Place:
    """The address of a storage. shown: for messages, without the password."""

    shown: str
    file: Path | None = None
    url: URL = field(default_factory=lambda: URL.create("sqlite"))


def place_of(storage: str | Path) -> Place:
    """The place that a path, `sqlite:///PATH` or `postgresql://USER@HOST/DATABASE` names.

    Raises UserError for another kind of database, an address that cannot be read, and a missing driver.
    """
    text = str(storage)
    if isinstance(storage, Path) or "://" not in text:
        return Place(text, Path(storage).absolute())
    if text.startswith("sqlite:///"):
        path = text.removeprefix("sqlite:///")
        return Place(path, Path(path).absolute())
    kind = text.partition("://")[0].partition("+")[0].lower()
    if kind not in ("postgresql", "postgres"):
        raise UserError(
            f"a study is kept in a SQLite file or in PostgreSQL, got '{kind}://…'{nearest(kind, ['postgresql'])}; "
            "give a path, or postgresql://USER@HOST/DATABASE"
        )
    try:
        url = make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise UserError(
            "the address of a PostgreSQL database has the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and "
            "this one cannot be read; write signs such as @ and / in a password as %40 and %2F"
        ) from error
    if any("password" in name.lower() for name in url.query):
        raise UserError(
            "a password after the ? of an address would be written down with it; write it as "
            "postgresql://USER:PASSWORD@HOST/DATABASE, or leave it to PGPASSWORD or a .pgpass file"
        )
    asked = url.drivername.partition("+")[2]
    url = url.set(drivername=f"postgresql+{_driver(asked)}")
    shown = url.set(drivername="postgresql").render_as_string(hide_password=True)
    return Place(shown, None, url)


def _driver(asked: str) -> str:
    if asked and asked not in DRIVERS:
        raise UserError(f"PostgreSQL is reached by psycopg or psycopg2, got '{asked}'; write postgresql://… alone")
    for name in [asked] if asked else DRIVERS:
        if importlib.util.find_spec(DRIVERS[name]) is not None:
            return name
    raise UserError(
        f"a study in PostgreSQL needs the package {asked or 'psycopg'}, which is not installed; "
        "install it with: pip install 'wellfit[postgresql]'"
    )


def connect(place: Place) -> optuna.storages.RDBStorage:
    """Optuna's storage at that place, its tables made where they are missing.

    Optuna on SQLite reads a trial's state and writes it back in two steps that another process may come between.
    Every transaction here begins as a writing one, so that such steps are whole.

    Raises UserError where the tables are of another version of Optuna; what the database itself says is raised as is.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for attempt in range(FIRST_OPENING):
        try:
            return _sqlite(place.file) if place.file is not None else _postgresql(place.url)
        except (sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
            if attempt == FIRST_OPENING - 1 or not _made_by_another(error):
                raise
            time.sleep(0.05 * (attempt + 1))
        except RuntimeError as error:  # Optuna's word on tables of another version
            raise UserError(
                f"the study in {place.shown} was made by a version of Optuna that does not fit the one installed, "
                f"{optuna.__version__}; install the same Optuna on all machines"
            ) from error
    raise AssertionError("the last attempt returns or raises")


def now(storage: optuna.storages.RDBStorage) -> float:
    """Seconds since 1970 by the clock that all workers of a study share: the database's; a file's is its machine's."""
    if storage.engine.dialect.name != "postgresql":
        return time.time()
    with storage.engine.connect() as connection:
        return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())


def cause_of(error: BaseException) -> BaseException:
    """What the database's driver raised, taken out of what SQLAlchemy and Optuna put around it."""
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        return cause_of(error.__cause__)
    return error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None else error


def _made_by_another(error: BaseException) -> bool:
    cause = cause_of(error)
    if isinstance(cause, sqlite3.Error):
        return "already exists" in str(cause) or isinstance(cause, sqlite3.IntegrityError)
    # unique violation in the catalogue, or a table, a type that is there by now
    return getattr(cause, "sqlstate", None) in ("23505", "42P07", "42710")


def _sqlite(path: Path) -> optuna.storages.RDBStorage:
    path.parent.mkdir(parents=True, exist_ok=True)

    def creator() -> sqlite3.Connection:
        # The path goes past the URL, in which ?, # and % would mean something else. Transactions are begun below.
        return sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)

    storage = optuna.storages.RDBStorage("sqlite:///search.sqlite", engine_kwargs={"creator": creator})

    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sqlalchemy.event.listen(storage.engine, "begin", begin)
    return storage


def _postgresql(url: URL) -> optuna.storages.RDBStorage:
    given: dict[str, Any] = {name: value for name, value in CONNECTION.items() if name not in url.query}
    # Optuna fills {…} in a URL as it fills a template.
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    return optuna.storages.RDBStorage(
        text,
        # One connection for the trials and one for the heartbeat: many workers share the server's hundred.
        # Trials are numbered by a count under a lock, which a snapshot from before the lock would get wrong.
        engine_kwargs={
            "pool_size": 2,
            "max_overflow": 2,
            "pool_pre_ping": True,
            "isolation_level": "READ COMMITTED",
            "connect_args": given,
        },
    )

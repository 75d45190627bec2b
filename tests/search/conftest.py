"""A real PostgreSQL server for the tests of shared studies, on loopback and in a temporary folder.

Where its programs are missing, the tests that need it skip and say so; with WELLFIT_REQUIRE_POSTGRESQL=1 they fail.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from wellfit.search.place import connect, place_of

REQUIRED = "WELLFIT_REQUIRE_POSTGRESQL"
GUARDED = "guarded"  # a user that needs a password; all others need none


@dataclass
class Server:
    """A running server. Each `database()` is a fresh one."""

    programs: Path
    folder: Path
    as_user: list[str]
    port: int
    made: int = field(default=0)

    def run(self, program: str, *arguments: str) -> None:
        command = [*self.as_user, str(self.programs / program), *arguments]
        # The server keeps what it inherits open: a pipe would never end.
        with (self.folder / "said.txt").open("wb") as said:
            done = subprocess.run(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, cwd=self.folder)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {(self.folder / 'said.txt').read_text()}")

    def start(self) -> None:
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off "
            "-c full_page_writes=off -c shared_buffers=16MB -c autovacuum=off"
        )
        self.run(
            "pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "log"), "-o", options, "start"
        )

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def database(self, user: str = "postgres") -> str:
        """The address of a new, empty database."""
        self.made += 1
        self.ask(f"CREATE DATABASE study_{self.made}")
        return self.url(f"study_{self.made}", user)

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def ask(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server of this session's own. It may be stopped and started by a test that leaves it running."""
    if importlib.util.find_spec("psycopg") is None:
        _missing("the package psycopg is not installed")
    programs = _programs()
    if programs is None:
        _missing("initdb and pg_ctl are neither in PATH nor in /usr/lib/postgresql; install Debian's 'postgresql'")
    as_user, owner = _another_user()
    folder = Path(tempfile.mkdtemp(prefix="wellfit-postgresql-"))
    if owner is not None:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        folder.chmod(0o755)
    server = Server(programs, folder, as_user, _free_port())
    try:
        server.run(
            "initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-N", "--locale=C", "-E", "UTF8"
        )
        rules = folder / "data" / "pg_hba.conf"
        rules.write_text(f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n")
        server.start()
        server.ask(f"CREATE USER {GUARDED} PASSWORD 'open sesame'")
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with Optuna's tables and nothing in them: making them anew for each test takes most of its time."""
    path = tmp_path_factory.mktemp("tables") / "empty.sqlite"
    connect(place_of(path)).engine.dispose()
    return path


@pytest.fixture
def file(tables: Path, tmp_path: Path) -> Path:
    """The path of an empty storage in a SQLite file of this test's own."""
    return shutil.copy(tables, tmp_path / "search.sqlite")


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new, empty storage: once in a file, once on the server."""
    if request.param == "sqlite":
        return str(tmp_path / "search.sqlite")
    server: Server = request.getfixturevalue("postgresql")
    return server.database()


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found and shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


def _another_user() -> tuple[list[str], Any]:
    # The server refuses to run as root.
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return [], None
    import pwd

    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if shutil.which("setpriv"):
            return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"], user
        if shutil.which("runuser"):
            return ["runuser", "-u", name, "--"], user
    _missing("it does not run as root, and there is neither setpriv nor runuser to start it as another user")
    raise AssertionError("unreachable")


def _missing(what: str) -> None:
    sentence = f"needs PostgreSQL: {what}"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{sentence} ({REQUIRED}=1 turns this skip into a failure)")
    pytest.skip(sentence)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

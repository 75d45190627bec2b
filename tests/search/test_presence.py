"""Proof of life in a shared folder: death is seen at once, and never where it cannot be told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from wellfit.search import presence
from wellfit.search.presence import Presence

SCRIPT = """
import sys
from pathlib import Path
from wellfit.search.presence import Presence
with Presence(Path(sys.argv[1]), "them"):
    print("here", flush=True)
    sys.stdin.read()
"""


def test_a_worker_lives_until_its_process_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "workers"
    with Presence(folder, "us") as us:
        them = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert them.stdin is not None
        assert them.stdout is not None
        with them.stdin, them.stdout:
            assert them.stdout.readline().strip() == b"here"
            assert not us.is_dead("them")
            assert not us.is_dead("them")  # asking leaves it as it is
            them.kill()
            them.wait()
        assert us.is_dead("them")
        assert not us.is_dead("them")  # its file is gone, and with it the proof
    assert not folder.exists()


def test_who_leaves_tidily_leaves_nothing_and_counts_as_unknown(tmp_path: Path) -> None:
    with Presence(tmp_path / "workers", "us") as us:
        with Presence(tmp_path / "workers", "them"):
            assert not us.is_dead("them")
        assert not us.is_dead("them")
        assert [file.name for file in (tmp_path / "workers").iterdir()] == ["us.lock"]


def test_without_a_folder_nothing_is_known() -> None:
    with Presence(None, "us") as us:
        assert not us.is_dead("them")


def test_a_folder_without_locks_leaves_all_to_the_heartbeat(tmp_path: Path, monkeypatch) -> None:
    class NoLocks(FileLock):
        def acquire(self, *_: object, **__: object) -> None:
            raise OSError(95, "operation not supported")

    monkeypatch.setattr(presence, "FileLock", NoLocks)
    (tmp_path / "them.lock").touch()
    with Presence(tmp_path, "us") as us:
        assert not us.is_dead("them")
    assert (tmp_path / "them.lock").exists()

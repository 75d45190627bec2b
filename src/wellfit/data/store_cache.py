"""Where pixel stores live on disk: who uses one, how much room there is, and which go when there is too little.

    CACHE/stores/
      <key>/            one store; its modification time is when it was last opened
      <key>.lock        held while the store is opened, built or deleted
      <key>.users/      one file for each process that has the store open, locked for as long as it does

A lock is the operating system's: it ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from wellfit.data.sources.cache import cache_folder, limit_from
from wellfit.errors import UserError

CACHE_LIMIT = 50 * 1000**3
"""Bytes that all pixel stores together may take; WELLFIT_CACHE_LIMIT overrides it ("200GB", "500MB", or bytes)."""

DISK_RESERVE = 200 * 1000**2
"""Bytes of the disk that no store may take."""


def stores_folder() -> Path:
    return cache_folder() / "stores"


def cache_limit() -> int:
    """The cap in bytes, after WELLFIT_CACHE_LIMIT."""
    return limit_from("WELLFIT_CACHE_LIMIT", CACHE_LIMIT)


def lock_of(folder: Path) -> FileLock:
    """The lock under which a store is opened, built or deleted."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(str(folder.with_name(folder.name + ".lock")))


class Lease:
    """Says that this process has the store open, until `release` or the end of the process."""

    def __init__(self, folder: Path) -> None:
        users = _users(folder)
        users.mkdir(parents=True, exist_ok=True)
        self._path = users / uuid.uuid4().hex
        self._lock = FileLock(str(self._path), thread_local=False)
        self._lock.acquire()
        self._process = os.getpid()

    def release(self) -> None:
        if self._lock.is_locked and self._process == os.getpid():  # a forked child must not end its parent's lease
            self._lock.release()
            with contextlib.suppress(OSError):
                self._path.unlink()


def in_use(folder: Path) -> bool:
    """Whether any process has the store open; leases left behind by dead ones are cleared away."""
    users = _users(folder)
    for path in list(users.iterdir()) if users.is_dir() else []:
        try:
            with FileLock(str(path), timeout=0):
                pass
        except Timeout:
            return True
        with contextlib.suppress(OSError):
            path.unlink()
    return False


def size_of(folder: Path) -> int:
    """Bytes of the files in a store's folder; 0 where there is none."""
    if not folder.is_dir():
        return 0
    return sum(path.stat().st_size for path in list(folder.iterdir()) if path.is_file())


def make_room(folder: Path, size: int) -> None:
    """See to it that a store of `size` bytes may be built in `folder`: delete the oldest-used others not in use.

    Raises UserError with the sizes when the cap or the disk is too small even so.
    """
    limit = cache_limit()
    if size > limit:
        raise UserError(
            f"the decoded images take {_size(size)} and the cache may hold {_size(limit)}; "
            "raise the cap with WELLFIT_CACHE_LIMIT, or give fewer images"
        )
    others = [path for path in folder.parent.iterdir() if path.is_dir() and path.suffix == "" and path != folder]
    others.sort(key=lambda path: path.stat().st_mtime)
    taken = sum(size_of(path) for path in others)
    needed_now = size - size_of(folder) + DISK_RESERVE
    for path in others:
        if taken + size <= limit and _free(folder.parent) >= needed_now:
            return
        taken -= _evict(path)
    if taken + size > limit:
        raise UserError(
            f"the decoded images take {_size(size)}, but stores that are in use hold {_size(taken)} of the cache's "
            f"{_size(limit)}; wait for the other runs, or raise the cap with WELLFIT_CACHE_LIMIT"
        )
    if _free(folder.parent) < needed_now:
        raise _disk_full(folder.parent, size)


@contextlib.contextmanager
def told(folder: Path, size: int) -> Iterator[None]:
    """Turn errors of the disk into UserErrors. size: bytes that the store needs in all."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            raise _disk_full(folder.parent, size) from None
        raise UserError(
            f"the decoded images are kept in '{folder.parent}', which cannot be written ({error.strerror or error}); "
            "name another folder with WELLFIT_CACHE"
        ) from None


def _evict(folder: Path) -> int:
    """Delete a store unless it is in use or being built; the bytes set free."""
    with contextlib.suppress(Timeout, OSError), lock_of(folder).acquire(timeout=0):
        if not in_use(folder):
            size = size_of(folder)
            shutil.rmtree(folder)
            shutil.rmtree(_users(folder), ignore_errors=True)
            return size
    return 0


def _users(folder: Path) -> Path:
    return folder.with_name(folder.name + ".users")


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _disk_full(folder: Path, size: int) -> UserError:
    free = _size(_free(folder)) if folder.is_dir() else "nothing"
    return UserError(
        f"the decoded images take {_size(size)}, but the disk of '{folder}' has {free} free; "
        "make room, or name a folder on another disk with WELLFIT_CACHE"
    )


def _size(size: int) -> str:
    factor, unit = next((f, u) for f, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size >= 0.1 * f or u == "kB")
    return f"{size / factor:.1f} {unit}"

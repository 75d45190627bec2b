from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import encoded, listed, noise
from wellfit.data import store_cache
from wellfit.data.inspect import inspect
from wellfit.data.store import PixelStore, build_store
from wellfit.data.store_cache import CACHE_LIMIT, Lease, cache_limit, lock_of, make_room, size_of, told
from wellfit.errors import UserError

Usage = namedtuple("Usage", "total used free")


def made_up_store(root: Path, name: str, size: int, used: float) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "pixels.bin").write_bytes(bytes(size))
    os.utime(folder, (used, used))
    return folder


def build(seed: int, count: int = 10) -> PixelStore:
    source = listed([encoded(noise(100 * seed + i, 32, 32)) for i in range(count)])
    return build_store(source, inspect(source), np.arange(count), short_side=32)


@pytest.mark.parametrize(
    ("text", "size"),
    [("", CACHE_LIMIT), ("50GB", 50e9), ("1.5 tb", 1.5e12), ("500MB", 5e8), ("2k", 2000), ("123", 123), ("7B", 7)],
)
def test_cap(monkeypatch: pytest.MonkeyPatch, text: str, size: float) -> None:
    monkeypatch.setenv("WELLFIT_CACHE_LIMIT", text)
    assert cache_limit() == size


@pytest.mark.parametrize("text", ["soon", "-1GB", "0", "GB", "5 apples", "nan"])
def test_a_cap_that_is_no_size(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WELLFIT_CACHE_LIMIT", text)
    with pytest.raises(UserError, match="WELLFIT_CACHE_LIMIT"):
        cache_limit()


def test_the_oldest_used_store_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = {
        name: made_up_store(tmp_path, name, 1000, used) for name, used in [("old", 10), ("older", 5), ("new", 20)]
    }
    monkeypatch.setenv("WELLFIT_CACHE_LIMIT", "3500")
    make_room(tmp_path / "mine", 400)
    assert all(folder.exists() for folder in stores.values())
    make_room(tmp_path / "mine", 1500)
    assert [name for name, folder in stores.items() if folder.exists()] == ["old", "new"]
    make_room(tmp_path / "mine", 3500)
    assert not any(folder.exists() for folder in stores.values())


def test_a_store_in_use_or_being_built_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used, built, idle = (made_up_store(tmp_path, name, 1000, i) for i, name in enumerate(["used", "built", "idle"]))
    lease = Lease(used)
    monkeypatch.setenv("WELLFIT_CACHE_LIMIT", "3000")
    with lock_of(built):
        make_room(tmp_path / "mine", 1000)
        assert used.exists()
        assert built.exists()
        assert not idle.exists()
        with pytest.raises(UserError, match=r"in use hold 2\.0 kB.*WELLFIT_CACHE_LIMIT"):
            make_room(tmp_path / "mine", 2500)
    lease.release()
    make_room(tmp_path / "mine", 2500)
    assert not used.exists()


def test_opening_counts_as_use(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [build(seed).folder for seed in range(3)]
    for age, folder in enumerate(folders):
        os.utime(folder, (age, age))
    build(0)
    monkeypatch.setenv("WELLFIT_CACHE_LIMIT", str(int(3.5 * size_of(folders[0]))))
    build(3)
    assert [folder.exists() for folder in folders] == [True, False, True]


def test_a_store_that_someone_reads_is_not_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = build(0)
    monkeypatch.setenv("WELLFIT_CACHE_LIMIT", str(int(1.5 * size_of(mine.folder))))
    with pytest.raises(UserError, match="in use"):
        build(1)
    assert (mine.image(3) == noise(3, 32, 32)).all()
    folder = mine.folder
    del mine
    build(1)
    assert not folder.exists()


def test_larger_than_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WELLFIT_CACHE_LIMIT", "10kB")
    with pytest.raises(UserError, match=r"take 38\.6 kB and the cache may hold 10\.0 kB") as error:
        build(0)
    assert "\n" not in str(error.value)


def test_disk_full_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = build(0).folder
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - 10**6, 10**6))
    with pytest.raises(UserError, match=r"1\.0 MB free.*WELLFIT_CACHE"):
        build(1)
    assert not idle.exists()  # it was tried


def test_disk_full_on_the_way(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wellfit.data import store_build

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_build.os, "fsync", full)
        with pytest.raises(UserError, match="make room"):
            build(0)
    assert build(0).usable.all()


def test_other_errors_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"), told(tmp_path / "key", 10):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(KeyError), told(tmp_path / "key", 10):
        raise KeyError


def test_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = store_cache.DISK_RESERVE + 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - free, free))
    make_room(tmp_path / "mine", 1000)
    with pytest.raises(UserError, match="free"):
        make_room(tmp_path / "mine", 1001)

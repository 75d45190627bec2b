"""Compressed tars in the cache, and the limits on unpacking."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.data.sources.test_archive import FILES, pack
from wellfit.data.sources import cache, open_source
from wellfit.data.sources.cache import check_unpacked, unpacked_limit
from wellfit.data.sources.unpacked import unpacked_tar
from wellfit.errors import UserError


def test_unpacked_once_and_found_again(tmp_path: Path, own_cache: Path) -> None:
    plain = pack(tmp_path / "photos.tar", FILES)
    packed = tmp_path / "photos.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    first = unpacked_tar(packed)
    assert first.read_bytes() == plain.read_bytes()
    assert own_cache in first.parents
    made = first.stat().st_mtime_ns
    assert unpacked_tar(packed) == first
    assert first.stat().st_mtime_ns == made


def test_a_changed_archive_is_unpacked_anew_and_its_old_tar_removed(tmp_path: Path, own_cache: Path) -> None:
    packed = pack(tmp_path / "photos.tar.gz", FILES)
    old = unpacked_tar(packed)
    pack(packed, dict(list(FILES.items())[:6]))
    os.utime(packed, ns=(1, 1))
    new = unpacked_tar(packed)
    assert new != old
    assert [p.name for p in own_cache.rglob("*.tar")] == [new.name]
    assert len(open_source(packed)) == 6


def test_damage_leaves_nothing_behind(tmp_path: Path, own_cache: Path) -> None:
    packed = pack(tmp_path / "photos.tar.gz", FILES)
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(UserError, match="damaged or cut short"):
        unpacked_tar(packed)
    assert [p for p in own_cache.rglob("*") if p.is_file() and p.suffix != ".lock"] == []


@pytest.mark.parametrize("name", ["bomb.tar.gz", "bomb.zip"])
def test_a_bomb_is_refused(name: str, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "RATIO_FLOOR", 1_000_000)
    path = pack(tmp_path / name, {"ant/1.bmp": bytes(2_500_000), "bee/1.bmp": bytes(2_500_000)})
    with pytest.raises(UserError, match="more than 200 times its size"):
        open_source(path)
    assert list(own_cache.rglob("*.tar")) == []


@pytest.mark.parametrize("name", ["large.tar.gz", "large.zip"])
def test_the_unpacked_limit_and_its_override(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{c}/1.bmp": os.urandom(60_000) for c in ("ant", "bee")}
    path = pack(tmp_path / name, files)
    monkeypatch.setenv("WELLFIT_MAX_UNPACKED", "0.1MB")
    with pytest.raises(UserError, match="the declared limit; unpack it yourself, or raise the limit with WELLFIT_MAX_"):
        open_source(path)
    monkeypatch.setenv("WELLFIT_MAX_UNPACKED", "1 GB")
    assert len(open_source(path)) == 2


@pytest.mark.parametrize(
    ("text", "size"), [("", 64e9), ("123", 123), ("200GB", 200e9), ("1.5 tb", 1.5e12), ("7kB", 7e3)]
)
def test_the_limit_as_people_write_it(text: str, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WELLFIT_MAX_UNPACKED", text)
    assert unpacked_limit() == size


@pytest.mark.parametrize("text", ["much", "-3", "0", "12 parsecs", "nan", "inf", "9" * 400])
def test_a_limit_that_is_no_size(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WELLFIT_MAX_UNPACKED", text)
    with pytest.raises(UserError, match="WELLFIT_MAX_UNPACKED is a size"):
        unpacked_limit()


def test_small_archives_may_be_compressible() -> None:
    check_unpacked(cache.RATIO_FLOOR, 10, "x")
    with pytest.raises(UserError):
        check_unpacked(cache.RATIO_FLOOR + 1, 10, "x")
    check_unpacked(cache.RATIO_FLOOR * 2, cache.RATIO_FLOOR // 100, "x")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_file").write_bytes(b"")
    monkeypatch.setenv("WELLFIT_CACHE", str(tmp_path / "a_file"))
    with pytest.raises(UserError, match="name another folder with WELLFIT_CACHE"):
        open_source(pack(tmp_path / "photos.tar.gz", FILES))


def test_a_full_disk_while_unpacking(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="which is full; make room"):
        open_source(pack(tmp_path / "photos.tar.gz", FILES))
    assert list(own_cache.rglob("*.tar")) == []


def test_two_processes_at_once(tmp_path: Path, own_cache: Path) -> None:
    path = pack(tmp_path / "photos.tar.gz", {f"{c}/{i}.bin": os.urandom(20_000) for c in "ab" for i in range(40)})
    code = (
        "import sys; from wellfit.data.sources import open_source;print(len(open_source(sys.argv[1]).reader.read(79)))"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [run.communicate(timeout=50)[0].strip() for run in runs] == ["20000", "20000"]
    assert len(list(own_cache.rglob("*.tar"))) == 1


def test_overlapping_members_of_a_zip_count_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many directory entries that point to one packed member: the declared sizes are added up."""
    monkeypatch.setattr(cache, "RATIO_FLOOR", 1_000_000)
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ant/0.bmp", bytes(200_000))
        first = archive.infolist()[0]
        for i in range(1, 60):
            twin = zipfile.ZipInfo(f"ant/{i}.bmp")
            for field in ("header_offset", "compress_size", "file_size", "compress_type", "CRC"):
                setattr(twin, field, getattr(first, field))
            archive.filelist.append(twin)
    with pytest.raises(UserError, match="200 times"):
        open_source(path)

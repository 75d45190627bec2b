"""The quick index of a plain tar, against tarfile's own listing."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from wellfit.data.sources import tar_index
from wellfit.data.sources.tar_index import plain_index

LONG = "/".join(["a" * 40, "b" * 40, "c" * 40, "photo.jpg"])


def packed(path: Path, names: list[str], form: int, sizes: list[int]) -> Path:
    draw = np.random.default_rng(len(names))
    with tarfile.open(path, "w", format=form) as archive:
        folder = tarfile.TarInfo("top")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, size in zip(names, sizes, strict=True):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(draw.bytes(size)))
    return path


def listed(path: Path) -> tuple[list[str], list[tuple[int, int]]]:
    with tarfile.open(path, "r:") as archive:
        members = archive.getmembers()
    return [m.name for m in members], [(m.offset_data, m.size) if m.isreg() else (-1, 0) for m in members]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_it_is_tarfiles_listing(tmp_path: Path, form: int) -> None:
    names = [f"top/ant/{i}.jpg" for i in range(40)] + ["top/bee/räv.jpg"] * (form != tarfile.PAX_FORMAT)
    sizes = [0, 1, 511, 512, 513, 100_000, *range(7, len(names) + 1)]
    path = packed(tmp_path / "t.tar", names, form, sizes)
    assert plain_index(path) == listed(path)


def test_a_name_in_two_fields_is_joined(tmp_path: Path) -> None:
    path = packed(tmp_path / "t.tar", [LONG], tarfile.USTAR_FORMAT, [10])
    assert plain_index(path) == listed(path)
    assert plain_index(path)[0][-1] == LONG


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_outside_the_headers_are_left_to_tarfile(tmp_path: Path, form: int) -> None:
    assert plain_index(packed(tmp_path / "t.tar", ["x" * 120], form, [10])) is None


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_left_to_tarfile(tmp_path: Path, kind: bytes) -> None:
    path = packed(tmp_path / "t.tar", ["a/1.jpg", "b/1.jpg"], tarfile.USTAR_FORMAT, [9, 9])
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("a/link")
        info.type, info.linkname = kind, "elsewhere"
        archive.addfile(info)
    assert plain_index(path) is None


def test_any_change_of_a_header_is_left_to_tarfile(tmp_path: Path) -> None:
    path = packed(tmp_path / "t.tar", ["a/1.jpg", "b/1.jpg"], tarfile.USTAR_FORMAT, [9, 9])
    whole = path.read_bytes()
    for at in (512, 512 + 124, 512 + 150, 512 + 156, 512 + 200, 512 + 400):
        content = bytearray(whole)
        content[at] ^= 1
        path.write_bytes(content)
        assert plain_index(path) is None, at


def test_what_ends_too_early_is_left_to_tarfile(tmp_path: Path) -> None:
    path = packed(tmp_path / "t.tar", ["a/1.jpg", "b/1.jpg"], tarfile.USTAR_FORMAT, [900, 900])
    whole = path.read_bytes()
    for length in (0, 100, 512, 1024, 1500, 3584, 4000):
        path.write_bytes(whole[:length])
        assert plain_index(path) is None, length


@pytest.mark.parametrize("at_once", [1, 4, 5, 6, 100])
def test_headers_are_checked_some_at_once_and_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(tar_index, "_AT_ONCE", at_once)
    path = packed(tmp_path / "t.tar", [f"a/{i}.jpg" for i in range(9)], tarfile.USTAR_FORMAT, [5] * 9)
    assert plain_index(path) == listed(path)
    whole = path.read_bytes()
    for member in range(9):
        content = bytearray(whole)
        content[512 + 1024 * member + 3] ^= 1  # a letter of its name
        path.write_bytes(content)
        assert plain_index(path) is None, member


def test_it_holds_few_headers_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_index, "_AT_ONCE", 256)
    members = 8000
    heads = [tarfile.TarInfo(f"a/{i}.jpg").tobuf(tarfile.USTAR_FORMAT) for i in range(members)]
    path = tmp_path / "t.tar"
    path.write_bytes(b"".join(heads) + bytes(1024))
    tracemalloc.start()
    try:
        names, places = plain_index(path)
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(names) == len(places) == members
    assert peak - left < members * 512 / 4

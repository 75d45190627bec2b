from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import encoded, listed, noise
from wellfit.data import inspect as module
from wellfit.data.inspect import content_hash, forget, inspect
from wellfit.data.sources import LeftOut, Source, open_source

OLD = 1_600_000_000


class CountingReader:
    def __init__(self, inner):
        self.inner, self.reads = inner, []

    def read(self, index):
        self.reads.append(index)
        return self.inner.read(index)

    def stamp(self, index):
        return self.inner.stamp(index)


def photos(folder: Path, count: int = 6) -> Path:
    for i in range(count):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(i, 4 + i, 5)))
        os.utime(path, (OLD, OLD))
    return folder


def counted(folder: Path) -> tuple[Source, CountingReader]:
    source = open_source(folder)
    source.reader = reader = CountingReader(source.reader)
    return source, reader


def test_hash_and_size_of_each_image() -> None:
    files = [encoded(noise(i, 3 + i, 9)) for i in range(4)]
    result = inspect(listed(files))
    assert result.content_hash == [hashlib.blake2b(data, digest_size=16).digest() for data in files]
    assert result.heights.tolist() == [3, 4, 5, 6]
    assert result.widths.tolist() == [9] * 4
    assert result.usable.all()
    assert result.left_out == []


def test_the_hash_of_an_array_knows_its_shape() -> None:
    pixels = noise(0, 4, 6)
    assert content_hash(pixels) == content_hash(pixels.copy())
    assert content_hash(pixels) == content_hash(np.asfortranarray(pixels))
    assert content_hash(pixels) != content_hash(pixels.reshape(6, 4, 3))
    assert content_hash(pixels) != content_hash(pixels.tobytes())


def test_no_pixel_is_decoded() -> None:
    whole = encoded(noise(0, 40, 40), "JPEG")
    result = inspect(listed([whole[: len(whole) // 2]], names=["cut.jpg"]))  # the header is there, the pixels are not
    assert result.usable.tolist() == [True]
    assert (result.widths[0], result.heights[0]) == (40, 40)


def huge_png() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def test_what_gives_no_image_is_named_with_its_reason(gone) -> None:
    items = [
        encoded(noise(0)),
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"<html>not found</html>",
        huge_png(),
        gone,
    ]
    result = inspect(listed(items))
    assert result.usable.tolist() == [True, False, False, False, False, False]
    reasons = {item.file: item.reason for item in result.left_out}
    assert reasons["1.png"] == "empty file"
    assert "LFS" in reasons["2.png"]
    assert reasons["3.png"] == "not an image"
    assert "60000×60000" in reasons["4.png"]
    assert reasons["5.png"] == gone.reason
    assert result.widths.tolist() == [8, 0, 0, 0, 0, 0]
    assert result.content_hash[5] == b""


def test_a_misnamed_image_is_used_and_named() -> None:
    png, jpeg = encoded(noise(0)), encoded(noise(1), "JPEG")
    result = inspect(listed([png, png, jpeg, jpeg, png], names=["a.png", "b.jpg", "c.JPEG", "d.gif", "e.data"]))
    assert result.usable.all()
    assert result.misnamed == [
        LeftOut("b.jpg", "is PNG"),
        LeftOut("d.gif", "is JPEG"),
    ]


def test_results_are_in_the_order_of_the_source() -> None:
    count = 3 * module._CHUNK + 5
    images = [np.full((1, 1 + i % 300, 3), i % 256, np.uint8) for i in range(count)]
    result = inspect(listed(images))
    assert result.widths.tolist() == [1 + i % 300 for i in range(count)]


def test_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    source, reader = counted(photos(tmp_path / "photos"))
    first = inspect(source)
    assert sorted(reader.reads) == list(range(6))
    reader.reads.clear()
    again = inspect(source)
    assert reader.reads == []
    assert again.content_hash == first.content_hash
    assert again.heights.tolist() == first.heights.tolist()

    changed = tmp_path / "photos" / source.names[2]
    changed.write_bytes(encoded(noise(99, 30, 30)))
    os.utime(changed, (OLD + 5, OLD + 5))
    third = inspect(source)
    assert reader.reads == [2]
    assert third.heights[2] == 30
    assert third.content_hash[2] != first.content_hash[2]


def test_a_bad_file_is_remembered_with_its_reason(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "a" / "bad.png").write_bytes(b"no image")
    os.utime(folder / "a" / "bad.png", (OLD, OLD))
    source, reader = counted(folder)
    first = inspect(source)
    reader.reads.clear()
    assert inspect(source).left_out == first.left_out == [LeftOut("a/bad.png", "not an image")]
    assert reader.reads == []


def test_a_file_written_just_now_is_read_again(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    source, reader = counted(folder)
    (folder / source.names[3]).write_bytes(encoded(noise(77)))
    inspect(source)
    reader.reads.clear()
    inspect(source)
    assert reader.reads == [3]  # it could change once more within the clock's resolution


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": 99, "names": []}'])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, own_cache: Path, content: str) -> None:
    source, reader = counted(photos(tmp_path / "photos"))
    first = inspect(source)
    (manifest,) = (own_cache / "manifests").iterdir()
    manifest.write_text(content)
    reader.reads.clear()
    assert inspect(source).content_hash == first.content_hash
    assert len(reader.reads) == 6
    reader.reads.clear()
    inspect(source)
    assert reader.reads == []


def test_forget(tmp_path: Path) -> None:
    source, reader = counted(photos(tmp_path / "photos"))
    inspect(source)
    forget(source)
    reader.reads.clear()
    inspect(source)
    assert len(reader.reads) == 6


def test_without_a_cache_folder_the_result_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = counted(photos(tmp_path / "photos"))
    expected = inspect(source).content_hash
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WELLFIT_CACHE", str(tmp_path / "file"))
    assert inspect(source).content_hash == expected

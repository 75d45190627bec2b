"""Archives: the same listing as the folder, and nothing unsafe."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import stat
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.data.sources.conftest import counts, png
from wellfit.data.headers import Undecodable
from wellfit.data.sources import open_source
from wellfit.data.sources.archive import ArchiveReader, list_members
from wellfit.errors import UserError

FILES = {
    name: png(seed)
    for seed, name in enumerate(
        f"{split}/{label}/{i}.png" for split in ("train", "test") for label in ("ant", "bee") for i in range(3)
    )
}
KINDS = ["photos.zip", "stored.zip", "photos.tar", "photos.tar.gz", "photos.tgz", "photos.tar.bz2", "photos.tar.xz"]


def pack(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        method = zipfile.ZIP_STORED if path.name.startswith("stored") else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("prefix", ["", "top/", "./", "ünï cödé/"])
def test_the_same_as_the_folder(name: str, prefix: str, tmp_path: Path) -> None:
    extra = {f"{prefix}train/.DS_Store": b"x", f"__MACOSX/{prefix}train/ant/._0.png": b"x", f"{prefix}readme.txt": b"x"}
    path = pack(tmp_path / name, {**{prefix + k: v for k, v in FILES.items()}, **extra})
    root = tmp_path / "unpacked"
    for file, data in FILES.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(data)
    folder, archive = open_source(root), open_source(path)
    assert archive.kind == "archive"
    assert [n.removeprefix(prefix.removeprefix("./")) for n in archive.names] == folder.names
    assert (archive.labels, archive.splits) == (folder.labels, folder.splits)
    assert [archive.reader.read(i) for i in range(12)] == [folder.reader.read(i) for i in range(12)]
    assert archive.reader.stamp(0) == (len(folder.reader.read(0)), path.stat().st_mtime_ns)
    assert not list(tmp_path.rglob("*.png.*"))


def test_reader_in_threads_and_pickled(tmp_path: Path) -> None:
    files = {f"{c}/{i}.png": png(i + 100 * (c == "bee"), 20) for c in ("ant", "bee") for i in range(50)}
    for name in ("photos.zip", "photos.tar"):
        reader = pickle.loads(pickle.dumps(open_source(pack(tmp_path / name, files)).reader))
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(reader.read, list(range(100)) * 5)) == [files[k] for k in sorted(files)] * 5


def test_reading_without_pread_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.pread", raising=False)
    reader = open_source(pack(tmp_path / "photos.tar", FILES)).reader
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(reader.read, list(range(12)) * 20)) == [FILES[k] for k in sorted(FILES)] * 20


def test_the_later_of_two_members_with_one_name_holds(tmp_path: Path) -> None:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in [("ant/1.png", b"old"), ("bee/1.png", b"bee"), ("ant/1.png", b"new!")]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    source = open_source(path)
    assert source.names == ["ant/1.png", "bee/1.png"]
    assert source.reader.read(0) == b"new!"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "ant/../../evil.png", "C:\\evil.png", "ant\\..\\evil.png"]
)
def test_paths_that_leave_the_folder_refuse_the_archive(kind: str, name: str, tmp_path: Path) -> None:
    path = pack(tmp_path / f"photos.{kind}", {**FILES, name: b"x"})
    with pytest.raises(UserError, match=r"is refused because its member '.*evil.png' is a path that leaves the folder"):
        open_source(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_refuse_a_tar(kind: bytes, tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.tar", FILES)
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("train/ant/link.png")
        info.type, info.linkname = kind, "../../../../etc/passwd"
        archive.addfile(info)
    with pytest.raises(UserError, match=r"member 'train/ant/link.png' is a link"):
        open_source(path)


def test_links_refuse_a_zip(tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.zip", FILES)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("train/ant/link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match=r"member 'train/ant/link.png' is a link"):
        open_source(path)


def test_an_encrypted_zip_and_a_rare_method_are_named(tmp_path: Path) -> None:
    path = pack(tmp_path / "stored.zip", {"ant/1.png": b"xy", "bee/1.png": b"xy"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="is encrypted"):
        open_source(path)
    with zipfile.ZipFile(tmp_path / "rare.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("ant/1.png", b"xy")
    with pytest.raises(UserError, match="zip method 12"):
        open_source(tmp_path / "rare.zip")


@pytest.mark.parametrize("name", KINDS)
def test_a_cut_archive_is_one_sentence(name: str, tmp_path: Path) -> None:
    path = pack(tmp_path / name, FILES)
    data = path.read_bytes()
    for share in (0.5, 0.9) if path.suffix != ".tar" else (0.3,):
        path.write_bytes(data[: int(len(data) * share) - 7])
        with pytest.raises(UserError, match="is damaged") as caught:
            open_source(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_what_only_calls_itself_an_archive(name: str, tmp_path: Path) -> None:
    for content in (b"", b"<html>not found</html>", bytes(700)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError):
            open_source(tmp_path / name)


def test_a_damaged_header_in_the_middle_of_a_tar_is_not_taken_for_its_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.tar", FILES)
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        at = archive.getmembers()[5].offset
    data[at + 148 : at + 156] = b"7777777\0"  # the checksum field
    path.write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        open_source(path)


def test_a_damaged_member_is_undecodable_and_the_others_are_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "stored.zip", FILES)
    data = bytearray(path.read_bytes())
    data[data.index(FILES["test/ant/1.png"]) + 30] ^= 0xFF
    path.write_bytes(data)
    source = open_source(path)
    broken = source.names.index("test/ant/1.png")
    for i, name in enumerate(source.names):
        if i == broken:
            with pytest.raises(Undecodable, match="checksum"):
                source.reader.read(i)
        else:
            assert source.reader.read(i) == FILES[name]


def test_the_suffix_may_be_wrong_about_the_compression(tmp_path: Path) -> None:
    plain = pack(tmp_path / "photos.tar", FILES)
    for squeeze in (gzip, bz2, lzma):
        (tmp_path / "misnamed.tar").write_bytes(squeeze.compress(plain.read_bytes()))
        assert len(open_source(tmp_path / "misnamed.tar")) == 12


def test_an_archive_that_is_gone_later_is_undecodable(tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.zip", FILES)
    reader = ArchiveReader(list_members(path))
    path.unlink()
    with pytest.raises(Undecodable, match="cannot be read from the archive"):
        reader.read(0)


def test_ants_and_bees(real_data: Path) -> None:
    source = open_source(real_data / "ants-bees.tar")
    assert (source.splits.count("train"), source.splits.count("test")) == (245, 153)
    assert [f.id for f in source.findings] == ["val-kept-as-test"]
    assert counts(source.labels) == {"ants": 194, "bees": 204}
    assert "ants_bees/train/ants/imageNotFound.gif" in source.names
    assert source.reader.read(source.names.index("ants_bees/train/ants/imageNotFound.gif")).startswith(b"GIF8")
    assert source.left_out == []


def test_sixty_thousand_members(real_data: Path) -> None:
    source = open_source(real_data / "cifar10-jpg.tar.gz")
    assert (source.splits.count("train"), source.splits.count("test")) == (50_000, 10_000)
    assert set(counts(source.labels).values()) == {6000}
    assert source.findings == []
    for index in range(0, 60_000, 997):
        data = source.reader.read(index)
        assert data.startswith(b"\xff\xd8\xff")
        assert data.endswith(b"\xff\xd9")

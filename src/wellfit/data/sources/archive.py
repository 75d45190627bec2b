""".zip and .tar archives of class folders, read in place: no member is ever written to the file system.

A compressed tar has no places to jump to, so it is unpacked once into a plain tar in the cache folder. An archive with
an absolute path, a "..", a link or a device in it is refused as a whole.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wellfit.data.headers import Undecodable
from wellfit.data.sources.cache import check_unpacked
from wellfit.data.sources.layout import arrange, is_stray
from wellfit.data.sources.source import Source
from wellfit.data.sources.tar_index import plain_index
from wellfit.data.sources.unpacked import is_compressed, unpacked_tar
from wellfit.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")

_UNSAFE = re.compile(r"^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)")
_ZIP_LOCAL_HEADER = 30


@dataclass(frozen=True)
class Members:
    """The regular files of an archive.

    path: the file to read from; names: one a member; mtime_ns: the archive's own.
    table: int64, one row a member: offset of its data (tar) or of its local header (zip), bytes there, bytes unpacked,
    zip method (0 or 8), CRC-32 of the unpacked bytes (0 in a tar, which has none).
    """

    path: str
    names: list[str]
    table: np.ndarray
    is_zip: bool
    mtime_ns: int

    def chosen(self, rows: list[int]) -> Members:
        return replace(self, names=[self.names[i] for i in rows], table=self.table[np.asarray(rows, np.int64)])


class ArchiveReader:
    """Reads members by offset. One descriptor, opened on first use, shared by all threads of a process."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self._descriptor: int | None = None
        self._lock = threading.Lock()

    def read(self, index: int) -> bytes:
        offset, packed, size, method, crc = self.members.table[index].tolist()
        try:
            if not self.members.is_zip:
                return self._complete(offset, size)
            header = self._complete(offset, _ZIP_LOCAL_HEADER)
            if header[:4] != b"PK\x03\x04":
                raise Undecodable("damaged in the archive")
            name_length, extra_length = struct.unpack_from("<HH", header, 26)
            data = self._complete(offset + _ZIP_LOCAL_HEADER + name_length + extra_length, packed)
        except OSError as error:
            raise Undecodable(f"cannot be read from the archive ({error.strerror or error})") from None
        if method == zipfile.ZIP_DEFLATED:
            data = _inflate(data, size)
        if zlib.crc32(data) != crc:
            raise Undecodable("damaged in the archive (checksum)")
        return data

    def stamp(self, index: int) -> tuple[int, int]:
        return int(self.members.table[index, 2]), self.members.mtime_ns

    def _complete(self, offset: int, length: int) -> bytes:
        data = self._at(offset, length)
        if len(data) != length:
            raise Undecodable("truncated in the archive")
        return data

    def _at(self, offset: int, length: int) -> bytes:
        if self._descriptor is None:
            with self._lock:
                if self._descriptor is None:
                    self._descriptor = os.open(self.members.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, length, offset)
        with self._lock:  # Windows: one position for all threads
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, length)

    def __reduce__(self) -> tuple[type[ArchiveReader], tuple[Members]]:
        return ArchiveReader, (self.members,)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def archive_source(members: Members, location: str) -> Source:
    """Class folders inside an archive. location: what the user gave, for messages."""
    # In the order of a folder's listing; of two members with one name the later one holds, as tar has it.
    usable = [i for name, i in sorted({name: i for i, name in enumerate(members.names)}.items()) if not is_stray(name)]
    layout = arrange([members.names[i] for i in usable], location)
    chosen = members.chosen([usable[row] for row in layout.rows])
    return Source(
        location=location,
        kind="archive",
        names=chosen.names,
        labels=layout.labels,
        splits=layout.splits,
        groups=None,
        reader=ArchiveReader(chosen),
        left_out=layout.left_out,
    )


def list_members(path: Path) -> Members:
    """Index an archive, whatever its suffix says it is.

    Raises UserError for a damaged archive, one that is none, and one with a member that is not safe: an absolute path,
    a "..", a drive letter, a link, a device.
    """
    with path.open("rb") as file:
        start = file.read(8)
    try:
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return _list_zip(path)
        plain = unpacked_tar(path) if is_compressed(start) else path
        return _list_tar(plain, path)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, struct.error, ValueError) as error:
        raise UserError(
            f"the archive '{path}' is damaged, cut short, or no archive ({error}); fetch it again"
        ) from None


def _list_zip(path: Path) -> Members:
    names, rows = [], []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = _safe(info.filename.replace("\\", "/"), path)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unsafe(info.filename, "a link or a device", path)
            if name.endswith("/") or info.is_dir():
                continue
            if info.flag_bits & 1:
                raise UserError(f"'{path}' is encrypted ('{name}'); unpack it yourself and give the folder")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(
                    f"'{path}' packs '{name}' by zip method {info.compress_type}, but only stored and deflated members "
                    "are read; unpack it yourself and give the folder"
                )
            names.append(name)
            rows.append((info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC))
    table = np.asarray(rows, np.int64).reshape(len(rows), 5)
    status = path.stat()
    check_unpacked(int(table[:, 2].sum()), status.st_size, str(path))
    return Members(str(path.resolve()), names, table, is_zip=True, mtime_ns=status.st_mtime_ns)


def _list_tar(plain: Path, path: Path) -> Members:
    names, rows = [], []
    index = plain_index(plain)
    if index is not None:
        for written, (offset, size) in zip(*index, strict=True):
            name = _safe(written, path)
            if offset >= 0:
                names.append(name)
                rows.append((offset, size, size, 0, 0))
        return _tar_members(plain, path, names, rows)
    with plain.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            name = _safe(info.name, path)
            if info.isdir():
                continue
            if not info.isreg() or info.sparse is not None:
                raise _unsafe(info.name, "a link, a device or a sparse file", path)
            names.append(name)
            rows.append((info.offset_data, info.size, info.size, 0, 0))
        file.seek(archive.offset)
        if any(file.read(tarfile.BLOCKSIZE)):  # tarfile takes a damaged header for the end
            raise tarfile.ReadError(f"bad header at byte {archive.offset}")
    return _tar_members(plain, path, names, rows)


def _tar_members(plain: Path, path: Path, names: list[str], rows: list[tuple[int, int, int, int, int]]) -> Members:
    table = np.asarray(rows, np.int64).reshape(len(rows), 5)
    return Members(str(plain.resolve()), names, table, is_zip=False, mtime_ns=path.stat().st_mtime_ns)


def _safe(name: str, path: Path) -> str:
    if _UNSAFE.search(name):
        raise _unsafe(name, "a path that leaves the folder", path)
    if "./" in name or "//" in name:
        tail = "/" if name.endswith("/") else ""
        return "/".join(part for part in name.split("/") if part not in ("", ".")) + tail
    return name


def _unsafe(name: str, what: str, path: Path) -> UserError:
    return UserError(
        f"the archive '{path}' is refused because its member '{name}' is {what}; "
        "make an archive of plain files, or give a folder"
    )


def _inflate(data: bytes, size: int) -> bytes:
    try:
        unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error:
        raise Undecodable("damaged in the archive") from None
    if len(unpacked) != size:
        raise Undecodable("damaged in the archive")
    return unpacked

"""A first look at every image: its bytes and its header, no pixel decoded, the test split included (SPEC D5).

What was seen is kept in the cache folder, keyed by name, size and modification time, so that data which did not
change are not read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from wellfit.cores import usable_cores
from wellfit.data.headers import Header, Undecodable, sniff
from wellfit.data.sources import LeftOut, Source
from wellfit.data.sources.cache import cache_folder
from wellfit.record import write_atomically

HASH_BYTES = 16
MANIFEST_VERSION = 1
# A file changed twice within its clock's resolution (2 s on FAT) can keep its size and time: too fresh to be trusted.
_SETTLED_NS = 2_000_000_000
_CHUNK = 256
_FILE_KINDS = ("folder", "archive", "manifest")

_FORMAT_OF_SUFFIX = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    ".png": "PNG",
    ".gif": "GIF",
    ".webp": "WEBP",
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
}


@dataclass
class Inspection:
    """What bytes and headers say of each of the N images of a source.

    usable: bool N; False where no image can come of it, reason in `left_out`.
    widths, heights: int64 N, pixels as stored (before an EXIF turn); 0 where not usable.
    content_hash: N times 16 bytes, equal where files (or the pixels of arrays) are byte-identical; b"" where unread.
    left_out: the images that are not usable, in order.
    misnamed: usable images whose suffix names another format than the bytes do.
    """

    usable: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    content_hash: list[bytes]
    left_out: list[LeftOut]
    misnamed: list[LeftOut] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.content_hash)


class _Seen(NamedTuple):
    """One image's stamp and what its bytes said. digest: b"" where it could not be read; reason: "" where usable."""

    size: int
    mtime: int
    digest: bytes
    format: str
    width: int
    height: int
    reason: str


def inspect(source: Source) -> Inspection:
    """Hash the bytes and read the header of every image of `source`, from several threads. Nothing is decoded.

    Unreadable files, empty ones, Git LFS pointers, what is no image and what is above the pixel limit are left out by
    name. Reads only what changed since the last time where the source is a folder, an archive or a manifest.
    """
    path = _manifest_path(source)
    known = _load(path) if path else None
    started = time.time_ns()
    seen = _look(source, known)
    if path and known != dict(zip(source.names, seen, strict=True)):
        _save(path, source.names, seen, started - _SETTLED_NS)
    return Inspection(
        usable=np.array([not entry.reason for entry in seen], dtype=bool),
        widths=np.array([entry.width for entry in seen], dtype=np.int64),
        heights=np.array([entry.height for entry in seen], dtype=np.int64),
        content_hash=[entry.digest for entry in seen],
        left_out=[LeftOut(n, e.reason) for n, e in zip(source.names, seen, strict=True) if e.reason],
        misnamed=[
            LeftOut(n, f"is {e.format}")
            for n, e in zip(source.names, seen, strict=True)
            if not e.reason and _misnamed(n, e.format)
        ],
    )


def content_hash(data: bytes | np.ndarray) -> bytes:
    """16 bytes (BLAKE2b) that name the content: of the file, or of the shape and pixels of an array."""
    if isinstance(data, bytes):
        return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()
    digest = hashlib.blake2b(f"pixels {data.shape}".encode(), digest_size=HASH_BYTES)
    digest.update(np.ascontiguousarray(data).data)
    return digest.digest()


def forget(source: Source) -> None:
    """Drop what the cache holds of this source: a file's bytes changed under an unchanged size and time."""
    if path := _manifest_path(source):
        with contextlib.suppress(OSError):
            path.unlink()


def _look(source: Source, known: dict[str, _Seen] | None) -> list[_Seen]:
    def part(start: int) -> list[_Seen]:
        return [_look_at(source, i, known) for i in range(start, min(start + _CHUNK, len(source.names)))]

    with ThreadPoolExecutor(min(8, 2 * usable_cores()), "wellfit-inspect") as pool:
        return [entry for entries in pool.map(part, range(0, len(source.names), _CHUNK)) for entry in entries]


def _look_at(source: Source, index: int, known: dict[str, _Seen] | None) -> _Seen:
    size = mtime = 0
    try:
        if known is not None:  # the stamp first: a file that changes before it is read will not match its stamp
            size, mtime = source.reader.stamp(index)
            entry = known.get(source.names[index])
            if entry is not None and (entry.size, entry.mtime) == (size, mtime):
                return entry
        data = source.reader.read(index)
    except Undecodable as error:
        return _Seen(size, mtime, b"", "", 0, 0, error.reason)
    digest = content_hash(data)
    try:
        header = sniff(data) if isinstance(data, bytes) else _array_header(data)
    except Undecodable as error:
        return _Seen(size, mtime, digest, "", 0, 0, error.reason)
    return _Seen(size, mtime, digest, header.format, header.width, header.height, "")


def _array_header(pixels: np.ndarray) -> Header:
    if pixels.ndim < 2 or not pixels.size:
        raise Undecodable("no pixels")
    return Header("pixels", pixels.shape[1], pixels.shape[0])


def _misnamed(name: str, format_: str) -> bool:
    expected = _FORMAT_OF_SUFFIX.get(PurePosixPath(name).suffix.lower())
    return expected is not None and format_ != "pixels" and expected != format_


def _manifest_path(source: Source) -> Path | None:
    if source.kind not in _FILE_KINDS or not Path(source.location).is_absolute():
        return None
    name = hashlib.blake2b(source.location.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return cache_folder() / "manifests" / f"{name}.json"


def _load(path: Path) -> dict[str, _Seen]:
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["version"] != MANIFEST_VERSION:
            return {}
        reasons = {int(row): reason for row, reason in saved["reasons"].items()}
        columns = [saved[key] for key in ("names", "sizes", "mtimes", "hashes", "formats", "widths", "heights")]
        return {
            name: _Seen(size, mtime, bytes.fromhex(digest), format_, width, height, reasons.get(row, ""))
            for row, (name, size, mtime, digest, format_, width, height) in enumerate(zip(*columns, strict=True))
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, or damaged: it is made anew
        return {}


def _save(path: Path, names: list[str], seen: list[_Seen], settled: int) -> None:
    kept = {n: e for n, e in zip(names, seen, strict=True) if e.digest and e.mtime < settled}
    content = {
        "version": MANIFEST_VERSION,
        "names": list(kept),
        "sizes": [e.size for e in kept.values()],
        "mtimes": [e.mtime for e in kept.values()],
        "hashes": [e.digest.hex() for e in kept.values()],
        "formats": [e.format for e in kept.values()],
        "widths": [e.width for e in kept.values()],
        "heights": [e.height for e in kept.values()],
        "reasons": {row: e.reason for row, e in enumerate(kept.values()) if e.reason},
    }
    with contextlib.suppress(OSError):  # without this cache the next look is slower, nothing else
        write_atomically(path, json.dumps(content))

"""A compressed tar as a plain one: unpacked once into the cache folder, found there by every later run."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import lzma
import os
import tempfile
import zlib
from pathlib import Path
from typing import IO

from wellfit.data.sources.cache import cache_folder, check_unpacked
from wellfit.errors import UserError

_CHUNK = 1 << 20
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")  # gzip, bzip2, xz


def is_compressed(start: bytes) -> bool:
    """Whether these first bytes are of a gzip, bzip2 or xz file."""
    return start.startswith(_MAGIC)


def unpacked_tar(path: Path) -> Path:
    """The plain tar for a compressed one, made where it is missing: written aside, renamed, one process at a time.

    Raises UserError for damaged data, above the limits of `cache.check_unpacked`, and for a cache folder that cannot
    be written.
    """
    import filelock

    status = path.stat()
    whose = hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()
    which = hashlib.blake2b(f"{status.st_size}:{status.st_mtime_ns}".encode(), digest_size=8).hexdigest()
    folder = cache_folder() / "archives"
    target = folder / f"{whose}-{which}.tar"
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(str(folder / f"{whose}.lock")):
            if not target.is_file():
                _unpack(path, target, status.st_size)
                for old in folder.glob(f"{whose}-*.tar"):
                    if old != target:
                        with contextlib.suppress(OSError):  # another process may still read it
                            old.unlink()
    except OSError as error:
        what = "is full" if error.errno == errno.ENOSPC else f"cannot be written ({error.strerror or error})"
        raise UserError(
            f"'{path}' is unpacked once into the cache folder '{folder}', which {what}; "
            "make room, or name another folder with WELLFIT_CACHE"
        ) from None
    return target


def _unpack(path: Path, target: Path, packed: int) -> None:
    handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as out, path.open("rb") as raw:
            with _decompressed(raw) as stream:
                _copy(stream, out, packed, str(path))
            out.flush()
            os.fsync(out.fileno())
        Path(aside).replace(target)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _decompressed(raw: IO[bytes]) -> gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile:
    start = raw.read(8)
    raw.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw, mode="rb")
    return bz2.BZ2File(raw) if start.startswith(b"BZh") else lzma.LZMAFile(raw)


def _copy(stream: gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile, out: IO[bytes], packed: int, location: str) -> None:
    written = 0
    while True:
        try:
            chunk = stream.read(_CHUNK)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError) as error:
            raise _damaged(location, error) from None
        except OSError as error:
            if error.errno is None:  # bz2 and gzip say "invalid data" this way
                raise _damaged(location, error) from None
            raise
        if not chunk:
            return
        written += len(chunk)
        check_unpacked(written, packed, location)
        out.write(chunk)


def _damaged(location: str, error: Exception) -> UserError:
    return UserError(f"the archive '{location}' is damaged or cut short ({error}); fetch it again")

"""The regular files of a plain tar, read off its headers (POSIX.1-1988 ustar, and GNU's as far as it is the same).

tarfile makes an object of every member, which takes longer than decoding a 32-pixel JPEG. Here the chain of headers is
walked by their sizes, and they are checked some thousand at once. Anything but plain files and folders with names in
their headers is left to tarfile.
"""

from __future__ import annotations

import mmap
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_BLOCK = tarfile.BLOCKSIZE
_NAME, _SIZE, _CHECKSUM, _KIND, _PREFIX = 0, 124, 148, 156, 345
_DIGITS = frozenset(range(0x30, 0x38))
_AT_ONCE = 4096  # headers, 2 MB


class _NotPlain(Exception):
    """tarfile has to read this one."""


def plain_index(path: Path) -> tuple[list[str], list[tuple[int, int]]] | None:
    """Names of all members as tarfile gives them, and (offset of the data, bytes); a folder is (-1, 0).

    None where tarfile has to read the archive: other kinds of members, long names, anything damaged or cut short.
    """
    names: list[str] = []
    places: list[tuple[int, int]] = []
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        if length < 2 * _BLOCK:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
            try:
                for blocks, heads in _chunks(held, length):
                    _add(blocks, heads, names, places)
            except _NotPlain:
                return None
    return (names, places) if names else None


def _chunks(held: mmap.mmap, length: int) -> Iterator[tuple[list[bytes], list[tuple[int, int]]]]:
    """Headers up to the block of zeros, and (offset, bytes of data) of each; _NotPlain where the chain breaks."""
    blocks: list[bytes] = []
    heads: list[tuple[int, int]] = []
    at = 0
    while at + _BLOCK <= length:
        block = held[at : at + _BLOCK]
        digits = block[_SIZE : _SIZE + 12]
        if digits == bytes(12):
            if any(block):
                raise _NotPlain
            yield blocks, heads
            return
        digits = digits.rstrip(b" \0")
        if not digits or not _DIGITS.issuperset(digits):
            raise _NotPlain
        size = int(digits, 8)
        blocks.append(block)
        heads.append((at, size))
        if len(blocks) == _AT_ONCE:
            yield blocks, heads
            blocks, heads = [], []
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    raise _NotPlain


def _add(blocks: list[bytes], heads: list[tuple[int, int]], names: list[str], places: list[tuple[int, int]]) -> None:
    """Name and place of each member, once its header is found sound."""
    if not _sound(np.frombuffer(b"".join(blocks), np.uint8).reshape(-1, _BLOCK)):
        raise _NotPlain
    for block, (head, size) in zip(blocks, heads, strict=True):
        folder = block[_KIND] == ord("5")
        name, prefix = _text(block[_NAME : _NAME + 100]), _text(block[_PREFIX : _PREFIX + 155])
        if (folder and size) or (block[_KIND] == 0 and name.endswith("/")):
            raise _NotPlain
        name = f"{prefix}/{name}" if prefix else name
        names.append(name.rstrip("/") if folder else name)
        places.append((-1, 0) if folder else (head + _BLOCK, size))


def _sound(blocks: np.ndarray) -> bool:
    """Whether all N×512 headers are of plain files or folders and bear their checksums out."""
    if not np.isin(blocks[:, _KIND], (0, ord("0"), ord("5"))).all():
        return False
    sums = blocks.sum(axis=1, dtype=np.int64) - blocks[:, _CHECKSUM : _CHECKSUM + 8].sum(axis=1, dtype=np.int64)
    written = [bytes(field).strip(b" \0") for field in blocks[:, _CHECKSUM : _CHECKSUM + 8]]
    if not all(digits and _DIGITS.issuperset(digits) for digits in written):
        return False
    return bool((sums + 8 * ord(" ") == [int(digits, 8) for digits in written]).all())


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(tarfile.ENCODING, "surrogateescape")

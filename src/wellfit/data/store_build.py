"""Decodes images into the three files of a pixel store, shard by shard, so that a kill loses at most two shards.

pixels.bin       the images one after another, each H×W×3 uint8
index.bin        one row an image: height, width, bytes in pixels.bin (int64)
thumbnails.bin   one 16×16×3 uint8 an image
store.json       the mark: rows and bytes that are whole, what could not be decoded; replaced after every shard
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from wellfit.cores import usable_cores
from wellfit.data.decode import Undecodable, decode
from wellfit.data.inspect import Inspection, content_hash
from wellfit.data.sources import Reader, Source
from wellfit.data.sources.arrays import ArrayReader
from wellfit.data.sources.source import Rows
from wellfit.data.thumbnails import SIDE, thumbnails, uniform_thumbnails
from wellfit.record import write_atomically

STORE_VERSION = 4
SHARD_BYTES = 64 * 1000**2
SHARD_IMAGES = 16384
THUMBNAIL_BYTES = SIDE * SIDE * 3
_PART_BYTES = 1_000_000  # decoded by one thread at a time; bounds what waits in memory
_PART_IMAGES = 128
_PADDING_LIMIT = 4_000_000

Progress = Callable[[int, int], None]


@dataclass
class Mark:
    """What of a store is whole. rows of `images` are done; they take pixel_bytes.

    failures: why a row has no pixels. unread: some of it is the reading's fault, and may be better another time.
    """

    images: int
    rows: int = 0
    pixel_bytes: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    unread: bool = False

    @property
    def finished(self) -> bool:
        return self.rows == self.images


@dataclass
class _Part:
    """Decoded rows. index: n×3 int64; pixels: blocks of bytes in order."""

    pixels: list[np.ndarray]
    index: np.ndarray
    thumbnails: np.ndarray
    failures: dict[int, str] = field(default_factory=dict)
    unread: bool = False


def read_mark(folder: Path) -> Mark | None:
    """The mark of a store, or None where there is none that this version wrote and the files bear out."""
    try:
        saved = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        if saved["version"] != STORE_VERSION:
            return None
        failures = {int(row): str(reason) for row, reason in saved["failures"].items()}
        mark = Mark(saved["images"], saved["rows"], saved["pixel_bytes"], failures, saved["unread"])
        sizes = {name: (folder / name).stat().st_size for name in _whole(mark)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    for name, whole in _whole(mark).items():
        if sizes[name] < whole or (mark.finished and sizes[name] != whole):
            return None
    return mark


def planned_bytes(inspection: Inspection, indices: np.ndarray, short_side: int) -> np.ndarray:
    """Bytes that each image takes once decoded and reduced, as its header says; int64."""
    width, height = inspection.widths[indices], inspection.heights[indices]
    short = np.maximum(np.minimum(width, height), 1)
    scale = np.minimum(1.0, short_side / short)
    sides = [
        np.where(short <= short_side, side, np.maximum(short_side, np.rint(side * scale))) for side in (width, height)
    ]
    return (3 * sides[0] * sides[1]).astype(np.int64)


def store_bytes(planned: np.ndarray) -> int:
    """Bytes of a whole store's files."""
    return int(planned.sum()) + len(planned) * (THUMBNAIL_BYTES + 24)


def build(
    folder: Path,
    mark: Mark,
    source: Source,
    inspection: Inspection,
    indices: np.ndarray,
    short_side: int,
    progress: Progress | None = None,
) -> Mark:
    """Decode the rows that `mark` lacks and append them; the mark of the finished store.

    Memory in use is bounded by the images in flight, whatever their number. progress(done, total) after every part.
    """
    planned = planned_bytes(inspection, indices, short_side)
    names = list(_whole(mark))
    files: dict[str, IO[bytes]] = {}
    catching_up = Future[None]()
    catching_up.set_result(None)
    with ExitStack() as opened:
        for name in names:
            files[name] = opened.enter_context((folder / name).open("ab", buffering=1 << 20))
            files[name].truncate(_whole(mark)[name])
        # A slow disk catches up with one shard while the next is decoded; what it writes is closed after it.
        disk = opened.enter_context(ThreadPoolExecutor(1, "wellfit-store"))
        unmarked_rows = unmarked_bytes = 0
        for part in _parts(source, inspection, indices, short_side, planned, mark.rows):
            for block in part.pixels:
                files["pixels.bin"].write(block.data)
            files["index.bin"].write(part.index.tobytes())
            files["thumbnails.bin"].write(part.thumbnails.tobytes())
            rows, size = len(part.index), int(part.index[:, 2].sum())
            mark = Mark(
                mark.images,
                mark.rows + rows,
                mark.pixel_bytes + size,
                mark.failures | part.failures if part.failures else mark.failures,
                mark.unread or part.unread,
            )
            unmarked_rows, unmarked_bytes = unmarked_rows + rows, unmarked_bytes + size
            if unmarked_bytes >= SHARD_BYTES or unmarked_rows >= SHARD_IMAGES or mark.finished:
                catching_up.result()
                for file in files.values():
                    file.flush()
                catching_up = disk.submit(_commit, folder, files, mark)
                unmarked_rows = unmarked_bytes = 0
            if progress:
                progress(mark.rows, mark.images)
        catching_up.result()
        if not mark.images:
            _commit(folder, files, mark)
    return mark


def _commit(folder: Path, files: dict[str, IO[bytes]], mark: Mark) -> None:
    # Pixels reach the disk before the mark that vouches for them.
    for file in files.values():
        os.fsync(file.fileno())
    write_atomically(folder / "store.json", json.dumps({"version": STORE_VERSION, **vars(mark)}))


def _whole(mark: Mark) -> dict[str, int]:
    return {"pixels.bin": mark.pixel_bytes, "index.bin": 24 * mark.rows, "thumbnails.bin": THUMBNAIL_BYTES * mark.rows}


def _parts(
    source: Source, inspection: Inspection, indices: np.ndarray, short_side: int, planned: np.ndarray, start: int
) -> Iterator[_Part]:
    """Decoded parts in order, a bounded number of them ahead."""
    positions = np.arange(start, len(indices))
    crossed = np.cumsum(planned[start:]) // _PART_BYTES
    cuts = np.flatnonzero((np.diff(crossed, prepend=-1) > 0) | ((positions - start) % _PART_IMAGES == 0)) + start
    bounds = [*cuts.tolist(), len(indices)]
    workers = min(16, usable_cores())
    waiting: deque[Future[_Part]] = deque()
    pool = ThreadPoolExecutor(workers, "wellfit-decode")
    try:
        for first, last in pairwise(bounds):
            waiting.append(pool.submit(_decode_part, source, inspection, indices, short_side, planned, first, last))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode_part(
    source: Source,
    inspection: Inspection,
    indices: np.ndarray,
    short_side: int,
    planned: np.ndarray,
    first: int,
    last: int,
) -> _Part:
    block = _array_block(source.reader, indices[first:last])
    if block is not None and min(block.shape[1:3]) <= short_side and bool(inspection.usable[indices[first:last]].all()):
        return _from_block(block)
    images, index, failures, unread = [], np.zeros((last - first, 3), np.int64), {}, False
    for row in range(first, last):
        pixels: np.ndarray | None = None
        try:
            data = _read(source, inspection, int(indices[row]))
        except Undecodable as error:
            failures[row], unread = error.reason, True
        else:
            try:
                pixels = decode(data, short_side)
            except Undecodable as error:
                failures[row] = error.reason
        if pixels is None:
            # Room is left for it, so that one bad file among equal-sized ones does not cost the plain N×H×W×3 view.
            size = int(planned[row]) if planned[row] <= _PADDING_LIMIT else 0
            images.append(np.zeros((0, 0, 3), np.uint8))
            index[row - first] = 0, 0, size
        else:
            images.append(pixels)
            index[row - first] = *pixels.shape[:2], pixels.size
    blocks = [
        image.reshape(-1) if image.size else np.zeros(size, np.uint8)
        for image, size in zip(images, index[:, 2].tolist(), strict=True)
    ]
    return _Part(blocks, index, thumbnails(images), failures, unread)


def _read(source: Source, inspection: Inspection, index: int) -> bytes | np.ndarray:
    """The image as it was inspected: the store is named by these contents. Undecodable where it is another by now."""
    data = source.reader.read(index)
    # Arrays are not held against their hash: a torch Dataset may well answer differently each time.
    if isinstance(data, bytes) and content_hash(data) != inspection.content_hash[index]:
        raise Undecodable("changed while the data were being read")
    return data


def _from_block(block: np.ndarray) -> _Part:
    if block.ndim == 3 or block.shape[3] == 1:
        block = np.repeat(block.reshape(*block.shape[:3], 1), 3, axis=3)
    block = np.ascontiguousarray(block)
    count, height, width, channels = block.shape
    index = np.tile(np.array([height, width, height * width * channels], np.int64), (count, 1))
    return _Part([block.reshape(-1)], index, uniform_thumbnails(block))


def _array_block(reader: Reader | Any, rows: np.ndarray) -> np.ndarray | None:
    """These images as one N×H×W or N×H×W×{1, 3} array, where they lie in one; else None."""
    if isinstance(reader, Rows):
        parts = reader.part[rows]
        if not len(parts) or (parts != parts[0]).any():
            return None
        return _array_block(reader.readers[int(parts[0])], reader.row[rows])
    if not isinstance(reader, ArrayReader) or reader.images.dtype != np.uint8:
        return None
    return reader.images[rows]

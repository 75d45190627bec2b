"""The pixel store: every image decoded once, memory-mapped uint8, shared by all runs, trials and workers.

A store is named by the contents of its images in their order, the short side they are reduced to, and the version of
what decodes them; the same data at another place find the same store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import weakref
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.data.inspect import Inspection, forget
from wellfit.data.sources import LeftOut, Source
from wellfit.data.store_build import STORE_VERSION, Mark, Progress, build, planned_bytes, read_mark, store_bytes
from wellfit.data.store_cache import Lease, lock_of, make_room, stores_folder, told
from wellfit.data.thumbnails import SIDE

__all__ = ["PixelStore", "build_store"]


class PixelStore:
    """Decoded images of a source, read-only. Row k is source index `indices[k]`. Can be pickled: a worker reopens it.

    indices: int64 n, the source index of each row; row_of: int64, the row of each source index, -1 where it has none.
    usable: bool n, False where decoding failed; left_out: these, with their reasons.
    thumbnails: uint8 n×16×16×3; content_hashes: one a row, as `Inspection` has them.
    """

    def __init__(self, folder: Path, indices: np.ndarray, source_size: int, names: Sequence[str], hashes: list[bytes]):
        mark = read_mark(folder)
        if mark is None or not mark.finished:
            raise FileNotFoundError(f"no finished pixel store in '{folder}'")
        self.folder, self.indices, self.content_hashes = folder, indices, hashes
        self._names = list(names)
        self._lease = Lease(folder)
        weakref.finalize(self, self._lease.release)
        self.row_of = np.full(source_size, -1, dtype=np.int64)
        self.row_of[indices] = np.arange(len(indices))
        index = np.fromfile(folder / "index.bin", dtype=np.int64).reshape(len(indices), 3)
        self._shapes = index[:, :2]
        self._offsets = np.concatenate([[0], np.cumsum(index[:, 2])])
        self._pixels = _mapped(folder / "pixels.bin", int(self._offsets[-1]))
        self.thumbnails = _mapped(folder / "thumbnails.bin", len(indices) * SIDE * SIDE * 3)
        self.thumbnails = self.thumbnails.reshape(len(indices), SIDE, SIDE, 3)
        self.usable = np.ones(len(indices), dtype=bool)
        self.usable[list(mark.failures)] = False
        self.left_out = [LeftOut(self._names[row], reason) for row, reason in sorted(mark.failures.items())]

    def __len__(self) -> int:
        return len(self.indices)

    def shape(self, row: int) -> tuple[int, int]:
        """(height, width) in pixels; (0, 0) where decoding failed."""
        height, width = self._shapes[row].tolist()
        return height, width

    @property
    def shapes(self) -> np.ndarray:
        """n×2 int64: height and width of every row."""
        return self._shapes

    def image(self, row: int) -> np.ndarray:
        """H×W×3 uint8, a read-only view of the file; 0×0×3 where decoding failed."""
        height, width = self._shapes[row].tolist()
        start = int(self._offsets[row])
        return self._pixels[start : start + height * width * 3].reshape(height, width, 3)

    def uniform(self) -> np.ndarray | None:
        """All rows as one n×H×W×3 view where the usable ones share a shape, else None. Rows not usable are black."""
        if not self.usable.any():
            return None
        height, width = self._shapes[int(np.argmax(self.usable))].tolist()
        same = (self._shapes[self.usable] == (height, width)).all()
        if not same or (np.diff(self._offsets) != height * width * 3).any():
            return None
        return self._pixels.reshape(len(self), height, width, 3)

    def __reduce__(self) -> tuple[type[PixelStore], tuple[Any, ...]]:
        return PixelStore, (self.folder, self.indices, len(self.row_of), self._names, self.content_hashes)


def build_store(
    source: Source,
    inspection: Inspection,
    indices: np.ndarray | Sequence[int],
    *,
    short_side: int,
    progress: Progress | None = None,
) -> PixelStore:
    """The pixel store of these images; decoded now, unless a finished store of the same contents is at hand.

    indices: which images of the source, each once; never those of a sealed test split before the final evaluation.
    short_side: pixels; the shorter side is reduced to it, aspect kept, never enlarged.
    progress: called with (rows done, rows in all) while decoding.

    A build that was killed goes on after its last whole shard; two processes that want the same store build it once.
    Raises UserError where the cache folder cannot be written or is too small (see `store_cache`).
    """
    if short_side < 1:
        raise ValueError(f"short_side is at least 1 pixel, got {short_side}")
    chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
    if len(np.unique(chosen)) != len(chosen):
        raise ValueError("each image is stored once, but some indices are repeated")
    hashes = [inspection.content_hash[i] for i in chosen.tolist()]
    folder = stores_folder() / _key(hashes, short_side)
    size = store_bytes(planned_bytes(inspection, chosen, short_side))
    with told(folder, size), lock_of(folder):
        mark = _usable_mark(folder, len(chosen))
        if not mark.finished or not mark.images:
            make_room(folder, size)
            mark = build(folder, mark, source, inspection, chosen, short_side, progress)
            if mark.unread:
                forget(source)
        with contextlib.suppress(OSError):
            os.utime(folder)  # last used now
        names = [source.names[i] for i in chosen.tolist()]
        return PixelStore(folder, chosen, len(source.names), names, hashes)


def _usable_mark(folder: Path, images: int) -> Mark:
    """The mark to go on from; a damaged store, or one with files that could not be read then, is begun anew."""
    mark = read_mark(folder)
    if mark is None or mark.images != images or mark.unread:
        if folder.exists():
            shutil.rmtree(folder)
        mark = Mark(images)
    folder.mkdir(parents=True, exist_ok=True)
    return mark


def _key(hashes: list[bytes], short_side: int) -> str:
    import PIL

    made_by = f"{STORE_VERSION} {PIL.__version__} {version('torch')} {short_side} {len(hashes)} "
    digest = hashlib.blake2b(made_by.encode(), digest_size=16)
    digest.update(b"".join(h or bytes(16) for h in hashes))
    return digest.hexdigest()


def _mapped(path: Path, size: int) -> np.ndarray:
    # An empty file cannot be mapped; a plain array's views are quicker to make than np.memmap's.
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r", shape=(size,))) if size else np.zeros(0, np.uint8)

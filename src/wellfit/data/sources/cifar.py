"""CIFAR-10 and CIFAR-100 as their authors publish them: Python pickles or flat binary files (Krizhevsky 2009)."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from wellfit.data.sources.arrays import text_list, to_labels
from wellfit.data.sources.packed import Part, Read
from wellfit.errors import UserError

_PIXELS = 3 * 32 * 32
_TEN_PYTHON = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
_TEN_BINARY = [f"{name}.bin" for name in _TEN_PYTHON]
_BATCHES = (
    (_TEN_PYTHON, "data_batch_1"),
    (_TEN_BINARY, "data_batch_1.bin"),
    (["train", "test"], "meta"),
    (["train.bin", "test.bin"], "train.bin"),
)
_KNOWN = frozenset(name for batches, sign in _BATCHES for name in (*batches, sign))
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def find_cifar(files: Sequence[str]) -> list[str]:
    """The batch files of a CIFAR set among these relative paths, one folder's only; [] where there is none."""
    folders: dict[str, set[str]] = {}
    for file in files:
        if file.rpartition("/")[2] not in _KNOWN:  # path objects of a whole data set take seconds
            continue
        path = PurePosixPath(file)
        if len(path.parts) <= 2:
            folders.setdefault(str(path.parent), set()).add(path.name)
    for folder, names in sorted(folders.items()):
        for batches, sign in _BATCHES:
            if sign in names and names.intersection(batches):
                return [str(PurePosixPath(folder) / name) for name in batches if name in names]
    return []


def cifar_parts(batches: Sequence[str], files: Sequence[str], read: Read) -> list[Part]:
    """Pixels and labels of the batches; the 100 fine classes of CIFAR-100. UserError for damaged or foreign files."""
    classes = _class_names(PurePosixPath(batches[0]).parent, set(files), read)
    parts: list[Part] = []
    for split in ("train", "test"):
        loaded = [
            _batch(name, read(name))
            for name in batches
            if PurePosixPath(name).name.startswith("test") == (split == "test")
        ]
        if loaded:
            pixels = np.concatenate([p for p, _ in loaded]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            labels = np.concatenate([t for _, t in loaded])
            parts.append((split, np.ascontiguousarray(pixels), to_labels(labels, len(pixels), classes)))
    return parts


def _batch(name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    if name.endswith(".bin"):
        before = 1 if "_batch" in name else 2  # CIFAR-100 has the coarse label first
        if not data or len(data) % (_PIXELS + before):
            raise UserError(f"'{name}' is no whole CIFAR file: {len(data)} bytes; fetch it again")
        rows = np.frombuffer(data, np.uint8).reshape(-1, _PIXELS + before)
        return rows[:, before:], rows[:, before - 1]
    content = _unpickled(name, data)
    labels = content.get("labels", content.get("fine_labels"))
    pixels = content.get("data")
    if (
        labels is None
        or not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (_PIXELS,)
    ):
        raise UserError(f"'{name}' is no CIFAR batch: it lacks labels, or uint8 data of N×{_PIXELS}; fetch it again")
    if len(labels) != len(pixels):
        raise UserError(f"'{name}' holds {len(pixels)} images and {len(labels)} labels; fetch it again")
    return pixels, np.asarray(labels)


def _class_names(folder: PurePosixPath, files: set[str], read: Read) -> list[str] | None:
    for name, key in (("batches.meta", "label_names"), ("meta", "fine_label_names")):
        if (path := str(folder / name)) in files:
            return text_list(_unpickled(path, read(path)).get(key) or []) or None
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if (path := str(folder / name)) in files:
            return read(path).decode("utf-8", "replace").split() or None
    return None


class _Unpickler(pickle.Unpickler):
    """Makes numpy arrays and plain containers, and nothing else: a pickle can otherwise run any program."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _unpickled(name: str, data: bytes) -> dict[str, Any]:
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        return {(k.decode() if isinstance(k, bytes) else str(k)): v for k, v in content.items()}
    except Exception as error:  # damaged pickles raise anything
        raise UserError(f"'{name}' is no CIFAR batch that can be read safely ({error}); fetch it again") from None

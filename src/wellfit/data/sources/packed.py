"""Data sets that come as a few files of arrays: idx (MNIST, Fashion-MNIST), .npz, and scikit-learn's digits.

idx and CIFAR files are found in a folder and in an archive alike: these functions take the list of files there and a
function that reads one.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from wellfit.data.sources.arrays import ArrayReader, numbered, text_list, to_labels, to_pixels
from wellfit.data.sources.cache import check_unpacked
from wellfit.data.sources.source import Rows, Source
from wellfit.errors import UserError

Read = Callable[[str], bytes]
Part = tuple[str, np.ndarray, list[str]]
"""(split, N×H×W or N×H×W×3 uint8, labels)"""

FASHION = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]

_IDX = re.compile(r"^(?P<before>.*?)(?P<part>train|t10k|test)-images[-.]idx3-ubyte(?:\.gz)?$")
_NPZ_PARTS = {
    "train": [("x_train", "y_train"), ("train_images", "train_labels"), ("X_train", "y_train")],
    "validation": [("x_val", "y_val"), ("val_images", "val_labels"), ("X_val", "y_val"), ("x_valid", "y_valid")],
    "test": [("x_test", "y_test"), ("test_images", "test_labels"), ("X_test", "y_test")],
    "": [("images", "labels"), ("x", "y"), ("X", "y"), ("data", "labels")],
}


def packed_source(kind: str, location: str, parts: Sequence[Part]) -> Source:
    """One Source of the parts; the images are called "train#17"."""
    return Source(
        location=location,
        kind=kind,
        names=[name for split, images, _ in parts for name in numbered(split, len(images))],
        labels=[label for _, _, labels in parts for label in labels],
        splits=[split for split, images, _ in parts for _ in range(len(images))],
        groups=None,
        reader=Rows.joined([ArrayReader(images) for _, images, _ in parts], [len(images) for _, images, _ in parts]),
    )


def find_idx(files: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Split → (images file, labels file) of an MNIST-like set among these relative paths; {} where there is none.

    UserError for two sets in one folder and for images without their labels.
    """
    found: dict[str, dict[str, str]] = {}
    present = set(files)
    for file in sorted(files, reverse=True):  # so that the unpacked file wins over its .gz
        if match := _IDX.match(file):
            found.setdefault(match["before"], {})["train" if match["part"] == "train" else "test"] = file
    if len(found) > 1:
        raise UserError(
            f"several idx data sets lie together ({', '.join(repr(k) for k in sorted(found))}); "
            "give the images file of the one you mean"
        )
    pairs = {}
    for split, images in sorted(next(iter(found.values()), {}).items(), reverse=True):  # train before test
        pairs[split] = (images, idx_labels(images, present))
    return pairs


def is_idx_images(name: str) -> bool:
    """Whether a file name is that of an idx images file."""
    return _IDX.match(name) is not None


def idx_parts(pairs: dict[str, tuple[str, str]], read: Read, location: str) -> list[Part]:
    """Read idx images and labels. Fashion-MNIST's class names are given where the location says it is that set."""
    parts: list[Part] = []
    fashion = re.search(r"fashion[-_ ]?mnist", location.lower()) is not None
    for split, (images_file, labels_file) in pairs.items():
        images = read_idx(read(images_file), 3, images_file)
        labels = read_idx(read(labels_file), 1, labels_file)
        classes = FASHION if fashion and labels.size and labels.max() < len(FASHION) else None
        parts.append((split, images, to_labels(labels, len(images), classes)))
    return parts


def read_idx(data: bytes, dimensions: int, file: str) -> np.ndarray:
    """A uint8 array from the idx format (LeCun's MNIST page): 0 0 8 dimensions, big-endian sizes, values."""
    try:
        if data.startswith(b"\x1f\x8b"):
            packed = len(data)
            with gzip.open(io.BytesIO(data)) as stream:
                start = stream.read(4 + 4 * dimensions)
                check_unpacked(_idx_size(start, dimensions), packed, file)
                data = start + stream.read(_idx_size(start, dimensions) + 1)
        size = _idx_size(data, dimensions)
        if len(data) != 4 + 4 * dimensions + size:
            raise ValueError(f"{size} values declared, {len(data) - 4 - 4 * dimensions} there")
    except (ValueError, EOFError, OSError, struct.error, zlib.error) as error:
        raise UserError(f"'{file}' is no whole idx file of {dimensions} dimensions ({error}); fetch it again") from None
    shape = struct.unpack_from(f">{dimensions}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def npz_parts(path: Path) -> list[Part]:
    """Arrays from an .npz under the usual names: x_train/y_train, train_images/train_labels, images/labels, x/y.

    Class names are taken from an array `classes` or `class_names` where there is one. Nothing is unpickled.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(sum(i.file_size for i in archive.infolist()), path.stat().st_size, str(path))
        with np.load(path, allow_pickle=False) as arrays:
            keys = set(arrays.files)
            chosen = [
                (split, *pair)
                for split, pairs in _NPZ_PARTS.items()
                for pair in [p for p in pairs if keys.issuperset(p)][:1]
            ]
            if any(split == "train" for split, _, _ in chosen):
                chosen = [c for c in chosen if c[0]]
            if not chosen or chosen[0][0] not in ("train", ""):
                raise UserError(
                    f"an .npz holds x_train and y_train (x_test, y_test), or images and labels, but '{path}' holds "
                    f"{', '.join(sorted(keys)) or 'nothing'}; save it under these names"
                )
            named = next((k for k in ("classes", "class_names") if k in keys), None)
            classes = text_list(arrays[named].tolist()) if named else None
            parts: list[Part] = []
            for split, x, y in chosen:
                images = to_pixels(arrays[x], f"images in '{x}'")
                parts.append((split, images, to_labels(arrays[y], len(images), classes)))
            return parts
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"'{path}' is no .npz file of plain arrays ({error}); save it again with numpy.savez") from None


def digits_source() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8×8, values 0-16 scaled to 0-255."""
    table = _digits_table()
    images = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return packed_source("digits", "digits", [("", images, to_labels(table[:, 64], len(images)))])


def _digits_table() -> np.ndarray:
    # The file inside scikit-learn: importing sklearn.datasets for it takes over a second of a user's budget.
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    return np.column_stack([values, labels])


def idx_labels(images: str, present: set[str]) -> str:
    """The labels file that belongs to an idx images file, among the files present. UserError where there is none."""
    path = PurePosixPath(images)
    plain = str(path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")))
    for name in (plain, plain + ".gz"):
        if name in present:
            return name
    raise UserError(
        f"the idx images '{images}' need their labels beside them, but there is no '{plain}' or '{plain}.gz'"
    )


def _idx_size(data: bytes, dimensions: int) -> int:
    if len(data) < 4 + 4 * dimensions or data[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError("its first bytes are others")
    size = 1
    for length in struct.unpack_from(f">{dimensions}I", data, 4):
        size *= length
    return size

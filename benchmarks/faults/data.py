"""Small image sets for the cases: decoded once, kept as .npz, drawn by seed, and made into tensors as users do.

Fashion-MNIST, CIFAR-10 (JPEG) and ants-bees are read from $WELLFIT_TEST_DATA/data; digits come with scikit-learn.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wellfit.data.sources.cache import cache_folder
from wellfit.errors import UserError
from wellfit.randomness import generator

# Images of each class that are decoded of a set far larger than a case can use.
PER_CLASS = {"train": 600, "test": 200}
PHOTO_SIDE = 96


@dataclass(frozen=True)
class Images:
    """uint8 N×H×W×C (digits: 0 to 16) and int64 labels, the training's and the validation's."""

    train: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    validation: NDArray[np.uint8]
    validation_labels: NDArray[np.int64]
    classes: int


@dataclass(frozen=True)
class Tensors:
    """What a loop takes: float32 N×C×H×W and int64 labels."""

    train: Tensor
    train_labels: Tensor
    validation: Tensor
    validation_labels: Tensor
    classes: int

    @property
    def channels(self) -> int:
        return self.train.shape[1]

    @property
    def size(self) -> int:
        return self.train.shape[2]


def load(name: str, *, train: int, validation: int, seed: int = 0, classes: list[int] | None = None) -> Images:
    """`train` and `validation` images of a set, drawn by `seed`, all different.

    name: "digits" (8 px, 1797 in all), "fashion-mnist" (28 px), "cifar10" (32 px) or "ants-bees" (96 px, 243 + 153).
    classes: only these, numbered anew in the order given.
    """
    pools = _decoded(name)
    draws = generator(seed, "faults/data", name)
    if name == "digits":  # one pool: both parts are drawn from it
        order = draws.permutation(len(pools["train_labels"]))
        pool, labels = pools["train"], pools["train_labels"]
        order, labels = _among(order, labels, classes)
        chosen = {"train": order[:train], "validation": order[train : train + validation]}
        sources = {"train": (pool, labels), "validation": (pool, labels)}
    else:
        sources, chosen = {}, {}
        for part, pool_name, count in (("train", "train", train), ("validation", "test", validation)):
            order, labels = _among(draws.permutation(len(pools[pool_name])), pools[f"{pool_name}_labels"], classes)
            sources[part], chosen[part] = (pools[pool_name], labels), order[:count]
    for part, count in (("train", train), ("validation", validation)):
        if len(chosen[part]) < count:
            raise ValueError(f"'{name}' has {len(chosen[part])} images left for {part}, {count} were asked for")
    return Images(
        sources["train"][0][chosen["train"]],
        sources["train"][1][chosen["train"]],
        sources["validation"][0][chosen["validation"]],
        sources["validation"][1][chosen["validation"]],
        len(classes) if classes else int(pools["train_labels"].max()) + 1,
    )


def _among(
    order: NDArray[np.int64], labels: NDArray[np.int64], classes: list[int] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order without images of other classes, and the labels by their new numbers."""
    if classes is None:
        return order, labels
    number = np.full(labels.max() + 1, -1)
    number[classes] = np.arange(len(classes))
    return order[number[labels[order]] >= 0], number[labels]


def channels_first(images: NDArray[np.uint8]) -> Tensor:
    """uint8 N×H×W×C as float32 N×C×H×W, with the same values."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()


def standardise(
    images: Images, mean: list[float] | Tensor | None = None, std: list[float] | Tensor | None = None
) -> Tensors:
    """Mean 0 and deviation 1 by the figures of the training images, or by those given (in pixel values).

    mean, std: one number a channel.
    """
    train, validation = channels_first(images.train), channels_first(images.validation)
    mean = torch.as_tensor(train.mean((0, 2, 3)) if mean is None else mean).view(1, -1, 1, 1)
    std = torch.as_tensor(train.std((0, 2, 3)) if std is None else std).view(1, -1, 1, 1)
    return Tensors(
        (train - mean) / std,
        torch.from_numpy(images.train_labels),
        (validation - mean) / std,
        torch.from_numpy(images.validation_labels),
        images.classes,
    )


# ---- decoding, once ------------------------------------------------------------------------------------


def folder() -> Path:
    """$WELLFIT_TEST_DATA. UserError where it is not set."""
    given = os.environ.get("WELLFIT_TEST_DATA")
    if not given:
        raise UserError("WELLFIT_TEST_DATA names a folder with data/ and weights/ in it, and it is not set; set it")
    return Path(given)


@cache
def _decoded(name: str) -> dict[str, NDArray]:
    if name == "digits":
        return _digits()
    if name not in READERS:
        raise ValueError(f"data sets are digits, {', '.join(READERS)}; got '{name}'")
    kept = cache_folder() / "faults" / f"{name}-{PER_CLASS['train']}-{PER_CLASS['test']}-{PHOTO_SIDE}.npz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = kept.with_suffix(f".{os.getpid()}.npz")
        np.savez(aside, **READERS[name](folder() / "data"))
        aside.replace(kept)
    with np.load(kept) as arrays:
        return dict(arrays)


def prepare() -> None:
    """Decode every set now, so that workers find them."""
    for name in READERS:
        _decoded(name)
    _decoded.cache_clear()


def _digits() -> dict[str, NDArray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return {"train": bunch.images[..., None].astype(np.uint8), "train_labels": bunch.target.astype(np.int64)}


def _fashion(data: Path) -> dict[str, NDArray]:
    arrays: dict[str, NDArray] = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        pixels = gzip.decompress((data / "fashion-mnist" / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((data / "fashion-mnist" / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
        y = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
        kept = np.concatenate([np.flatnonzero(y == label)[: PER_CLASS[part]] for label in range(10)])
        arrays[part] = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28, 1)[kept]
        arrays[f"{part}_labels"] = y[kept]
    return arrays


def _cifar(data: Path) -> dict[str, NDArray]:
    def wanted(part: str, label: str, count: int) -> bool:
        return count < PER_CLASS[part]

    return _from_tar(data / "cifar10-jpg.tar.gz", {"train": "train", "test": "test"}, wanted, side=None)


def _ants_bees(data: Path) -> dict[str, NDArray]:
    return _from_tar(data / "ants-bees.tar", {"train": "train", "val": "test"}, lambda *_: True, side=PHOTO_SIDE)


def _from_tar(
    path: Path, parts: dict[str, str], wanted: Callable[[str, str, int], bool], side: int | None
) -> dict[str, NDArray]:
    pixels: dict[str, list[NDArray]] = {part: [] for part in parts.values()}
    labels: dict[str, list[str]] = {part: [] for part in parts.values()}
    counts: dict[tuple[str, str], int] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            place = Path(member.name).parts
            if not member.isfile() or len(place) < 3 or place[-3] not in parts or not member.name.endswith(".jpg"):
                continue
            part, label = parts[place[-3]], place[-2]
            seen = counts.get((part, label), 0)
            file = archive.extractfile(member) if wanted(part, label, seen) else None
            if file is None:
                continue
            counts[part, label] = seen + 1
            with Image.open(io.BytesIO(file.read())) as image:
                pixels[part].append(np.asarray(_cropped(image.convert("RGB"), side)))
            labels[part].append(label)
    classes = sorted({label for of_part in labels.values() for label in of_part})
    arrays: dict[str, NDArray] = {part: np.stack(images) for part, images in pixels.items()}
    for part, names in labels.items():
        arrays[f"{part}_labels"] = np.array([classes.index(label) for label in names], np.int64)
    return arrays


def _cropped(image: Image.Image, side: int | None) -> Image.Image:
    if side is None:
        return image
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    return image.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + short, top + short))


READERS: dict[str, Callable[[Path], dict[str, NDArray]]] = {
    "fashion-mnist": _fashion,
    "cifar10": _cifar,
    "ants-bees": _ants_bees,
}

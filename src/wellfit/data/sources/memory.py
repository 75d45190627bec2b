"""Images that are already in Python: arrays, tensors, PIL images, lists of pairs, a torch Dataset, a DataFrame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.data.decode import from_pillow
from wellfit.data.headers import Undecodable
from wellfit.data.sources.arrays import (
    ArrayReader,
    as_numpy,
    channels_last,
    label_text,
    numbered,
    pixel_scale,
    pixel_stamp,
    text_list,
    to_labels,
    to_pixels,
    to_uint8,
)
from wellfit.data.sources.folder import FileReader
from wellfit.data.sources.manifest import manifest_source
from wellfit.data.sources.source import LeftOut, Reader, Source
from wellfit.errors import UserError

_KINDS = (
    "a path, 'digits', a pair (images, labels), a list of (image, label), a torch Dataset of (image, label), or a "
    "DataFrame with the columns image and label"
)
_PROBED = 32


@dataclass(frozen=True)
class ItemReader:
    """Single images of any kind and size: PIL images, arrays, tensors. scale: what array values are multiplied by."""

    items: Sequence[Any]
    scale: float

    def read(self, index: int) -> np.ndarray:
        return item_pixels(self.items[index], self.scale)

    def stamp(self, index: int) -> tuple[int, int]:
        return pixel_stamp(self.read(index))


@dataclass(frozen=True)
class DatasetReader:
    """Images of a map-style torch Dataset; each read asks the dataset again. scale: as in ItemReader."""

    dataset: Any
    scale: float

    def read(self, index: int) -> np.ndarray:
        try:
            image = self.dataset[index][0]
        except Exception as error:  # the user's code, often over files; one bad item must not end a run
            raise Undecodable(f"the dataset raises {type(error).__name__} ({error})") from None
        return item_pixels(image, self.scale)

    def stamp(self, index: int) -> tuple[int, int]:
        return pixel_stamp(self.read(index))


def item_pixels(image: Any, scale: float) -> np.ndarray:
    """One PIL image, array or tensor (H×W, H×W×C or C×H×W) as uint8 pixels."""
    if _is_pillow(image):
        return from_pillow(image)
    values = as_numpy(image)
    try:
        shaped = channels_last(values[None], first=hasattr(image, "detach"), what="images")
    except UserError as error:
        raise Undecodable(str(error)) from None
    if values.dtype != np.uint8 and not (values.size and values.min() * scale >= 0 and values.max() * scale <= 255.5):
        raise Undecodable("pixel values outside the range of the other images")
    return to_uint8(shaped, scale)[0]


def memory_source(data: Any, *, image_column: str, label_column: str, group_column: str | None) -> Source:
    """A Source of anything that is no path. UserError names the accepted kinds."""
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return manifest_source(
            data,
            Path.cwd(),
            "DataFrame",
            image_column=image_column,
            label_column=label_column,
            group_column=group_column,
        )
    if isinstance(data, tuple) and len(data) == 2:
        return _pair(data[0], data[1], None)
    if isinstance(data, list):
        if not all(isinstance(item, tuple | list) and len(item) == 2 for item in data):
            raise UserError(f"a list holds pairs (image, label), but an item is something else; data may be {_KINDS}")
        return _pair([image for image, _ in data], [label for _, label in data], None)
    listed = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if listed and not isinstance(data, dict | np.ndarray | tuple) and not hasattr(data, "detach"):
        return _dataset(data)
    raise UserError(f"data of type {type(data).__name__} are not understood; give {_KINDS}")


def _pair(images: Any, labels: Any, classes: Sequence[str] | None) -> Source:
    if not isinstance(images, list | tuple):
        pixels = to_pixels(images)
        names, texts = numbered("", len(pixels)), to_labels(labels, len(pixels), classes)
        return _source(names, texts, ArrayReader(pixels))
    texts = to_labels(labels, len(images), classes)
    if images and all(isinstance(image, str | os.PathLike) for image in images):
        return _paths([str(Path(image).expanduser()) for image in images], texts)
    scale = _probe([images[i] for i in _spread(len(images))])
    return _source(numbered("", len(images)), texts, ItemReader(images, scale))


def _paths(paths: list[str], labels: list[str]) -> Source:
    here = [i for i, path in enumerate(paths) if Path(path).is_file()]
    if not here:
        raise UserError(f"not one of the {len(paths)} files exists (the first is '{paths[0]}'); check the paths")
    gone = set(range(len(paths))) - set(here)
    names = [paths[i] for i in here]
    source = _source(names, [labels[i] for i in here], FileReader(str(Path.cwd()), names))
    source.left_out = [LeftOut(paths[i], "file not found") for i in sorted(gone)]
    return source


def _dataset(dataset: Any) -> Source:
    count = len(dataset)
    if not count:
        raise UserError("the dataset is empty; give one with images of at least two classes")
    classes = _attribute(dataset, "classes")
    names = None if classes is None else text_list(classes)
    scale = _probe([_pair_of(dataset, i)[0] for i in _spread(count)])
    targets = _targets(dataset, count)
    labels = [label_text(_pair_of(dataset, i)[1] if targets is None else targets[i], names) for i in range(count)]
    return _source(numbered("", count), labels, DatasetReader(dataset, scale))


def _pair_of(dataset: Any, index: int) -> tuple[Any, Any]:
    item = dataset[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UserError(
            f"a dataset gives pairs (image, label), but item {index} is a {type(item).__name__}; wrap it to do so"
        )
    return item[0], item[1]


def _targets(dataset: Any, count: int) -> list[Any] | None:
    """All labels without reading an image, where the dataset (or the one that a Subset is of) offers them."""
    if hasattr(dataset, "dataset") and hasattr(dataset, "indices"):
        whole = _targets(dataset.dataset, len(dataset.dataset))
        return None if whole is None else [whole[i] for i in dataset.indices]
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in ("targets", "labels"):
        values = getattr(dataset, name, None)
        if values is not None and hasattr(values, "__len__") and len(values) == count:
            return values if isinstance(values, list) else as_numpy(values).tolist()
    return None


def _attribute(dataset: Any, name: str) -> Any:
    while dataset is not None:
        if getattr(dataset, name, None) is not None:
            return getattr(dataset, name)
        dataset = getattr(dataset, "dataset", None)
    return None


def _probe(images: list[Any]) -> float:
    """The scale shared by arrays and tensors, from a few of them (one dark image alone could mislead)."""
    arrays = [as_numpy(image) for image in images if not _is_pillow(image)]
    if not arrays:
        return 1.0
    kinds = {str(a.dtype) for a in arrays}
    if len(kinds) > 1:
        raise UserError(f"images share one type of number, but these are {' and '.join(sorted(kinds))}; convert them")
    for image, values in zip([i for i in images if not _is_pillow(i)], arrays, strict=True):
        channels_last(values[None], first=hasattr(image, "detach"), what="images")
    return pixel_scale(np.concatenate([a.ravel() for a in arrays]), "images")


def _spread(count: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, _PROBED))}) if count else []


def _is_pillow(image: Any) -> bool:
    return hasattr(image, "convert") and hasattr(image, "getbands")


def _source(names: list[str], labels: list[str], reader: Reader) -> Source:
    return Source("memory", "memory", names, labels, [""] * len(names), None, reader)

"""What a training loop holds: one batch, a DataLoader, or a Dataset of tensors. Read in part, left as it was."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from wellfit.checks.batch_data import fingerprints
from wellfit.checks.targets import are_measures, class_of
from wellfit.errors import UserError
from wellfit.randomness import generator

KEPT_IMAGES, KEPT_BYTES = 1024, 256 * 2**20  # that the checks train on
LEAST_KEPT = 64  # whatever their size
SEEN_IMAGES = 20_000  # whose labels and bytes are looked at
USUAL_BATCH = 32
MOST_CLASSES = 1_000_000

KINDS = (
    "one batch (images, targets) of tensors, a DataLoader, a Dataset or a list of (tensor, label), or what wellfit "
    "reads elsewhere: a folder, arrays, 'digits'"
)


@dataclass
class LoopData:
    """Images and targets as the model gets them.

    inputs: N×…, floating; targets: N or N×C: those kept. batch_size: the user's own, or a usual one.
    digests: fingerprints of all images seen; counts: images of each class among them, none where targets are numbers
    to be met, as of a regression.
    """

    inputs: Tensor
    targets: Tensor
    batch_size: int
    digests: list[bytes] = field(default_factory=list)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def is_loop_data(data: Any) -> bool:
    """Whether these are ready for a model: tensors of floating-point numbers, or what yields them."""
    if isinstance(data, DataLoader):
        return True
    if _is_pair(data):
        return isinstance(data[0], Tensor) and data[0].is_floating_point()
    if isinstance(data, str | bytes | np.ndarray | Tensor) or hasattr(data, "iloc"):
        return False
    if isinstance(data, tuple):
        return any(isinstance(part, Tensor) and part.is_floating_point() for part in data)
    if hasattr(data, "__next__"):
        return True
    if isinstance(data, IterableDataset) or not hasattr(data, "__getitem__"):
        return hasattr(data, "__iter__")
    if not hasattr(data, "__len__") or not len(data):
        return isinstance(data, Dataset)
    try:
        with _put_back(data, 0, "first"):
            return _is_floating_item(data[0])
    except Exception:  # the user's code: what reads it in earnest says what is wrong
        return False


def read_loop_data(data: Any, what: str, *, seed: int, deadline: float) -> LoopData:
    """Look at a batch, a loader or a dataset. what: "data" or "validation", for sentences.

    Of a loader or dataset up to 20,000 images are seen until `deadline` (time.monotonic's scale), and the first 1,024
    kept. Torch's, numpy's and Python's generators, and the loader's own, are put back; draws are decided by `seed`.
    UserError for what is empty, yields no (tensor, targets), or changes its shapes.
    """
    if _is_pair(data):
        return _gathered(iter([data]), what, None, deadline)
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Tensor):
        raise UserError(
            f"{what} is a pair (images, targets) of two tensors, got a tensor and {_article(data[1])}; give the "
            "targets as a tensor too, with torch.as_tensor"
        )
    if isinstance(data, tuple) or hasattr(data, "__next__"):
        held = f"a tuple of {len(data)}" if isinstance(data, tuple) else "an iterator, which looking at it would use up"
        raise UserError(f"{what} is {KINDS}, got {held}; give one of these")
    if isinstance(data, DataLoader | IterableDataset) or not hasattr(data, "__getitem__"):
        with _put_back(data, seed, what):
            return _gathered(_batches(data), what, getattr(data, "batch_size", None), deadline)
    with _put_back(data, seed, what):
        return _gathered(_drawn(data, seed), what, USUAL_BATCH, deadline)


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def _is_floating_item(item: Any) -> bool:
    """Of a dataset (tensor, label), or of a list of batches (tensor, tensor)."""
    first = item[0] if isinstance(item, tuple | list) and item else item
    return isinstance(first, Tensor) and first.is_floating_point()


def _batches(data: Iterable[Any]) -> Iterator[Any]:
    items = iter(data)
    if not isinstance(data, IterableDataset):
        yield from items
        return
    while chunk := list(itertools.islice(items, USUAL_BATCH)):
        yield torch.utils.data.default_collate(chunk)


def _drawn(data: Any, seed: int) -> Iterator[Any]:
    """Batches of a map-style dataset in a random order; a list of batches as it is."""
    first = data[0]
    label = first[1] if isinstance(first, tuple | list) and len(first) == 2 else None
    if isinstance(label, Tensor) and label.ndim >= 1 and len(label) == len(first[0]) and not isinstance(data, Dataset):
        yield from data
        return
    order = generator(seed, "check", "dataset").permutation(len(data))[:SEEN_IMAGES]
    for start in range(0, len(order), USUAL_BATCH):
        yield torch.utils.data.default_collate([data[int(i)] for i in order[start : start + USUAL_BATCH]])


def _gathered(batches: Iterator[Any], what: str, batch_size: int | None, deadline: float) -> LoopData:
    kept: list[tuple[Tensor, Tensor]] = []
    digests: list[bytes] = []
    counts = np.zeros(0, np.int64)
    images = 0
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            break
        except Exception as error:  # the user's dataset, transforms and collation
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise UserError(f"reading {what} failed after {images:,} images ({reason}); correct the dataset") from error
        inputs, targets = _understood(batch, what)
        if not len(inputs):
            continue
        if kept and inputs.shape[1:] != kept[0][0].shape[1:]:
            raise UserError(
                f"the checks need images of one size, but {what} has some of shape {tuple(kept[0][0].shape[1:])} and "
                f"some of {tuple(inputs.shape[1:])}; resize or crop them in the dataset"
            )
        size = inputs[0].numel() * inputs.element_size()
        most = min(KEPT_IMAGES, max(LEAST_KEPT, KEPT_BYTES // max(1, size)))
        if images < most:
            kept.append((inputs[: most - images].detach(), targets[: most - images].detach()))
        images += len(inputs)
        digests += fingerprints(inputs)
        seen = np.bincount(class_of(targets.detach().cpu()).clamp(0, MOST_CLASSES).numpy())
        counts, seen = (np.pad(a, (0, max(len(counts), len(seen)) - len(a))) for a in (counts, seen))
        counts = counts + seen
        if images >= SEEN_IMAGES or (images >= most and time.monotonic() >= deadline):
            break
    if images < 2:
        raise UserError(f"the checks need at least two images, but {what} has {images}; give more")
    inputs, targets = torch.cat([k[0] for k in kept]), torch.cat([k[1] for k in kept])
    if are_measures(targets):
        counts = np.zeros(0, np.int64)
    elif len(torch.unique(class_of(targets))) < 2:
        raise UserError(
            f"the checks need images of at least two classes, but the first {len(inputs):,} of {what} are all of class "
            f"{int(class_of(targets)[0])}; shuffle them"
        )
    return LoopData(inputs, targets, batch_size or min(len(inputs), USUAL_BATCH), digests, counts)


def _understood(batch: Any, what: str) -> tuple[Tensor, Tensor]:
    if isinstance(batch, dict):
        raise UserError(
            f"{what} yields pairs (images, targets), got a dictionary with {', '.join(map(repr, list(batch)[:4]))}; "
            "give a dataset or loader that returns the two tensors"
        )
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        held = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
        raise UserError(
            f"{what} yields pairs (images, targets), got {held}; models with several inputs are not checked, so give "
            "the two that belong to one"
        )
    inputs, targets = batch
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or inputs.ndim < 2:
        kind = f"{inputs.dtype} of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise UserError(
            f"the images of {what} are a tensor N×channels×H×W of floating-point numbers, as the model gets them, got "
            f"{kind}; apply the training's transforms"
        )
    if not isinstance(targets, Tensor) or targets.ndim not in (1, 2) or len(targets) != len(inputs):
        shape = f"shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise UserError(
            f"the targets of {what} are class numbers of shape ({len(inputs)},) or shares of shape ({len(inputs)}, C), "
            f"one for each image, got {shape}; give the labels of the same images"
        )
    return inputs, targets


def _article(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' or name == 'ndarray' else 'a'} {name}"


@contextlib.contextmanager
def _put_back(data: Any, seed: int, what: str) -> Iterator[None]:
    """The generators that drawing batches moves: the global ones, and those that a loader or its sampler holds."""
    from wellfit.checks.sandbox import own_randomness

    sampler = getattr(data, "sampler", None)
    holders = (data, sampler, getattr(data, "batch_sampler", None), getattr(data, "dataset", None))
    held = {id(g): g for g in (getattr(h, "generator", None) for h in holders) if isinstance(g, torch.Generator)}
    states = [(g, g.get_state()) for g in held.values()]
    with own_randomness(torch.nn.Identity(), seed, f"loader/{what}"):
        try:
            yield
        finally:
            for g, state in states:
                g.set_state(state)

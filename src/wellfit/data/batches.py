"""Batches by step number: any step of any epoch can be asked for, so that a resumed run sees the same ones.

Pixels stay uint8 until the last moment; the network's device does the float work.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wellfit.data.augment import AUGMENTATIONS, Draws, check_names
from wellfit.data.preprocess import Preprocessing
from wellfit.data.views import evaluation_view, resize_batch, training_view
from wellfit.randomness import generator

if TYPE_CHECKING:
    import torch

    from wellfit.data.store import PixelStore


@dataclass(frozen=True)
class Batch:
    """images: uint8 N×3×S×S, channels_last; targets: int64 N; positions: int64 N, which of the split's images."""

    images: torch.Tensor
    targets: torch.Tensor
    positions: np.ndarray


class Views:
    """Reads store rows as square uint8 views of the network's size, from all cores where images need resizing."""

    def __init__(self, store: PixelStore, rows: np.ndarray, preprocessing: Preprocessing) -> None:
        self.store, self.rows, self.preprocessing = store, np.asarray(rows), preprocessing
        size = preprocessing.size
        uniform = store.uniform()
        square = uniform is not None and uniform.shape[1] == uniform.shape[2] and preprocessing.resize == size
        self._uniform = uniform if square else None

    def fixed(self, positions: np.ndarray) -> np.ndarray:
        """N×S×S×3: the evaluation view of each image."""
        size, resize = self.preprocessing.size, self.preprocessing.resize
        if self._uniform is not None:
            return resize_batch(self._uniform[self.rows[positions]], size)
        return self._each(positions, lambda image, _: evaluation_view(image, resize, size))

    def random(self, positions: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """N×S×S×3: a random training view of each image; draws: N×3 in [0, 1)."""
        return self._each(positions, lambda image, i: training_view(image, self.preprocessing.size, draws[i]))

    def _each(self, positions: np.ndarray, view: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        size = self.preprocessing.size
        result = np.empty((len(positions), size, size, 3), dtype=np.uint8)

        def fill(i: int) -> None:
            result[i] = view(self.store.image(int(self.rows[positions[i]])), i)

        for _ in _workers().map(fill, range(len(positions))):
            pass
        return result


class TrainingBatches:
    """Shuffled, augmented batches of one training split.

    rows: store rows of the split; targets: int64 class numbers, one a row.
    class_weights: C weights; given, each epoch draws images in proportion (with replacement), not a permutation.
    """

    def __init__(
        self,
        store: PixelStore,
        rows: np.ndarray,
        targets: np.ndarray,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        augment: tuple[str, ...] = (),
        seed: int = 0,
        class_weights: np.ndarray | None = None,
    ) -> None:
        check_names(augment)
        self.views = Views(store, rows, preprocessing)
        self.targets = np.asarray(targets, dtype=np.int64)
        self.images = len(self.targets)
        self.batch_size = min(batch_size, self.images)
        self.steps_per_epoch = self.images // self.batch_size
        self.augment, self.seed = augment, seed
        self._chance = (
            None if class_weights is None else class_weights[self.targets] / class_weights[self.targets].sum()
        )
        # Where the evaluation view is itself a centre crop, "crop" means SPEC D7's views; else a small shift.
        self._random_views = "crop" in augment and preprocessing.resize > preprocessing.size
        columns = {name: 3 if name == "crop" and self._random_views else AUGMENTATIONS[name][1] for name in augment}
        self._draws = {name: Draws(seed, name, self.images, n) for name, n in columns.items()}
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def positions(self, step: int) -> np.ndarray:
        """Which images of the split are seen at this step; the last incomplete batch of an epoch is left out."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            draw = generator(self.seed, "order", epoch)
            if self._chance is None:
                self._order = epoch, draw.permutation(self.images)
            else:
                self._order = epoch, draw.choice(self.images, self.images, p=self._chance)
        return self._order[1][within * self.batch_size : (within + 1) * self.batch_size]

    def batch(self, step: int) -> Batch:
        import torch

        positions = self.positions(step)
        epoch = step // self.steps_per_epoch
        if self._random_views:
            pixels = self.views.random(positions, self._draws["crop"].rows(epoch, positions))
        else:
            pixels = self.views.fixed(positions)
        for name in self.augment:
            if not (name == "crop" and self._random_views):
                pixels = AUGMENTATIONS[name][0](pixels, self._draws[name].rows(epoch, positions))
        images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        return Batch(images, torch.from_numpy(self.targets[positions]), positions)


class EvaluationBatches:
    """The fixed views of a split, in order. Iterating twice gives the same batches."""

    def __init__(
        self,
        store: PixelStore,
        rows: np.ndarray,
        targets: np.ndarray,
        preprocessing: Preprocessing,
        batch_size: int = 256,
    ) -> None:
        self.views = Views(store, rows, preprocessing)
        self.targets = np.asarray(targets, dtype=np.int64)
        self.images = len(self.targets)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-self.images // self.batch_size)

    def batch(self, number: int) -> Batch:
        import torch

        positions = np.arange(number * self.batch_size, min(self.images, (number + 1) * self.batch_size))
        pixels = np.ascontiguousarray(self.views.fixed(positions))
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return Batch(images, torch.from_numpy(self.targets[positions]), positions)

    def __iter__(self) -> Iterator[Batch]:
        for batch, _ in prefetch(self.batch, range(len(self))):
            yield batch


def prefetch(make: Callable[[int], Batch], steps: range, depth: int = 2) -> Iterator[tuple[Batch, float]]:
    """Yield (batch, seconds waited for it), made by one thread that stays `depth` ahead.

    An error in the thread is raised here; leaving the loop early stops the thread.
    """
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: Batch | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for step in steps:
                if not put(make(step)):
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=produce, name="wellfit-batches", daemon=True)
    thread.start()
    try:
        while True:
            begin = time.perf_counter()
            item = ready.get()
            waited = time.perf_counter() - begin
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item, waited
    finally:
        stop.set()
        thread.join()


_pool: ThreadPoolExecutor | None = None


def _workers() -> ThreadPoolExecutor:
    # Made at first use: threads do not survive a fork or a spawn.
    global _pool
    if _pool is None:
        import os

        _pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="wellfit-views")
    return _pool

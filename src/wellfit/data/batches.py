"""Batches by step number: any step of any epoch can be asked for, so that a resumed run sees the same ones.

Pixels stay uint8 until the last moment; the network's device does the float work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from wellfit.cores import usable_cores
from wellfit.data.augmentations.chain import Chain
from wellfit.data.augmentations.draws import Draws, Figures, colour_axes, fill_of
from wellfit.data.augmentations.table import parse_all
from wellfit.data.preprocess import Preprocessing
from wellfit.data.supply import supply
from wellfit.data.views import evaluation_view, resize_batch, training_view
from wellfit.randomness import generator

if TYPE_CHECKING:
    import torch

    from wellfit.data.store import PixelStore


@dataclass(frozen=True)
class Batch:
    """images: uint8 N×3×S×S, channels_last; targets: int64 N, or float32 N×C where labels are blended (rows sum to 1);
    positions: int64 N, which of the split's images; weight: of the loss, where several processes share a batch.
    """

    images: torch.Tensor
    targets: torch.Tensor
    positions: np.ndarray
    weight: float = 1.0


class Images(Protocol):
    """Where images are read from: a pixel store, or a few in memory."""

    def image(self, index: int) -> np.ndarray: ...

    def uniform(self) -> np.ndarray | None: ...


class Views:
    """Reads store rows as square uint8 views of the network's size, from all cores where images need resizing."""

    def __init__(self, store: Images, rows: np.ndarray, preprocessing: Preprocessing) -> None:
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
        return self.each(positions, lambda image, _: evaluation_view(image, resize, size))

    def random(self, positions: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """N×S×S×3: a random training view of each image; draws: N×3 in [0, 1)."""
        return self.each(positions, lambda image, i: training_view(image, self.preprocessing.size, draws[i]))

    def each(self, positions: np.ndarray, view: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        """N×S×S×3: view(image, i) of the image at positions[i]; an image may be there several times."""
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
    augment: names of `augmentations.table`, each with its strength where one is given ("rotate=30").
    class_weights: C weights; given, each epoch draws images in proportion (with replacement), not a permutation.
    classes: C, for blended targets; by default those that the targets hold.
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
        classes: int | None = None,
    ) -> None:
        chosen = parse_all(augment)
        self.views = Views(store, rows, preprocessing)
        self.targets = np.asarray(targets, dtype=np.int64)
        self.images = len(self.targets)
        self.batch_size = min(batch_size, self.images)
        self.steps_per_epoch = self.images // self.batch_size
        self.augment, self.seed = augment, seed
        self._chance = (
            None if class_weights is None else class_weights[self.targets] / class_weights[self.targets].sum()
        )
        # Where the evaluation view is a centre crop itself, "crop" is SPEC D7's views, at any strength; else a shift.
        self._views = None
        if any(c.name == "crop" for c in chosen) and preprocessing.resize > preprocessing.size:
            self._views = Draws(seed, "crop", self.images, 3)
            chosen = [c for c in chosen if c.name != "crop"]
        figures = Figures(fill_of(preprocessing))
        if any(c.name == "pca_colour" for c in chosen):
            figures = Figures(figures.fill, colour_axes(store, self.views.rows))
        self.chain = Chain(
            chosen, figures, images=self.images, classes=classes or int(self.targets.max()) + 1, seed=seed
        )
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

    def batch(self, step: int, part: slice | None = None) -> Batch:
        """The batch of a step; part: only these of its images, which are the same as in the whole batch."""
        import torch

        whole = self.positions(step)
        part = part or slice(0, len(whole))
        positions, epoch = whole[part], step // self.steps_per_epoch
        pixels, targets = self._views_of(positions, epoch), self.targets[positions]
        blend = self.chain.blend(step, len(whole))
        if blend is not None:  # partners may lie in other parts of the batch
            partners = whole[blend.order[part]]
            alone = len(positions) == len(whole)
            others = pixels[blend.order] if alone else self._views_of(partners, epoch)
            pixels, targets = blend(pixels, others, targets, self.targets[partners])
        images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        return Batch(images, torch.from_numpy(targets), positions)

    def _views_of(self, positions: np.ndarray, epoch: int) -> np.ndarray:
        if self._views is not None:
            pixels = self.views.random(positions, self._views.rows(epoch, positions))
        else:
            pixels = self.views.fixed(positions)
        return self.chain(pixels, positions, epoch)


class EvaluationBatches:
    """The fixed views of a split, in order. Iterating twice gives the same batches."""

    def __init__(
        self,
        store: Images,
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

    def part(self, part: slice) -> EvaluationBatches:
        """The same of some of the split's images."""
        views = self.views
        return EvaluationBatches(
            views.store, views.rows[part], self.targets[part], views.preprocessing, self.batch_size
        )

    def batch(self, number: int) -> Batch:
        import torch

        positions = np.arange(number * self.batch_size, min(self.images, (number + 1) * self.batch_size))
        pixels = np.ascontiguousarray(self.views.fixed(positions))
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return Batch(images, torch.from_numpy(self.targets[positions]), positions)

    def on(self, device: str) -> Iterator[Batch]:
        """All batches in turn, for a network on this device."""
        for batch, _ in supply(self.batch, range(len(self)), device):
            yield batch

    def __iter__(self) -> Iterator[Batch]:
        return self.on("cpu")


@functools.cache
def _workers() -> ThreadPoolExecutor:
    # Made at first use: threads do not survive a fork or a spawn.
    return ThreadPoolExecutor(max_workers=usable_cores(), thread_name_prefix="wellfit-views")

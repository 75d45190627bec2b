"""Several views of each image at test time, probabilities averaged: ten crops, ResNet's multi-scale views (SPEC D8).

Training draws random crops, scales and mirror images (`data.views.training_view`, "flip"). Here is the test side: a
fixed grid over the same range, whose mean stands for the mean over the draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from wellfit.data.batches import Views
from wellfit.data.preprocess import Preprocessing
from wellfit.data.store import PixelStore
from wellfit.data.views import resize_region
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.inference.evaluate import softmax

# Short sides relative to the crop (SPEC D8: 224, 256, 384, 480 and 640 at 224).
SCALES = tuple(side / 224 for side in (224, 256, 384, 480, 640))


@dataclass(frozen=True)
class View:
    """A square of an image, in pixels of that image; mirrored left to right or not."""

    top: float
    left: float
    side: float
    mirrored: bool = False

    def cut(self, image: np.ndarray, size: int) -> np.ndarray:
        """H×W×3 uint8 → size×size×3 uint8."""
        view = resize_region(image, self.top, self.left, self.side, self.side, size)
        return view[:, ::-1] if self.mirrored else view


# (height, width) of an image to its views.
Layout = Callable[[int, int], Sequence[View]]


def ten_crop(height: int, width: int, crop: float) -> list[View]:
    """The four corners and the centre, each plain and mirrored, of side `crop` pixels (Krizhevsky et al. 2012).

    UserError where the crop is larger than the image.
    """
    if not 0 < crop <= min(height, width):
        raise UserError(
            f"a ten-crop lies inside the image, got crops of {crop:g} pixels and an image of {height}×{width}; "
            "take a smaller crop, or enlarge the image first"
        )
    down, across = height - crop, width - crop
    places = [(0.0, 0.0), (0.0, across), (down, 0.0), (down, across), (down / 2, across / 2)]
    return [View(top, left, crop, mirrored) for mirrored in (False, True) for top, left in places]


def ten_crop_at(scale: float) -> Layout:
    """Ten crops of the image brought to a short side of `scale` times the crop; UserError for a scale below 1."""
    if not scale >= 1:
        raise UserError(
            f"a ten-crop lies inside the image, got an image of {scale:g} times the crop's side; give a scale of at "
            "least 1"
        )
    return lambda height, width: ten_crop(height, width, min(height, width) / scale)


def multi_scale(height: int, width: int) -> list[View]:
    """SPEC D8's 50 views: ten crops at each of five scales (He et al. 2015). At the first, a square image's ten crops
    hold two distinct ones.
    """
    return [view for scale in SCALES for view in ten_crop_at(scale)(height, width)]


def mirrored_pair(resize: int, size: int) -> Layout:
    """The evaluation view and its mirror image: the test side of "flip" alone."""

    def layout(height: int, width: int) -> list[View]:
        side = min(height, width) * size / resize
        top, left = (height - side) / 2, (width - side) / 2
        return [View(top, left, side), View(top, left, side, True)]

    return layout


@torch.inference_mode()
def probabilities_over_views(
    module: nn.Module,
    store: PixelStore,
    rows: np.ndarray,
    layout: Layout,
    *,
    engine: Engine,
    preprocessing: Preprocessing,
    batch_size: int = 256,
    temperature: float = 1.0,
) -> np.ndarray:
    """float64 N×C: each image's softmax probabilities, averaged over its views. Views that coincide run once.

    rows: N store rows. The module is put in eval mode and left there. Cost: one pass for each distinct view.
    """
    module.eval()
    reader = Views(store, rows, preprocessing)
    images: list[int] = []
    views: list[View] = []
    weights: list[float] = []
    for position, row in enumerate(np.asarray(rows).tolist()):
        height, width = store.image(row).shape[:2]
        counted = Counter(layout(height, width))
        images += [position] * len(counted)
        views += counted
        weights += [n / counted.total() for n in counted.values()]
    total: np.ndarray | None = None

    def cut(begin: int, image: np.ndarray, offset: int) -> np.ndarray:
        return views[begin + offset].cut(image, preprocessing.size)

    for begin in range(0, len(images), batch_size):
        part = slice(begin, begin + batch_size)
        positions = np.array(images[part])
        pixels = reader.each(positions, partial(cut, begin))
        with engine.autocast():
            outputs = module(engine.inputs(torch.from_numpy(pixels).permute(0, 3, 1, 2), preprocessing))
        answers = softmax(outputs.float().cpu().numpy() / temperature)
        if total is None:
            total = np.zeros((len(rows), answers.shape[1]))
        np.add.at(total, positions, answers * np.array(weights[part])[:, None])
    if total is None:
        raise UserError("probabilities are averaged over the views of at least one image, got none; give some rows")
    return total

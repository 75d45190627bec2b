"""Several views of each image at test time, probabilities averaged: ten crops, ResNet's multi-scale views (SPEC D8).

Training draws random crops, scales and mirror images (`data.views.training_view`, "flip"). Here is the test side: a
fixed grid over the same range, whose mean stands for the mean over the draws. `VIEWS` names the grids that can be asked
for; a model's card says which it is used with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from wellfit.data.batches import EvaluationBatches, Images, Views
from wellfit.data.preprocess import Preprocessing
from wellfit.data.views import resize_region
from wellfit.engine import Engine
from wellfit.errors import UserError, unknown_name
from wellfit.inference.evaluate import logits_of, softmax

# Short sides relative to the crop (SPEC D8: 224, 256, 384, 480 and 640 at 224).
SCALES = tuple(side / 224 for side in (224, 256, 384, 480, 640))
MOVED = 1 / 32  # of the view's side: one pixel of a small image
CORNERS = 8 / 7  # the least ratio of short side to crop at which corners differ enough from the centre


@dataclass(frozen=True)
class View:
    """A square of an image, in pixels of that image; mirrored left to right or not.

    It may leave the image by a part of its side: what is missing there is the image reflected at its edge.
    """

    top: float
    left: float
    side: float
    mirrored: bool = False

    def cut(self, image: np.ndarray, size: int) -> np.ndarray:
        """H×W×3 uint8 → size×size×3 uint8."""
        rows, columns = image.shape[:2]
        beyond = [
            round(x) for x in (-self.top, self.top + self.side - rows, -self.left, self.left + self.side - columns)
        ]
        top, left = self.top, self.left
        if max(beyond) > 0:
            above, below, before, after = (max(0, x) for x in beyond)
            image = np.pad(image, ((above, below), (before, after), (0, 0)), mode="symmetric")
            top, left = top + above, left + before
        view = resize_region(image, top, left, self.side, self.side, size)
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
    return mirrored_too(lambda height, width: [_centre(height, width, resize, size)])


def mirrored_too(layout: Layout) -> Layout:
    """The same views, and after them their mirror images."""

    def both(height: int, width: int) -> list[View]:
        views = layout(height, width)
        return [*views, *(replace(view, mirrored=not view.mirrored) for view in views)]

    return both


def moved(resize: int, size: int) -> Layout:
    """The evaluation view, and it moved a little up and to the left, and down and to the right: the test side of
    "crop" on images without room for crops.
    """

    def layout(height: int, width: int) -> list[View]:
        centre = _centre(height, width, resize, size)
        by = centre.side * MOVED
        return [View(centre.top + sign * by, centre.left + sign * by, centre.side) for sign in (0, -1, 1)]

    return layout


def corners(resize: int, size: int) -> Layout:
    """The four corners and the centre, at the evaluation view's own scale or a little larger."""
    at = ten_crop_at(max(resize / size, CORNERS))
    return lambda height, width: at(height, width)[:5]


def _centre(height: int, width: int, resize: int, size: int) -> View:
    side = min(height, width) * size / resize
    return View((height - side) / 2, (width - side) / 2, side)


@dataclass(frozen=True)
class Preset:
    """Views that can be asked for by name. passes: how many; mirrored: whether mirror images are among them."""

    passes: int
    mirrored: bool
    layout: Callable[[int, int], Layout]  # called with resize and size of the preprocessing
    meaning: str


# From the cheapest to the dearest: each is tried against the best of those before it.
VIEWS = {
    "none": Preset(1, False, lambda resize, size: lambda h, w: [_centre(h, w, resize, size)], "the centre view alone"),
    "flip": Preset(2, True, mirrored_pair, "the centre view and its mirror image"),
    "shift": Preset(3, False, moved, "the centre view, and it moved by 1/32 of its side both ways"),
    "five": Preset(5, False, corners, "the four corners and the centre"),
    "shift-flip": Preset(6, True, lambda *sizes: mirrored_too(moved(*sizes)), "shift, and its mirror images"),
    "ten": Preset(10, True, lambda *sizes: mirrored_too(corners(*sizes)), "five, and its mirror images"),
    "all": Preset(50, True, lambda resize, size: multi_scale, "ten crops at each of five scales, as ResNet was tested"),
}


def preset(name: str) -> Preset:
    """The views of that name; UserError that names the nearest."""
    if name not in VIEWS:
        raise unknown_name("choice of views", name, VIEWS)
    return VIEWS[name]


def answers_over_views(
    module: nn.Module,
    store: Images,
    rows: np.ndarray,
    views: str,
    *,
    engine: Engine,
    preprocessing: Preprocessing,
    batch_size: int = 256,
) -> np.ndarray:
    """float64 N×C: logarithms of the mean probabilities over the views of that name; they serve as logits."""
    layout = preset(views).layout(preprocessing.resize, preprocessing.size)
    mean = probabilities_over_views(
        module, store, rows, layout, engine=engine, preprocessing=preprocessing, batch_size=batch_size
    )
    return np.log(np.maximum(mean, np.finfo(np.float64).tiny))


def answers_of(
    module: nn.Module, batches: EvaluationBatches, views: str, engine: Engine, preprocessing: Preprocessing
) -> np.ndarray:
    """N×C in the order of the split: the network's logits, or with several views logarithms of mean probabilities."""
    if views == "none":
        return logits_of(module, batches, engine, preprocessing)
    reader, size = batches.views, batches.batch_size
    return answers_over_views(
        module, reader.store, reader.rows, views, engine=engine, preprocessing=preprocessing, batch_size=size
    )


@torch.inference_mode()
def probabilities_over_views(
    module: nn.Module,
    store: Images,
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

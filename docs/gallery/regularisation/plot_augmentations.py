"""
Augmentations of one photo
==========================

Every entry of wellfit's table of augmentations on the same photograph (rows D6 to D14). In a configuration: ``augment
= ["flip", "crop", "cutout"]``, with a strength after an equals sign where there is one: ``"rotate=30"``.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

from wellfit.data.augmentations.chain import Chain
from wellfit.data.augmentations.draws import Figures
from wellfit.data.augmentations.mixing import MIXINGS
from wellfit.data.augmentations.table import AUGMENTATIONS, parse_all
from wellfit.report.drawing import STYLE

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})

# %%
# The photographs are scikit-learn's samples: a flower by *vultilion* and a palace by *danielbuechele*, both CC BY.

SIDE = 192


def square(name: str) -> np.ndarray:
    """SIDE×SIDE×3 uint8: every second pixel of a crop of the middle."""
    photo = load_sample_image(name)
    top, left = (photo.shape[0] - 2 * SIDE) // 2, (photo.shape[1] - 2 * SIDE) // 2
    return np.ascontiguousarray(photo[top : top + 2 * SIDE : 2, left : left + 2 * SIDE : 2])


flower, palace = square("flower.jpg"), square("china.jpg")
colours = np.concatenate([flower, palace]).reshape(-1, 3) / 255.0
values, vectors = np.linalg.eigh(np.cov(colours.T))
figures = Figures(
    fill=np.rint(255 * colours.mean(0)).astype(np.uint8)[None, None],  # what becomes zero at the network's input
    colour_axes=(vectors * values)[:, ::-1],
)


def views(names: list[str], count: int, seed: int = 0) -> list[np.ndarray]:
    """`count` training views of the flower, as `count` epochs would show it."""
    chain = Chain(parse_all(names), figures, images=2, classes=2, seed=seed)
    pair, labels = np.stack([flower, palace]), np.array([0, 1])
    shown = []
    for epoch in range(count):
        pixels = chain(pair, np.array([0, 1]), epoch)
        shown.append(chain.mix(pixels, labels, epoch)[0][0])
    return shown


# %%
# One at a time
# -------------
# Of eight epochs, the one that differs most from the original, and a middling one.

columns = 6
rows = -(-(len(AUGMENTATIONS) + 1) // (columns // 2))
figure, axes = plt.subplots(rows, columns, figsize=(10.5, 1.95 * rows), layout="constrained")
for panel in axes.flat:
    panel.axis("off")
cells = axes.reshape(-1, 2)
cells[0, 0].imshow(flower)
cells[0, 0].set_title("original", fontsize=9.5)
for (left, right), (name, entry) in zip(cells[1:], AUGMENTATIONS.items(), strict=False):
    found = views([name], 8)
    order = sorted(found, key=lambda view: -np.abs(view.astype(int) - flower).mean())
    left.imshow(order[0])
    right.imshow(order[4])
    strength = "" if entry.strength is None else f"={entry.strength}"
    left.set_title(f"{name}{strength}", fontsize=9.5, loc="left")
plt.show()

# %%
# As a training sees it
# ---------------------
# Several in a row, twelve epochs of one image. The test side is the image itself: what was random in training is left
# at its middle (row R4).

figure, axes = plt.subplots(2, 6, figsize=(10.5, 3.6), layout="constrained")
for panel, view in zip(axes.flat, views(["flip", "crop", "colour_jitter", "rotate=10", "cutout=0.3"], 12), strict=True):
    panel.imshow(view)
    panel.axis("off")
plt.show()

# %%
# Labels that are blended
# -----------------------
# Mixup and CutMix change the label with the image; the shares always add up to 1.

figure, axes = plt.subplots(1, 4, figsize=(10.5, 2.9), layout="constrained")
for panel, (name, step) in zip(axes, [(name, step) for name in MIXINGS for step in (1, 3)], strict=True):
    chain = Chain(parse_all([f"{name}=1"]), figures, images=2, classes=2, seed=2)
    mixed, targets = chain.mix(np.stack([flower, palace]), np.array([0, 1]), step)
    panel.imshow(mixed[0])
    panel.set_title(f"{name}: flower {targets[0, 0]:.2f}, palace {targets[0, 1]:.2f}", fontsize=9.5)
    panel.axis("off")
plt.show()

# %%
# What it means for your choice
# -----------------------------
# Take what leaves the class as it is. A mirrored flower is a flower; a mirrored digit is not a digit, so wellfit
# measures on your images whether flipping is safe (``augment = "auto"``). Flip and crop almost always; cutout and
# mixup for small sets; the policies (AutoAugment, RandAugment, TrivialAugment) for long trainings, since a harder
# task takes longer to learn.

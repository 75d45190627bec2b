"""
First-layer filters
===================

The weights of a first convolution are small colour images: what each of them answers to can be looked at (row C11).
Deeper layers look at other layers, and their weights say little to the eye.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_sample_image
from torch import nn

from wellfit.models.init import initialise
from wellfit.randomness import generator
from wellfit.report.curves_filters import filters_of
from wellfit.report.drawing import PALETTE, STYLE, plain_axes
from wellfit.training.optimizers import build_optimizer
from wellfit.training.schedules import schedule

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})
QUICK = os.environ.get("WELLFIT_GALLERY") == "quick"
STEPS = 10 if QUICK else 500

# %%
# A task that needs edges
# -----------------------
# Patches of two photographs (scikit-learn's samples, CC BY, by *danielbuechele* and *vultilion*) are turned by 0, 90,
# 180 or 270 degrees, and the net has to say which photograph it is and how far it was turned: eight classes that need
# colours, edges and their direction.

SIDE, FILTERS, KERNEL, LR = 24, 16, 7, 5e-3
photos = [torch.tensor(load_sample_image(name) / 255.0, dtype=torch.float32) for name in ("china.jpg", "flower.jpg")]
mean = torch.cat([photo.reshape(-1, 3) for photo in photos]).mean(0)


def patches(step: int, count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """count×3×SIDE×SIDE, centred, and the class of each: the photograph and how many quarters it was turned."""
    draw = generator(0, "gallery-patches", step)
    turns = draw.integers(4, size=count)
    found, classes = [], []
    for turn in turns:
        which = int(draw.integers(len(photos)))
        photo = photos[which]
        classes.append(4 * which + int(turn))
        top, left = (int(draw.integers(length - SIDE)) for length in photo.shape[:2])
        found.append(torch.rot90(photo[top : top + SIDE, left : left + SIDE] - mean, int(turn)))
    return torch.stack(found).permute(0, 3, 1, 2).contiguous(), torch.tensor(classes)


net = nn.Sequential(
    nn.Conv2d(3, FILTERS, KERNEL, padding=3, bias=False),
    nn.BatchNorm2d(FILTERS),
    nn.ReLU(),
    nn.MaxPool2d(4),
    nn.Conv2d(FILTERS, 32, 3, padding=1),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(32 * 9, 8),
)
initialise(net, seed=0)
before = net[0].weight.detach().clone()
strongly = {"params": [net[0].weight], "weight_decay": 3.0}  # what the task does not hold up is forgotten
optimizer = build_optimizer("adamw", [strongly, {"params": list(net[1:].parameters())}], lr=LR, weight_decay=0.01)
rate = schedule("cosine")
right = []
for step in range(STEPS):
    for group in optimizer.param_groups:
        group["lr"] = LR * rate(step / STEPS)
    images, classes = patches(step)
    scores = net(images)
    optimizer.zero_grad()
    nn.functional.cross_entropy(scores, classes).backward()
    optimizer.step()
    right.append(float((scores.argmax(1) == classes).float().mean()))
print(f"{np.mean(right[-50:]):.0%} of the last 50 batches' patches named rightly, where guessing gives 12.5%")


# %%
# Before and after
# ----------------
# Each filter is scaled to its own range, with grey for zero; a run's report shows them the same way.

figure, axes = plt.subplots(2, 1, figsize=(8, 4.9), layout="constrained")
for panel, (title, weights) in zip(axes, {"before": before, "after": net[0].weight.detach()}.items(), strict=True):
    panel.imshow(filters_of(weights.numpy()).mosaic(FILTERS // 2), interpolation="nearest")
    panel.set_title(f"{FILTERS} filters of {KERNEL}×{KERNEL}×3, {title} training")
    panel.axis("off")
plt.show()

# %%
# Is a filter smooth?
# -------------------
# Noise has as much of itself in every frequency; what has learnt an edge or a colour is smooth. The share of a
# filter's power in the lowest frequencies says which.


def smooth_share(weights: torch.Tensor) -> np.ndarray:
    """Share of the power at frequencies of at most one wave a filter, for each filter."""
    power = torch.fft.fft2(weights).abs().square().sum(1)
    low = torch.fft.fftfreq(KERNEL).abs() < 1.5 / KERNEL
    return (power[:, low][:, :, low].sum((1, 2)) / power.sum((1, 2))).numpy()


figure, axes = plt.subplots(figsize=(7.5, 2.9), layout="constrained")
for title, weights, colour in (("before", before, "muted"), ("after", net[0].weight.detach(), "train")):
    axes.plot(np.sort(smooth_share(weights)), "o-", color=PALETTE[colour], label=f"{title} training")
axes.set(xlabel="filters, in order", ylabel="share of low frequencies", ylim=(0, 1))
axes.legend(loc="upper left")
plain_axes(axes)
plt.show()

# %%
# What it means for your choice
# -----------------------------
# Filters that still look like noise after a long training were not trained long enough, or with too little weight
# decay or too high a rate; several that are the same, or flat grey, are capacity that is not used. A net pretrained
# on photographs shows oriented edges and blobs of opposite colours. If your images are photographs at all, begin with
# such a net.

"""
A detector on a classifier's body
=================================

A network that was trained to name images has learnt more than names: its feature maps hold what is where, at several
scales. Detectors are built on such a body (row T6). Of a finished run it is ``run.backbone(levels=(2, 3, 4, 5))``;
here a small network learns to read digits first, and then carries torchvision's RetinaNet, which finds them in a scene.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

from wellfit.models.backbone import backbone
from wellfit.models.zoo import build
from wellfit.report.drawing import PALETTE, STYLE, plain_axes

QUICK = os.environ.get("WELLFIT_GALLERY") == "quick"
plt.style.use({**STYLE, "figure.dpi": 110})
torch.manual_seed(0)
torch.set_num_threads(1)

# %%
# A classifier of digits
# ----------------------
# scikit-learn's 8×8 digits, three times as large. What `wellfit.fit("digits")` hands over would do as well.

digits, names = load_digits(return_X_y=True)
digits = np.kron(digits.reshape(-1, 8, 8), np.ones((3, 3))).astype(np.float32) / 16
draw = np.random.default_rng(0)


def inputs(images: np.ndarray) -> torch.Tensor:
    """Grey N×H×W in 0-1 to three centred channels."""
    return torch.from_numpy(images)[:, None].repeat(1, 3, 1, 1) * 2 - 1


net = build("resnet20", 10, image_size=24).module.train()
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
for _ in range(2 if QUICK else 150):
    rows = draw.integers(0, 1500, 64)
    loss = nn.functional.cross_entropy(net(inputs(digits[rows])), torch.from_numpy(names[rows]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    right = (net.eval()(inputs(digits[1500:])).argmax(1).numpy() == names[1500:]).mean()
print(f"digits named rightly: {right:.0%}")

# %%
# Its body
# --------
# One map a level; level l has 1/2ˡ of the image's resolution. What no map needs, the last layer, is gone.

body = backbone(net, "resnet20", 24, levels=(1, 2))
for level, value in body(torch.zeros(1, 3, 64, 64)).items():
    print(f"level {level}: {tuple(value.shape)}")
print("channels", body.channels, "strides", body.strides)

# %%
# The detector
# ------------
# A feature pyramid brings the maps to one width, and the anchors follow the strides. RetinaNet normalises the images
# itself, so it is told the mean and deviation that the body was trained with.


class Pyramid(nn.Module):
    """The body and a feature pyramid on it, in the form that torchvision's detectors take."""

    def __init__(self, body: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.body, self.out_channels = body, width
        self.fpn = FeaturePyramidNetwork(list(body.channels), width)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.fpn(self.body(x))


def detector_on(body: nn.Module) -> RetinaNet:
    anchors = AnchorGenerator(sizes=((20.0,), (28.0,)), aspect_ratios=((1.0,),) * 2)
    half = [0.5] * 3
    sizes = {"min_size": 64, "max_size": 64, "image_mean": half, "image_std": half}
    return RetinaNet(Pyramid(body), 1, anchor_generator=anchors, detections_per_img=6, **sizes)


def scene() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Two digits on a noisy ground of 64×64, with their boxes; all are of one class, 'a digit'."""
    ground = draw.uniform(0, 0.3, (64, 64)).astype(np.float32)
    boxes = []
    for half in (0, 32):
        which, y, x = draw.integers(0, 1500), draw.integers(0, 40), half + draw.integers(0, 9)
        ground[y : y + 24, x : x + 24] = np.maximum(ground[y : y + 24, x : x + 24], digits[which])
        boxes.append([x, y, x + 24, y + 24])
    image = torch.from_numpy(ground)[None].repeat(3, 1, 1)
    return image, {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.zeros(2, dtype=torch.int64)}


def train(detector: RetinaNet, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    losses = []
    for _ in range(steps):
        images, targets = zip(*(scene() for _ in range(4)), strict=True)
        loss = sum(detector.train()(list(images), list(targets)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


detector = detector_on(body)
losses = train(detector, 2 if QUICK else 140)

# %%
# What it finds
# -------------
# Scenes that it was not trained on; dotted: the true boxes.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", width_ratios=(1.6, 1, 1))
axes[0].plot(losses, ".", color=PALETTE["muted"], ms=3)
smooth = np.convolve(losses, np.ones(min(10, len(losses))) / min(10, len(losses)), "valid")
axes[0].plot(np.arange(len(smooth)) + len(losses) - len(smooth), smooth, color=PALETTE["train"])
axes[0].set(xlabel="step", ylabel="loss of the detector", ylim=(0, None))
plain_axes(axes[0])
draw = np.random.default_rng(11)
for panel in axes[1:]:
    image, target = scene()
    with torch.no_grad():
        found = detector.eval()([image])[0]
    panel.imshow(image[0].numpy(), cmap="gray", vmin=0, vmax=1)
    for x, y, right_side, bottom in target["boxes"].tolist():
        panel.add_patch(Rectangle((x, y), right_side - x, bottom - y, fill=False, ec="white", lw=1, ls=":"))
    for (x, y, right_side, bottom), score in zip(found["boxes"].tolist(), found["scores"].tolist(), strict=True):
        if score > 0.5:
            colour = PALETTE["averaged"]
            panel.add_patch(Rectangle((x, y), right_side - x, bottom - y, fill=False, ec=colour, lw=2))
            panel.annotate(f"{score:.0%}", (x, y), (2, -10), textcoords="offset points", color=colour, fontsize=10)
    panel.set(xticks=[], yticks=[])
plt.show()

# %%
# What it means for your choice
# -----------------------------
# A few hundred labelled images of single things are cheaper than boxes in scenes. Fit a classifier on the former, take
# its backbone, and train the detector on the latter: it starts from features that fit your pictures. The levels to ask
# for follow from the size of the things: level l sees them in cells of 2ˡ pixels, and wants at least two or three cells
# across each of them.

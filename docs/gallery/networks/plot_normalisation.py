"""
BatchNorm, LayerNorm, InstanceNorm and GroupNorm
================================================

The four differ in one thing: which numbers share a mean and a standard deviation (row N2). The layers are those that
:func:`wellfit.models.layers.normalization.build_normalization` gives to a configuration's ``normalization``.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from wellfit.models.layers.normalization import build_normalization
from wellfit.report.drawing import PALETTE, STYLE, plain_axes

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})

N, C, PLACES, GROUPS = 4, 6, 3, 3
KINDS = {
    "batch": "BatchNorm: one pair a channel, 1×C×1×1",
    "layer": "LayerNorm: one pair an image, N×1",
    "instance": "InstanceNorm: one pair an image and channel, N×C",
    "group": f"GroupNorm: one pair an image and group, N×{GROUPS}",
}

# %%
# Which axes share their statistics
# ---------------------------------
# This is measured, not drawn from memory: a bump is put on one number of an N×C×H×W array, and every output that
# notices has it among its statistics.


def layer_of(kind: str) -> nn.Module:
    groups = GROUPS if kind == "group" else None
    return build_normalization(kind, C, groups=groups).double().train()


def shared(kind: str, image: int, channel: int) -> np.ndarray:
    """N×C×places, True where the output follows the first place of this channel of this image."""
    x = torch.randn(N, C, PLACES, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bumped = x.clone()
    bumped[image, channel, 0, 0] += 1.0
    with torch.no_grad():
        return ((layer_of(kind)(x) - layer_of(kind)(bumped)).abs() > 1e-9)[..., 0].numpy()


figure = plt.figure(figsize=(10.5, 6.6), layout="constrained")
for number, (kind, title) in enumerate(KINDS.items()):
    panel = figure.add_subplot(2, 2, number + 1, projection="3d")
    cells = shared(kind, N - 1, 0)  # images × channels × places, seen from the nearest corner
    colours = np.where(cells, PALETTE["train"], "#eef1f4")
    panel.voxels(np.ones(cells.shape, dtype=bool), facecolors=colours, edgecolor="white", linewidth=0.8, shade=False)
    panel.set_xlabel("images N", labelpad=-12)
    panel.set_ylabel("channels C", labelpad=-12)
    panel.set_zlabel("places H×W", labelpad=-14)
    panel.set(xticks=[], yticks=[], zticks=[])
    panel.set_title(title, fontsize=10.5)
    panel.view_init(elev=24, azim=-52)
    panel.set_box_aspect((N, C, PLACES), zoom=1.1)
plt.show()

for kind in KINDS:
    found = {tuple(shared(kind, i, c).ravel()) for i in range(N) for c in range(C)}
    print(f"{kind:>9}: {len(found):>2} pairs of mean and deviation for {N} images of {C} channels")

# %%
# Training against test
# ---------------------
# BatchNorm alone looks at the other images of the batch, so it alone needs running statistics for the test, and it
# alone answers differently in training and at test.

x = 3.0 + 2.0 * torch.randn(16, C, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
for kind in KINDS:
    layer = layer_of(kind)
    with torch.no_grad():
        trained, tested = layer(x), layer.eval()(x)
    print(f"{kind:>9}: largest difference between training and test {float((trained - tested).abs().max()):.3g}")

# %%
# What it buys
# ------------
# Ten fully connected layers on 600 of scikit-learn's digits, 40 steps of plain SGD at each learning rate, from
# weights so small that activations fade on the way up (standard deviation 0.05; compare row I1). With BatchNorm the
# net trains over a wide range of rates; without it, at none of them.

from sklearn.datasets import load_digits  # noqa: E402

from wellfit.models.init import small_gaussian  # noqa: E402
from wellfit.training.optimizers import build_optimizer  # noqa: E402

digits = load_digits()
pixels = torch.tensor(digits.data[:600] / 8.0 - 1.0, dtype=torch.float32)
labels = torch.tensor(digits.target[:600])
QUICK = os.environ.get("WELLFIT_GALLERY") == "quick"
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
STEPS = 5 if QUICK else 40


def accuracy_after_training(normalization: str, lr: float) -> float:
    layers: list[nn.Module] = []
    for inputs in (64, *[64] * 9):
        layers += [nn.Linear(inputs, 64), build_normalization(normalization, 64, vectors=True), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(64, 10))
    small_gaussian(net, seed=0, std=0.05)
    optimizer = build_optimizer("sgd", net, lr=lr)
    for _ in range(STEPS):
        nn.functional.cross_entropy(net(pixels), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return float((net(pixels).argmax(1) == labels).float().mean())


figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
for name, colour in {"batch": PALETTE["train"], "layer": PALETTE["averaged"], "none": PALETTE["alarm"]}.items():
    axes.plot(RATES, [accuracy_after_training(name, lr) for lr in RATES], "o-", color=colour, label=name)
axes.axhline(0.1, color=PALETTE["muted"], lw=1, ls=":")
axes.annotate("guessing", (RATES[0], 0.1), (0, 4), textcoords="offset points", fontsize=9, color=PALETTE["muted"])
axes.set(xscale="log", xlabel="learning rate", ylabel="training accuracy after 40 steps", ylim=(0, 1.03))
axes.legend(title="normalization", loc="center left", bbox_to_anchor=(1, 0.5))
plain_axes(axes)
plt.show()

# %%
# What it means for your choice
# -----------------------------
# BatchNorm almost always in a convolutional net (row R5), between the convolution and the non-linearity. Where
# batches are very small its statistics are noisy: take GroupNorm, which does not look at other images. LayerNorm is
# for transformers and fully connected stacks, InstanceNorm for style, where an image's contrast is to be forgotten.

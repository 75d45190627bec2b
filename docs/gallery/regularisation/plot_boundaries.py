"""
Regularised decision boundaries
===============================

The same network on the same noisy points, with more and less restraint: L2, L1, dropout (rows R1 and R5). Penalties
are those of :mod:`wellfit.training.regularize`.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from sklearn.datasets import make_moons
from torch import nn

from wellfit.models.stack import stack
from wellfit.report.drawing import PALETTE, STYLE
from wellfit.training.optimizers import build_optimizer
from wellfit.training.regularize import elastic_net, l1, l2

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})
QUICK = os.environ.get("WELLFIT_GALLERY") == "quick"
STEPS = 20 if QUICK else 400

points, labels = make_moons(n_samples=600, noise=0.35, random_state=1)
x, y = torch.tensor(points, dtype=torch.float32), torch.tensor(labels)
training, unseen = slice(0, 80), slice(80, 600)

SETTINGS = {
    "no restraint": {},
    "L2, 1e-3": {"penalty": l2(1e-3)},
    "L2, 1e-2": {"penalty": l2(1e-2)},
    "L1, 1e-3": {"penalty": l1(1e-3)},
    "elastic net, 5e-4": {"penalty": elastic_net(5e-4)},
    "dropout 0.5": {"dropout": 0.5},
}


def trained(penalty: object = None, dropout: float = 0.0) -> nn.Module:
    """Two hidden layers of 100 units, 400 full-batch steps of Adam."""
    torch.manual_seed(0)  # dropout's masks
    net = stack((2, 100, 100), classes=2, dropout=dropout, seed=0)
    optimizer = build_optimizer("adam", net, lr=1e-2)
    for _ in range(STEPS):
        loss = nn.functional.cross_entropy(net(x[training]), y[training])
        if penalty is not None:
            loss = loss + penalty(net)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def accuracy(net: nn.Module, part: slice) -> float:
    return float((net(x[part]).argmax(1) == y[part]).float().mean())


sides = LinearSegmentedColormap.from_list("sides", [PALETTE["train"], "#fdfdfc", PALETTE["validation"]])
gx, gy = np.meshgrid(np.linspace(-2, 3, 120), np.linspace(-1.6, 2.1, 120))
field = torch.tensor(np.stack([gx.ravel(), gy.ravel()], axis=1), dtype=torch.float32)
figure, axes = plt.subplots(2, 3, figsize=(10.5, 6.6), layout="constrained")
for panel, (name, setting) in zip(axes.flat, SETTINGS.items(), strict=True):
    net = trained(**setting)
    with torch.no_grad():
        chance = net(field).softmax(1)[:, 1].numpy().reshape(gx.shape)
    panel.contourf(gx, gy, chance, levels=np.linspace(0, 1, 21), cmap=sides, alpha=0.6)
    panel.contour(gx, gy, chance, levels=[0.5], colors=PALETTE["ink"], linewidths=1.4)
    for label, colour in ((0, PALETTE["train"]), (1, PALETTE["validation"])):
        panel.plot(*points[training][labels[training] == label].T, "o", ms=4.5, color=colour, mec="white", mew=0.6)
    seen, new = accuracy(net, training), accuracy(net, unseen)
    panel.set(title=f"{name}\ntrain {seen:.0%}, unseen {new:.0%}", xticks=[], yticks=[])
    weights = torch.cat([p.detach().abs().flatten() for p in net.parameters() if p.ndim > 1])
    near_zero = float((weights < 1e-3).float().mean())
    print(f"{name:>18}: weights' norm {float(weights.norm()):6.2f}, {near_zero:.0%} of them below 0.001 in size")
plt.show()

# %%
# What to see
# -----------
# Without restraint the boundary runs round single points, and the net is sure of itself everywhere: the colours
# change at once. L2 shrinks all weights; the boundary smooths and the net admits doubt near it. L1 sets most weights
# to (almost) zero. Dropout answers as an average of many nets does. On 80 points the accuracies differ by little:
# restraint is worth most where data are few for the size of the net, and the validation split says how much of it.
#
# What it means for your choice (row R5): more data and augmentation first, BatchNorm almost always; a weight decay of
# about 1e-4 costs nothing; dropout for large fully connected layers; cutout and mixup where images are few. In a
# configuration ``training.l2`` and ``training.l1`` are terms of the loss, ``optimizer.weight_decay`` acts in the
# step: for plain SGD a decay of 2λ is the same as λΣw², for Adam it is not.

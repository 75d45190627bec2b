"""
Receptive fields
================

How much of the image one unit sees, and what that costs (row N10). The table comes from
:func:`wellfit.models.complexity.complexity`, which runs a net on torch's meta device: VGG-19 takes no memory there.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
import torchvision
from matplotlib.patches import Rectangle
from torch import nn

from wellfit.models.complexity import complexity
from wellfit.models.init import kaiming
from wellfit.report.drawing import PALETTE, STYLE, plain_axes

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})

# %%
# Three 3×3 convolutions see as far as one 7×7
# --------------------------------------------
# The same 7×7 pixels reach the unit, through three non-linearities instead of one, with 27C² weights instead of 49C².

C = 64
three = nn.Sequential(*[nn.Conv2d(C, C, 3, padding=1, bias=False) for _ in range(3)])
one = nn.Conv2d(C, C, 7, padding=3, bias=False)
for name, net in (("three 3×3", three), ("one 7×7", one)):
    table = complexity(net, (C, 32, 32))
    print(
        f"{name:>10}: receptive field {table.receptive_field}, {table.weights:,} weights ({table.weights / C**2:.0f}C²)"
    )

# %%
# Which pixels a unit follows
# ---------------------------
# The gradient of the middle unit with respect to the image, for one to four convolutions with random weights,
# averaged over 40 draws: the field grows by two pixels a layer, and its middle counts most. The frame is the field as
# computed.

SIDE = 15
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
for depth, panel in enumerate(axes, start=1):
    seen = np.zeros((SIDE, SIDE))
    for draw in range(40):
        layers = [nn.Conv2d(1 if i == 0 else 8, 8, 3, padding=1, bias=False) for i in range(depth)]
        net = nn.Sequential(*layers)
        kaiming(net, seed=draw)
        image = torch.zeros(1, 1, SIDE, SIDE, requires_grad=True)
        net(image)[0, :, SIDE // 2, SIDE // 2].sum().backward()
        seen += image.grad[0, 0].abs().numpy()
    field = complexity(net, (1, SIDE, SIDE)).receptive_field
    panel.imshow(seen / seen.max(), cmap="Blues", vmin=0, vmax=1)
    corner = SIDE // 2 - field // 2 - 0.5
    panel.add_patch(Rectangle((corner, corner), field, field, fill=False, ec=PALETTE["validation"], lw=2))
    panel.set(title=f"{depth} × 3×3: sees {field}×{field}", xticks=[], yticks=[])
plt.show()

# %%
# Through a whole net
# -------------------
# Pooling and strides multiply what every later layer adds. Beside the field: where memory and parameters go.


def shape_only(name: str) -> nn.Module:
    """torchvision's net without memory for its weights."""
    with torch.device("meta"):
        return getattr(torchvision.models, name)()


figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
for name, colour in {
    "resnet18": PALETTE["train"],
    "resnet34": PALETTE["averaged"],
    "vgg16": PALETTE["validation"],
}.items():
    table = complexity(shape_only(name), 224)
    path = [layer for layer in table.layers if layer.type in ("Conv2d", "MaxPool2d") and "downsample" not in layer.name]
    fields = [layer.receptive_field for layer in path]
    axes.plot(range(1, len(fields) + 1), fields, "o-", ms=4, color=colour, label=name)
    print(f"{name}:", *table.sentences, sep="\n    ")
axes.axhline(224, color=PALETTE["muted"], lw=1, ls=":")
axes.annotate("the whole image", (1, 224), (0, 4), textcoords="offset points", fontsize=9, color=PALETTE["muted"])
axes.set(xlabel="convolution or pooling, from the input", ylabel="receptive field, pixels")
axes.legend(loc="upper left", bbox_to_anchor=(0, 0.85))
plain_axes(axes)
plt.show()

# %%
# What it means for your choice
# -----------------------------
# Small filters, many of them in a row. If the objects you tell apart are larger than the field of the last layer,
# take a deeper net or smaller images; if they are a few pixels wide, a stem that shrinks the image fourfold loses
# them, which is why wellfit gives images of up to 64 pixels a stem of stride 1.

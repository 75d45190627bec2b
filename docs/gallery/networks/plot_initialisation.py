"""
Initial weights: six stacks and what they do to a signal
========================================================

The tables I1 to I6 as histograms: ten layers of 500 units on unit Gaussian input, without biases (row N8). The
figures come from :func:`wellfit.activation_statistics`, which takes any network and any batch, also yours.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import torch

import wellfit
from wellfit.diagnosis.statistics import ActivationStatistics
from wellfit.models.stack import stack
from wellfit.report.drawing import PALETTE, STYLE, plain_axes

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})
QUICK = os.environ.get("WELLFIT_GALLERY") == "quick"
UNITS, IMAGES = (50, 100) if QUICK else (500, 1000)

# %%
# What a course's table looks like
# --------------------------------
# One call, one line a layer. Here I4: ReLU with Xavier's weights, made for tanh; every layer halves the signal's
# power.

batch = torch.randn(IMAGES, UNITS, generator=torch.Generator().manual_seed(0))
targets = torch.zeros(IMAGES, dtype=torch.long)


def statistics(activation: str, rule: str) -> ActivationStatistics:
    net = stack([UNITS] * 11, activation, initialisation=rule, bias=False, seed=0)
    return wellfit.activation_statistics(net, batch, targets)


print(statistics("relu", "xavier").table())

# %%
# Six stacks, layer by layer
# --------------------------
# Each row is one stack, from its first hidden layer on the left to its last on the right; the outermost bars hold
# what lies beyond. The course shows I6 on 4,096 units, where a standard deviation of 0.05 is already too large; on
# 500 it is 0.1.

STACKS = {
    "I1  tanh, 0.01·N(0, 1)": ("tanh", "small_gaussian=0.01"),
    "I2  tanh, 1.0·N(0, 1)": ("tanh", "small_gaussian=1.0"),
    "I3  tanh, Xavier": ("tanh", "xavier"),
    "I4  ReLU, Xavier": ("relu", "xavier"),
    "I5  ReLU, Kaiming": ("relu", "kaiming"),
    "I6  ReLU, 0.1·N(0, 1)": ("relu", "small_gaussian=0.1"),
}
SHOWN = (1, 2, 3, 4, 6, 8, 10)
measured = {name: statistics(*made).layers for name, made in STACKS.items()}

figure, axes = plt.subplots(len(STACKS), len(SHOWN), figsize=(10.5, 8.6), layout="constrained")
for row, (name, layers) in zip(axes, measured.items(), strict=True):
    for panel, number in zip(row, SHOWN, strict=True):
        layer = layers[number - 1]
        edges = np.linspace(layer.low, layer.high, len(layer.counts) + 1)
        colour = PALETTE["train"] if "tanh" in name else PALETTE["averaged"]
        panel.stairs(layer.counts / layer.counts.sum(), edges, fill=True, color=colour, alpha=0.75)
        panel.set(yticks=[], ylim=(0, 0.35), xticks=[layer.low, layer.high])
        panel.set_title(f"std {layer.std:.2g}", fontsize=9)
        panel.tick_params(labelsize=8, length=2)
        panel.spines[["top", "right", "left"]].set_visible(False)
    row[0].set_ylabel(name.replace("  ", "\n"), fontsize=9)
for panel, number in zip(axes[-1], SHOWN, strict=True):
    panel.set_xlabel(f"layer {number}", fontsize=9)
plt.show()

# %%
# Forwards and backwards
# ----------------------
# The gradient has to come back through the same weights. What fades forwards fades backwards too.

colours = [PALETTE["alarm"], PALETTE["validation"], PALETTE["train"], "#8a6d3b", PALETTE["averaged"], PALETTE["ink"]]
figure, (forward, backward) = plt.subplots(1, 2, figsize=(10.5, 3.9), layout="constrained")
for (name, layers), colour in zip(measured.items(), colours, strict=True):
    numbers = range(1, len(layers) + 1)
    forward.plot(numbers, [layer.std for layer in layers], "o-", ms=4, color=colour, label=name)
    backward.plot(numbers, [max(layer.gradient_std or 0.0, 1e-30) for layer in layers], "o-", ms=4, color=colour)
forward.set(yscale="log", xlabel="layer", ylabel="std of the activations")
backward.set(yscale="log", xlabel="layer", ylabel="std of the gradients")
plain_axes(forward, backward)
figure.legend(loc="outside lower center", ncols=3)
plt.show()

# %%
# Xavier has two forms
# --------------------
# 1/√fan_in keeps the signal on its way forward, √(2/(fan_in + fan_out)) is the compromise between both ways. In
# square layers they are the same; in these, which halve at each step, they are not:

for rule in ("xavier", "xavier_average"):
    net = stack([UNITS, UNITS // 2, UNITS // 4, UNITS // 8], "tanh", initialisation=rule, bias=False, seed=0)
    rows = wellfit.activation_statistics(net, batch).layers
    print(f"{rule:>15}: std of the layers {', '.join(f'{row.std:.3f}' for row in rows)}")

# %%
# What to see
# -----------
# Too small (I1) and the signal is gone after a few layers, and so is the gradient on its way back. Too large and tanh
# saturates (I2): most units sit at -1 or 1 where the derivative is nothing, while through the few others the gradient
# explodes; ReLU blows up (I6). Xavier keeps tanh alive (I3) and lets ReLU fade (I4); Kaiming's √2 makes up for the
# half that ReLU cuts off (I5).
#
# What it means for your choice: Kaiming for ReLU and its kin, Xavier for tanh. wellfit's own nets start so by
# themselves (``initialisation = "kaiming"`` in ``[model.options]``). Look at your network with this function before
# you blame the learning rate.

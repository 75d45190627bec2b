"""
Dropout as an ensemble
======================

Each dropout mask is another network that shares its weights with all others. Test time asks for their average, and
scaling gives it in one pass: exactly for one linear layer, nearly for a deep net (rows N3 and R4).
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch

from wellfit.models.layers.dropout import build_dropout
from wellfit.models.stack import stack
from wellfit.report.drawing import PALETTE, STYLE, plain_axes

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})

# %%
# One neuron, four masks
# ----------------------
# For inputs x, y and weights w1, w2 the four equally likely masks give w1x + w2y, w1x, w2y and 0, whose mean is ½(w1x
# + w2y): what the *keep* probability times the whole output says.

w, xy = np.array([0.8, -0.3]), np.array([2.0, 1.0])
masks = np.array(list(itertools.product((0, 1), repeat=2)))
outputs = (masks * xy) @ w
for mask, output in zip(masks, outputs, strict=True):
    print(f"mask {mask}: {output:+.2f}")
print(f"mean of the four {outputs.mean():+.2f}, half of the whole {0.5 * (w @ xy):+.2f}")

# %%
# All 1,024 masks of a hidden layer
# ---------------------------------
# Ten hidden units, two classes. The probability that each masked net gives is enumerated; the scaled net
# (:func:`wellfit.models.layers.dropout.build_dropout` at test time) gives one number, close to their mean.

hidden_units = 10
draw = torch.Generator().manual_seed(3)
first = torch.randn(2, hidden_units, generator=draw)
second = torch.randn(hidden_units, generator=draw) * 0.9
hidden = torch.relu(torch.tensor([1.2, -0.4]) @ first + 1.0)
every_mask = torch.tensor(list(itertools.product((0.0, 1.0), repeat=hidden_units)))

# Inverted dropout, torch's form: divided by the keep probability in training, unchanged at test.
bias = 0.8
logits = (every_mask / 0.5 * hidden) @ second + bias
probabilities = torch.sigmoid(logits).numpy()
dropout = build_dropout(0.5).eval()
scaled = float(torch.sigmoid(dropout(hidden) @ second + bias))
one_pass = float(dropout(hidden) @ second + bias)
print(f"logit: mean over masks {float(logits.mean()):.4f}, scaled net {one_pass:.4f} (equal)")
print(f"probability: mean over masks {probabilities.mean():.4f}, scaled net {scaled:.4f} (close)")

figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
axes.hist(probabilities, bins=40, range=(0, 1), color=PALETTE["train"], alpha=0.35, edgecolor=PALETTE["train"], lw=0.6)
axes.axvline(probabilities.mean(), color=PALETTE["train"], lw=2, label="mean of the 1,024 nets")
axes.axvline(scaled, color=PALETTE["validation"], lw=2, ls="--", label="the scaled net")
axes.set(xlabel="probability of class 1", ylabel="masked nets")
axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
plain_axes(axes)
plt.show()

# %%
# Both forms agree
# ----------------
# Vanilla dropout zeroes in training and multiplies by the *keep* probability at test; inverted dropout divides by it
# in training. wellfit's and torch's argument is the *drop* probability. The mean of many training passes tends to the
# test output in either form:

x = torch.ones(1, 50)
for form in ("inverted", "vanilla"):
    layer = build_dropout(0.2, form)
    torch.manual_seed(0)
    mean = torch.stack([layer.train()(x) for _ in range(4000)]).mean()
    print(f"{form:>9}: training, mean of 4000 passes {float(mean):.3f}; test {float(layer.eval()(x).mean()):.3f}")

# %%
# What a deep net loses by it
# ---------------------------
# Two hidden layers with dropout: the average over more and more masks comes nearer to the scaled net and then stays
# apart from it, by two or three hundredths of a probability. That rest is what one pass costs against the ensemble.

counts = np.array([1, 3, 10, 30, 100, 300, 1000])
net = stack((2, 64, 64), classes=1, dropout=0.5, seed=0)
with torch.no_grad():
    points = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    draws = torch.stack([torch.sigmoid(net.train()(points)) for _ in range(counts[-1])])
    test = torch.sigmoid(net.eval()(points))
apart = [float((draws[:n].mean(0) - test).abs().mean()) for n in counts]
figure, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
axes.plot(counts, apart, "o-", color=PALETTE["train"], label="mean over masks against the scaled net")
axes.plot(counts, apart[0] / np.sqrt(counts), ":", color=PALETTE["muted"], label="1/√masks")
axes.set(xscale="log", yscale="log", xlabel="masks averaged", ylabel="difference in probability")
axes.legend(loc="lower left")
plain_axes(axes)
plt.show()

# %%
# What it means for your choice
# -----------------------------
# A fully connected layer of 4,096 units has 2^4096, about 10^1233, masks: an ensemble that nobody could train apart.
# Use dropout for large fully connected layers; convolutional nets with BatchNorm and augmentation seldom need it (row
# R5). A network with dropout has to be in evaluation mode at test time, or its answers are random; wellfit sees to
# that.

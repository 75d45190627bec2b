"""
Reading a training's curves
===========================

The loss as dots with its moving average, train and validation accuracy in one panel (row C10), for a learning rate
that is too low, one that is right and one that is too high; and what :class:`wellfit.Monitor` says of each in words.
"""

import os
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import wellfit
from wellfit.models.stack import stack
from wellfit.randomness import generator
from wellfit.report.curves import moving_average
from wellfit.report.drawing import PALETTE, STYLE, as_percent, plain_axes
from wellfit.training.optimizers import build_optimizer

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})
EPOCHS = 3 if os.environ.get("WELLFIT_GALLERY") == "quick" else 12
BATCH = 32

digits = load_digits()
pixels = torch.tensor(digits.data / 8.0 - 1.0, dtype=torch.float32)
labels = torch.tensor(digits.target)
order = torch.from_numpy(generator(0, "gallery-split").permutation(len(labels)))
train, validation = order[:1200], order[1200:]


def accuracy(net: nn.Module, part: torch.Tensor) -> float:
    with torch.no_grad():
        return float((net(pixels[part]).argmax(1) == labels[part]).float().mean())


def watched_training(lr: float) -> tuple[list[float], list[tuple[float, float]], list[wellfit.Finding]]:
    """Losses of all steps, (train, validation) accuracy of all epochs, and the monitor's findings."""
    net = stack((64, 100, 100), classes=10, seed=0)
    optimizer = build_optimizer("momentum", net, lr=lr)
    monitor = wellfit.Monitor(net, optimizer, classes=10)
    losses, accuracies = [], []
    for epoch in range(EPOCHS):
        shuffled = train[torch.from_numpy(generator(0, "gallery-order", epoch).permutation(len(train)))]
        for batch in shuffled.split(BATCH):
            loss = nn.functional.cross_entropy(net(pixels[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss.detach(), targets=labels[batch])
            losses.append(loss.item())
        accuracies.append((accuracy(net, train), accuracy(net, validation)))
        with torch.no_grad():
            held_out = float(nn.functional.cross_entropy(net(pixels[validation]), labels[validation]))
        monitor.end_epoch(
            train_loss=float(np.mean(losses[-len(train) // BATCH :])),
            train_accuracy=accuracies[-1][0],
            val_loss=held_out,
            val_accuracy=accuracies[-1][1],
        )
    monitor.close()
    return losses, accuracies, monitor.findings()


RATES = {"too low": 1e-5, "right": 1e-2, "too high": 3.0}
with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # a loss that is infinite is the point here
    runs = {name: watched_training(lr) for name, lr in RATES.items()}

figure, axes = plt.subplots(2, 3, figsize=(10.5, 5.6), layout="constrained", sharex="col")
for (top, below), (name, (losses, accuracies, _)) in zip(axes.T, runs.items(), strict=True):
    values = np.where(np.isfinite(losses), losses, np.nan)
    steps = np.arange(1, len(losses) + 1)
    top.plot(steps, values, ".", ms=4, mew=0, alpha=0.4, color=PALETTE["train"], label="one step")
    top.plot(steps, moving_average(values, 20), lw=2, color=PALETTE["train"], label="moving average")
    top.axhline(np.log(10), color=PALETTE["muted"], lw=1, ls=":")
    top.set_title(f"{name}: lr {RATES[name]:g}")
    top.set_ylim(0, max(3.2, min(30.0, float(np.nanquantile(values, 0.98)) * 1.1)))
    ends = np.arange(1, EPOCHS + 1) * len(losses) / EPOCHS
    for column, (side, colour) in enumerate({"train": PALETTE["train"], "validation": PALETTE["validation"]}.items()):
        below.plot(ends, [pair[column] for pair in accuracies], "o-", ms=4, color=colour, label=side)
    below.set(ylim=(0, 1.05), xlabel="step")
    below.yaxis.set_major_formatter(as_percent)
    plain_axes(top, below)
axes[0, 0].set_ylabel("loss (dotted: log 10)")
axes[1, 0].set_ylabel("accuracy")
axes[0, 1].legend(loc="upper right")
axes[1, 1].legend(loc="lower right")
plt.show()

# %%
# What the monitor says
# ---------------------
# It sees the same numbers and, besides, activations, gradients and the size of each update against its weight. Root
# cause first:

for name, (_, _, findings) in runs.items():
    print(f"{name}, lr {RATES[name]:g}")
    for finding in findings[:2]:
        print(f"    {finding}")
    if not findings:
        print("    nothing to say")

# %%
# What it means for your choice
# -----------------------------
# A loss that does not move: raise the rate by tens. One that explodes or stands above log C: lower it. Both can also
# come from the initial weights, so look at the activations first. A growing gap between train and validation asks for
# more data, augmentation or decay; no gap at a low accuracy asks for a larger network. Any loop of your own can be
# watched with the three lines above; ``wellfit explain ID`` tells more about a finding.

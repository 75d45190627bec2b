"""
Optimizers racing
=================

A bowl, a local minimum, a saddle and a noisy gradient, with the path that each update rule takes over them (rows
O1-O6 and O11 of the recipe). Every rule is made by :func:`wellfit.training.optimizers.build_optimizer` under the name
that a configuration gives it, and runs at the rate, of nine, that serves it best on the bowl.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from wellfit.randomness import generator
from wellfit.report.drawing import PALETTE, STYLE, plain_axes
from wellfit.training.optimizers import build_optimizer

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})
QUICK = os.environ.get("WELLFIT_GALLERY") == "quick"
STEPS = 20 if QUICK else 100
RATES = (1e-3, 3e-3, 1e-2, 2e-2, 3e-2, 1e-1, 3e-1, 5e-1, 1.0)

# %%
# The four landscapes
# -------------------
# The bowl is 50 times as steep across as along: its **condition number**, the ratio of the largest to the smallest
# eigenvalue of the Hessian, is 50. The saddle falls away to both sides from a ridge on which the gradient is almost
# zero. The noisy landscape is the bowl again, with Gaussian noise on every gradient, as a mini-batch has it.

CONDITION = 50.0


@dataclass
class Landscape:
    """height: points …×2 → …; start: where the race begins; noise: standard deviation on the gradient."""

    title: str
    height: Callable[[Tensor], Tensor]
    start: tuple[float, float]
    x: tuple[float, float]
    y: tuple[float, float]
    noise: float = 0.0


def bowl(p: Tensor) -> Tensor:
    return 0.5 * (p[..., 0] ** 2 + CONDITION * p[..., 1] ** 2)


def two_valleys(p: Tensor) -> Tensor:
    x, y = p[..., 0], p[..., 1]
    return 0.6 * (x**2 - 1) ** 2 - 0.45 * x + 2.0 * (y - 0.15 * x) ** 2 + 0.45


def saddle(p: Tensor) -> Tensor:
    x, y = p[..., 0], p[..., 1]
    return 0.5 * x**2 - 0.5 * y**2 + 0.25 * y**4 + 0.25


LANDSCAPES = [
    Landscape(f"bowl, condition number {CONDITION:.0f}", bowl, (-1.8, 0.55), (-2.2, 0.8), (-0.8, 0.8)),
    Landscape("a local minimum on the way", two_valleys, (-1.75, 0.5), (-2.0, 1.9), (-0.9, 0.9)),
    Landscape("saddle", saddle, (-1.5, 0.01), (-1.8, 0.9), (-0.6, 1.5)),
    Landscape("bowl, noisy gradient", bowl, (-1.8, 0.55), (-2.2, 0.8), (-0.8, 0.8), noise=1.5),
]
hessian = torch.func.hessian(bowl)(torch.zeros(2, dtype=torch.float64))
eigenvalues = torch.linalg.eigvalsh(hessian)
print(
    f"Hessian eigenvalues of the bowl: {eigenvalues.tolist()}; condition number {eigenvalues[1] / eigenvalues[0]:.0f}"
)

# %%
# The race
# --------
# The point is a 1×2 matrix, so that Muon, which is made for matrices, has one to work on: it then takes steps of
# constant length along its momentum. ``momentum_inside`` and ``nesterov_inside`` visit the same points as
# ``momentum`` and ``nesterov`` at a constant rate, and are left out.

RULES = {
    "sgd": PALETTE["ink"],
    "momentum": PALETTE["train"],
    "nesterov": "#6fa3dc",
    "adagrad": "#8a6d3b",
    "rmsprop": PALETTE["alarm"],
    "adam": PALETTE["validation"],
    "adamw": "#e8b04a",
    "muon": PALETTE["averaged"],
    "kron": "#7b5aa6",
}


def run(rule: str, lrs: tuple[float, ...], land: Landscape, steps: int = STEPS) -> np.ndarray:
    """Rates×(steps + 1)×2: the points visited at each rate. AdamW decays the weights by 0.01, towards zero."""
    points = [torch.nn.Parameter(torch.tensor([land.start], dtype=torch.float64)) for _ in lrs]
    groups = [{"params": [point], "lr": lr} for point, lr in zip(points, lrs, strict=True)]
    optimizer = build_optimizer(rule, groups, lr=lrs[0], weight_decay=0.01 if rule == "adamw" else 0.0)
    noise = torch.from_numpy(generator(0, "gallery-noise").normal(0.0, 1.0, (steps, 1, 2)) * land.noise)
    path = [torch.cat(points).detach()]
    torch.manual_seed(0)  # kron probes at random
    for step in range(steps):
        optimizer.zero_grad()
        land.height(torch.cat(points)).sum().backward()
        for point in points:
            point.grad += noise[step]
        optimizer.step()
        path.append(torch.cat(points).detach())
    return torch.stack(path, dim=1).numpy()


def heights(path: np.ndarray, land: Landscape) -> np.ndarray:
    return land.height(torch.from_numpy(path)).numpy()


def best_rate(rule: str) -> float:
    """Of the lowest mean height over the first half of the race; a path that leaves the bowl is no candidate."""
    means = heights(run(rule, RATES, LANDSCAPES[0], STEPS // 2), LANDSCAPES[0]).mean(axis=1)
    return RATES[int(np.nanargmin(np.where(np.isfinite(means), means, np.nan)))]


rates = {rule: best_rate(rule) for rule in RULES}
paths = {(rule, land.title): run(rule, (rates[rule],), land)[0] for rule in RULES for land in LANDSCAPES}

KINDS = {
    "SGD and momentum": ("sgd", "momentum", "nesterov", "muon"),
    "scaled by the gradients": ("adagrad", "rmsprop", "adam", "adamw", "kron"),
}
figure, axes = plt.subplots(len(LANDSCAPES), len(KINDS), figsize=(10, 12.5), layout="constrained")
for land, row in zip(LANDSCAPES, axes, strict=True):
    x, y = np.meshgrid(np.linspace(*land.x, 200), np.linspace(*land.y, 200))
    z = land.height(torch.from_numpy(np.stack([x, y], axis=-1))).numpy()
    levels = np.quantile(z, np.linspace(0.01, 0.97, 14))
    for panel, (kind, rules) in zip(row, KINDS.items(), strict=True):
        panel.contour(x, y, z, levels=levels, colors=PALETTE["muted"], linewidths=0.6, alpha=0.45)
        for rule in rules:
            path = paths[rule, land.title]
            label = f"{rule}, lr {rates[rule]:g}"
            panel.plot(path[:, 0], path[:, 1], ".-", color=RULES[rule], lw=1.4, ms=3, label=label)
            panel.plot(*path[-1], "o", color=RULES[rule], ms=8, mec="white", mew=1, zorder=5)
        panel.plot(*land.start, "s", color=PALETTE["ink"], ms=7)
        panel.set(title=f"{land.title}: {kind}", xlim=land.x, ylim=land.y, xticks=[], yticks=[])
        if land is LANDSCAPES[0]:
            panel.legend(loc="upper right", ncols=2, fontsize=8.5)
plt.show()

# %%
# Height against step
# -------------------

figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained", sharex=True)
for panel, land in zip(axes.flat, LANDSCAPES, strict=True):
    for rule, colour in RULES.items():
        lowest = 0.0 if land.height is not two_valleys else float(two_valleys(torch.tensor([1.09, 0.1635])))
        panel.plot(heights(paths[rule, land.title], land) - lowest + 1e-6, color=colour, lw=1.5, label=rule)
    panel.set(title=land.title, yscale="log", ylim=(1e-5, 50))
    plain_axes(panel)
for panel in axes[1]:
    panel.set_xlabel("step")
for panel in axes[:, 0]:
    panel.set_ylabel("above the lowest point")
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=9)
plt.show()

# %%
# What to see
# -----------
# - **The bowl.** Plain SGD must keep its rate below 2/50 or it flies out across the valley, and at such a rate it
#   creeps along it. Momentum adds up what points along the valley and cancels what points across. The rules that
#   divide by the gradient's own size (AdaGrad, RMSProp, Adam) see a round bowl.
# - **The local minimum.** What carries momentum rolls through: momentum, Nesterov, Adam, Muon. Plain SGD, AdaGrad and
#   RMSProp have none and stay where the gradient is zero; kron has some, too little at the rate that suits the bowl.
# - **The saddle.** On the ridge the gradient along the way out is tiny: SGD waits, while Adam's first step has length
#   lr in *every* coordinate, however small the gradient is.
# - **Noise.** At a constant rate nobody comes to rest: the last points scatter about the minimum. That is what a
#   falling schedule is for.
# - **Muon** takes steps of one length, so it circles the minimum at that distance until a schedule shortens them.
# - **AdaGrad** does well on these few steps; its step only ever shrinks, and a training has a thousand times as many.
#
# What it means for your choice (row O13): Adam or AdamW is a good default and often fine at a constant rate; SGD with
# momentum may beat it, and then needs its rate tuned and a schedule; a cosine has the fewest knobs. Where the whole
# data set fits into one step and nothing is random, L-BFGS is worth a try.

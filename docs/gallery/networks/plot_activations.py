"""
Activation functions and their gradients
========================================

Each non-linearity with its derivative: where the derivative is zero nothing is learnt (row N7). The names are those
of a configuration (``activation = "gelu"``), the layers those of
:func:`wellfit.models.layers.activations.build_activation`.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from wellfit.models.layers.activations import ACTIVATIONS, build_activation
from wellfit.report.drawing import PALETTE, STYLE, plain_axes

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})

# %%
# Value and gradient
# ------------------
# Maxout takes the larger of two learned lines; it is drawn with the lines x and -x/2, one choice of many.


def value_and_gradient(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both of shape N, for N inputs."""
    point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    layer = build_activation(name).double()
    two_lines = ACTIVATIONS[name].pieces > 1
    value = layer(torch.stack([point, -point / 2], dim=1))[:, 0] if two_lines else layer(point)
    (gradient,) = torch.autograd.grad(value.sum(), point)
    return value.detach().numpy(), gradient.numpy()


x = np.linspace(-5, 5, 401)
columns = 4
rows = -(-len(ACTIVATIONS) // columns)
figure, axes = plt.subplots(
    rows, columns, figsize=(10, 2.3 * rows + 0.4), layout="constrained", sharex=True, sharey=True
)
for panel in axes.flat[len(ACTIVATIONS) :]:
    panel.set_visible(False)
for panel, name in zip(axes.flat, ACTIVATIONS, strict=False):
    value, gradient = value_and_gradient(name, x)
    panel.plot(x, value, color=PALETTE["train"], lw=2, label="value")
    panel.plot(x, gradient, color=PALETTE["validation"], lw=1.6, ls="--", label="gradient")
    panel.axhline(0, color=PALETTE["muted"], lw=0.7)
    panel.set_title(name, fontsize=10.5)
    panel.set_ylim(-2.2, 3.2)
    plain_axes(panel)
figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
plt.show()

# %%
# At -10, 0 and 10
# ----------------
# "Saturates" says where the gradient fades however large the input is; a unit that "can die" may get stuck with a
# gradient of exactly zero for every image.

print(f"{'':>15}  {'value at -10, 0, 10':^26}  {'gradient at -10, 0, 10':^26}  saturates   can die")
for name, facts in ACTIVATIONS.items():
    value, gradient = value_and_gradient(name, np.array([-10.0, 0.0, 10.0]))
    numbers = "  ".join(" ".join(f"{number:8.3g}" for number in three + 0.0) for three in (value, gradient))
    print(f"{name:>15}  {numbers}  {facts.saturates:<10}  {'yes' if facts.dies else 'no'}")

# %%
# A stack of sigmoids
# -------------------
# The derivative of a sigmoid is at most 1/4, so ten of them in a row leave at most a millionth of the gradient. With
# Kaiming's weights a stack of ReLUs passes it on.

DEPTH, WIDTH = 10, 256


def gradients_through(name: str) -> list[float]:
    """Standard deviation of the gradient at each layer's output, first layer first."""
    draw = torch.Generator().manual_seed(0)
    scale = 2.0 if ACTIVATIONS[name].initialisation == "kaiming" else 1.0
    hidden, held = torch.randn(128, WIDTH, generator=draw), []
    for _ in range(DEPTH):
        weight = torch.randn(WIDTH, WIDTH, generator=draw) * (scale / WIDTH) ** 0.5
        hidden = build_activation(name)(hidden @ weight).requires_grad_()
        hidden.retain_grad()
        held.append(hidden)
    (hidden * torch.randn(hidden.shape, generator=draw)).sum().backward()
    return [float(h.grad.std()) for h in held]


figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
for name, colour in {
    "sigmoid": PALETTE["alarm"],
    "tanh": PALETTE["validation"],
    "relu": PALETTE["train"],
    "gelu": PALETTE["averaged"],
}.items():
    axes.plot(range(1, DEPTH + 1), gradients_through(name), "o-", color=colour, label=name)
axes.set(yscale="log", xlabel="layer, from the input", ylabel="std of the gradient", xticks=range(1, DEPTH + 1))
axes.legend(loc="lower right")
plain_axes(axes)
plt.show()

# %%
# What it means for your choice
# -----------------------------
# Take ReLU first, and mind the learning rate. Then try leaky ReLU, maxout, ELU or GELU, for a little more. Tanh
# seldom pays, and sigmoid belongs into no hidden layer. The advice beside each name:

for name, facts in ACTIVATIONS.items():
    print(f"{name:>15}: {facts.advice}")

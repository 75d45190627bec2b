"""Dropout, its two forms side by side, and DropConnect: the training side and the test side of each (SPEC N3, N4).

The probability is the *drop* probability everywhere, as in torch; the keep probability is 1 minus it. Both sides of a
layer are one forward: `training` tells which. Draws come from torch's generator, which the training loop seeds at
each step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from wellfit.errors import UserError, unknown_name


def drop_probability(what: str, value: float) -> float:
    """`value` as a float in [0, 1); UserError naming `what` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise UserError(f"{what} is the probability to drop, from 0 to below 1, got {value!r}; 0.5 drops every second")
    return float(value)


class VanillaDropout(nn.Module):
    """Zeroes entries in training; multiplies by the keep probability at test. Any shape.

    Hinton et al. 2012, "Improving neural networks by preventing co-adaptation of feature detectors"; SPEC N3.
    torch.nn.Dropout is the inverted form: divided by the keep probability in training, unchanged at test. In
    expectation each form's test side equals its training side, and the inverted outputs are the vanilla ones over
    the keep probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = drop_probability("dropout", p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keep = 1 - self.p
        if self.training:
            return x * torch.empty_like(x).bernoulli_(keep)
        return x * keep

    def extra_repr(self) -> str:
        return f"p={self.p}"


def build_dropout(p: float, form: str = "inverted") -> nn.Module:
    """Dropout with drop probability p in [0, 1), "inverted" (torch's) or "vanilla"; nothing at p = 0."""
    p = drop_probability("dropout", p)
    if form not in DROPOUTS:
        raise unknown_name("form of dropout", form, DROPOUTS)
    return DROPOUTS[form](p) if p else nn.Identity()


class DropConnectLinear(nn.Linear):
    """A fully connected layer whose weights, not its activations, are dropped in training: N×in → N×out.

    Wan et al. 2013, "Regularization of Neural Networks using DropConnect"; SPEC N4. One mask a step serves the whole
    batch; kept weights are divided by the keep probability, so that the test side, the weights as they are, is the
    expectation. Biases stay. Parameters have torch.nn.Linear's names.
    """

    drop: float = 0.0

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.linear(input, F.dropout(self.weight, self.drop, self.training), self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, drop={self.drop}"


class DropConnectConv2d(nn.Conv2d):
    """A convolution whose weights are dropped in training, as `DropConnectLinear`: N×C×H×W → N×out×H'×W'."""

    drop: float = 0.0

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, F.dropout(self.weight, self.drop, self.training), self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, drop={self.drop}"


def drop_connect(layer: nn.Linear | nn.Conv2d, p: float) -> DropConnectLinear | DropConnectConv2d:
    """The same layer with DropConnect at drop probability p in [0, 1); it holds the very parameters of `layer`.

    UserError for a layer that is neither torch.nn.Linear nor torch.nn.Conv2d: a subclass may compute something else.
    """
    p = drop_probability("drop_connect", p)
    old: Any = layer
    made: DropConnectLinear | DropConnectConv2d
    # On the meta device, since the tensors made here are replaced at once.
    if type(layer) in (nn.Linear, DropConnectLinear):
        made = DropConnectLinear(old.in_features, old.out_features, old.bias is not None, device="meta")
    elif type(layer) in (nn.Conv2d, DropConnectConv2d):
        shape = old.kernel_size, old.stride, old.padding, old.dilation, old.groups
        made = DropConnectConv2d(
            old.in_channels, old.out_channels, *shape, old.bias is not None, old.padding_mode, device="meta"
        )
    else:
        raise UserError(
            f"DropConnect is for torch.nn.Linear and torch.nn.Conv2d, got {type(layer).__name__}; give one of the two"
        )
    made.weight, made.bias = layer.weight, layer.bias
    made.drop = p
    return made.train(layer.training)


def connect_net(net: nn.Module, p: float) -> None:
    """DropConnect in every Linear and Conv2d layer of `net` but the first and the last, in place.

    The first sees the image with few weights and the last decides, so they keep all of theirs. State-dict keys and
    values stay.
    """
    places = [(name, layer) for name, layer in net.named_modules() if type(layer) in (nn.Linear, nn.Conv2d)]
    for name, layer in places[1:-1]:
        parent, _, child = name.rpartition(".")
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        setattr(net.get_submodule(parent), child, drop_connect(layer, p))


DROPOUTS: dict[str, Callable[[float], nn.Module]] = {"inverted": nn.Dropout, "vanilla": VanillaDropout}

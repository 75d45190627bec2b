"""Stochastic depth: residual branches skipped in training (SPEC N6).

Huang et al. 2016, "Deep Networks with Stochastic Depth". torchvision's layer divides a branch that is kept by its
keep probability, so that the test side, all branches as they are, is the expectation of the training side.
"""

from __future__ import annotations

from torch import nn

from wellfit.models.layers.dropout import drop_probability


def drop_rates(last: float, blocks: int) -> list[float]:
    """The linear decay rule: block l of L is skipped with probability l/L times that of the last.

    >>> drop_rates(0.5, 5)
    [0.1, 0.2, 0.3, 0.4, 0.5]
    """
    last = drop_probability("stochastic_depth", last)
    return [last * block / blocks for block in range(1, blocks + 1)]


def skipping(p: float) -> nn.Module:
    """What a branch passes before it is added: zero with probability p for each image; nothing at p = 0."""
    p = drop_probability("stochastic_depth", p)
    if not p:
        return nn.Identity()
    from torchvision.ops import StochasticDepth  # whose import takes half a second and more: not for every network

    return StochasticDepth(p, "row")

"""Sees whether the gradient of one optimizer step is still there when the next one is made: zero_grad was forgotten.

It is not enough to look when the next backward pass begins: that of a generator runs through the discriminator, whose
own zero_grad comes later.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Parameters that are tried, the smallest first.
TRIED = 8


class OldGradient:
    """Watches the backward passes from one optimizer step to the next.

    old: a copy of the parameter's gradient at the first. carried: whether all that came since was added to it, on the
    parameter's device; None before anything came. replaced: whether another tensor was put in the gradient's place.
    """

    def __init__(self, parameter: Tensor, old: Tensor) -> None:
        self.parameter = parameter
        self.carried: Tensor | None = None
        self._expected = old
        self._kept = parameter.grad
        self._hook = parameter.register_hook(self._look)

    @property
    def replaced(self) -> bool:
        return self.parameter.grad is not self._kept

    def close(self) -> None:
        self._hook.remove()

    def _look(self, gradient: Tensor) -> None:
        """The gradient of one backward pass is about to be added to what is there."""
        now = self.parameter.grad
        if now is None or now.shape != self._expected.shape:
            self.carried = torch.zeros((), dtype=torch.bool, device=self._expected.device)
            return
        kept = (now.detach() == self._expected).all()
        self.carried = kept if self.carried is None else self.carried & kept
        self._expected = self._expected + gradient.detach()


def small_gradient(parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor] | None:
    """The smallest of the parameters that has a gradient, and a copy of it."""
    # Of a sharded parameter (a DTensor) another tensor takes part in the backward pass.
    whole = [(p, p.grad) for p in parameters if not hasattr(p, "to_local")]
    dense = [(p, grad) for p, grad in whole if grad is not None and not grad.is_sparse]
    for p, grad in sorted(dense, key=lambda pair: pair[0].numel())[:TRIED]:
        old = grad.detach().clone()
        if bool(old.any()) and bool(torch.isfinite(old).all()):
            return p, old
    return None

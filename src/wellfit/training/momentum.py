"""Momentum and Nesterov in the form that keeps the learning rate inside the velocity (SPEC rows O2, O3).

    momentum_inside   v ← ρv − lr·g;  x ← x + v
    nesterov_inside   v ← ρv − lr·g;  x ← x − ρ·v_old + (1 + ρ)·v       g at the stored, shifted point

At a constant lr they visit the same points as torch's form, which keeps the rate outside and is the default here.
After a drop of the rate they differ: here the velocity still carries steps scaled by the earlier rate.
Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


class RateInside(torch.optim.Optimizer):
    """Momentum ρ = `momentum` over velocities that hold the rate; `nesterov` for the look-ahead form.

    weight_decay: λ, enters as gradient λ·x.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum lies in [0, 1), got {momentum}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; returns the closure's loss where one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if not moved:
                continue
            gradients = [p.grad for p in moved]
            if group["weight_decay"]:
                gradients = list(torch._foreach_add(gradients, moved, alpha=group["weight_decay"]))
            for p in moved:
                if "velocity" not in self.state[p]:
                    self.state[p]["velocity"] = torch.zeros_like(p)
            velocities = [self.state[p]["velocity"] for p in moved]
            rho = group["momentum"]
            if group["nesterov"]:
                torch._foreach_add_(moved, velocities, alpha=-rho)
            torch._foreach_mul_(velocities, rho)
            torch._foreach_add_(velocities, gradients, alpha=-group["lr"])
            torch._foreach_add_(moved, velocities, alpha=1.0 + rho if group["nesterov"] else 1.0)
        return loss

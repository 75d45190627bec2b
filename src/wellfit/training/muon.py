"""Muon for weight matrices and convolution filters, AdamW for everything else, as one optimizer.

torch.optim.Muon takes matrices only, and a convolutional network has next to none. Here a filter bank of shape
out×in×h×w is handed to it as the matrix out×(in·h·w), as its author does; biases, normalisation scales and the
classifier go to torch.optim.AdamW. One object, so that schedules, checkpoints and `zero_grad` see one optimizer.
Source: K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class MuonWithAdamW(torch.optim.Optimizer):
    """Both rules over shared groups; each group says in "rule" which one moves it.

    groups: parameter groups, e.g. of `parameter_groups`; a group's own "lr" and "weight_decay" hold.
    lr: one rate for both. Muon's step is scaled to AdamW's typical size ("match_rms_adamw"), so AdamW's rates serve.
    weight_decay: decoupled, w ← w − lr·λ·w, for both.
    momentum, nesterov, ns_steps: of Muon. betas, eps, fused: of AdamW.
    adamw_for: parameters that AdamW takes although they have two or more dimensions (the classifier).
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        fused: bool = False,
        adamw_for: Iterable[Tensor] = (),
    ) -> None:
        exempt = {id(p) for p in adamw_for}
        split: list[dict[str, Any]] = []
        for group in groups:
            params = list(group["params"])
            matrices = [p for p in params if p.ndim >= 2 and id(p) not in exempt]
            others = [p for p in params if p.ndim < 2 or id(p) in exempt]
            split += [{**group, "params": matrices, "rule": "muon"}] if matrices else []
            split += [{**group, "params": others, "rule": "adamw"}] if others else []
        settings = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "betas": betas, "eps": eps}
        super().__init__(split, {"lr": lr, "weight_decay": weight_decay, "fused": fused, **settings})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of both rules."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # torch's own optimizers do the arithmetic. They are made anew for each step and only borrow groups and
        # state, so that loading a checkpoint or copying this object needs no second bookkeeping.
        for group in self.param_groups:
            if group["rule"] == "muon":
                self._step_matrices(group)
            else:
                keys = ("lr", "weight_decay", "betas", "eps", "fused")
                adamw = torch.optim.AdamW(group["params"], **{key: group[key] for key in keys})
                adamw.state = self.state
                adamw.step()
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        moved = [p for p in group["params"] if p.grad is not None]
        if not moved:
            return
        # Always in logical order, so that the momentum means the same whatever the memory layout of the weight.
        matrices = [p.reshape(len(p), -1).contiguous() for p in moved]
        for p, matrix in zip(moved, matrices, strict=True):
            matrix.grad = p.grad.reshape(len(p), -1).contiguous()
        keys = ("lr", "weight_decay", "momentum", "nesterov", "ns_steps")
        muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **{key: group[key] for key in keys})
        muon.state = defaultdict(dict, {m: self.state[p] for p, m in zip(moved, matrices, strict=True)})
        muon.step()
        for p, matrix in zip(moved, matrices, strict=True):
            if matrix.data_ptr() != p.data_ptr():
                p.copy_(matrix.view(p.shape))

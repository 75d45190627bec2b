"""Sees in which mode a network runs: training or evaluation, BatchNorm by the batch or by its running statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from wellfit.diagnosis.activations import clean
from wellfit.diagnosis.calls import heart
from wellfit.diagnosis.history import BatchNorm, Modes
from wellfit.diagnosis.links import Link

# Entries of one BatchNorm input that are read: a hundred a channel for 512 channels.
ENTRIES = 1 << 16


class ModeWatch:
    """Owns a hook on each BatchNorm layer of `model`; measures its input while `active`."""

    def __init__(self, model: nn.Module) -> None:
        self.active = False
        self._root = heart(model)
        self._layers = [(clean(name), m) for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
        self._dropouts = [m for m in model.modules() if isinstance(m, _DropoutNd)]
        self._momenta = [m.momentum for _, m in self._layers]
        self._seen: dict[int, Tensor] = {}
        self._modes: tuple[bool, list[bool]] | None = None
        self._handles = [m.register_forward_pre_hook(Link(self._on_input(i))) for i, (_, m) in enumerate(self._layers)]

    @property
    def training(self) -> bool:
        """The mode of the network itself, whatever that of a wrapper around it is."""
        return self._root.training

    def layers(self) -> list[BatchNorm]:
        return [
            BatchNorm(
                name,
                learns=any(p.requires_grad for p in m.parameters(recurse=False)),
                momentum=m.momentum,
                running=m.running_mean is not None,
            )
            for name, m in self._layers
        ]

    def dropped(self) -> list[float]:
        """The share that each dropout layer drops while it trains."""
        return [float(m.p) for m in self._dropouts]

    def by_batch(self) -> int:
        """How many BatchNorm layers would normalise by the batch now."""
        return sum(m.training or m.running_mean is None for _, m in self._layers)

    def recomputing(self) -> bool:
        """Whether a BatchNorm layer collects statistics in another way than it was made to: `update_bn` and its kin."""
        return any(
            m.training and m.momentum != usual for (_, m), usual in zip(self._layers, self._momenta, strict=True)
        )

    def begin(self) -> None:
        """A training forward pass of a watched step starts."""
        self.active, self._seen = True, {}
        self._modes = self.training, [not m.training for _, m in self._layers]

    def collect(self) -> Modes | None:
        """How the last watched forward pass ran; one transfer from each device."""
        self.active = False
        modes, self._modes = self._modes, None
        seen, self._seen = self._seen, {}
        if modes is None:
            return None
        gaps = np.full((2, len(self._layers)), np.nan)
        for device in {t.device for t in seen.values()}:
            places = [i for i, t in seen.items() if t.device == device]
            gaps[:, places] = torch.stack([seen[i] for i in places], 1).cpu().numpy()
        return Modes(modes[0], np.array(modes[1], bool), gaps[0], gaps[1])

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._seen = {}

    def _on_input(self, place: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if torch.compiler.is_compiling() or not self.active or place in self._seen:
                return
            if args and isinstance(args[0], Tensor) and args[0].ndim > 1 and len(args[0]) > 1:
                gap = _gap(module, args[0].detach())
                if gap is not None:
                    self._seen[place] = gap

        return hook


def _gap(layer: nn.Module, x: Tensor) -> Tensor | None:
    """How far the running statistics stand from the batch x (N×C×…): medians over the channels.

    Of |running mean − batch mean| in standard deviations of the batch, and of log(running variance / batch variance).
    None without running statistics.
    """
    mean, var = getattr(layer, "running_mean", None), getattr(layer, "running_var", None)
    if (
        not isinstance(mean, Tensor)
        or not isinstance(var, Tensor)
        or mean.device != x.device
        or x.shape[1] != len(mean)
    ):
        return None
    x = x.flatten(2) if x.ndim > 2 else x.unsqueeze(2)
    # Every s-th place and another s-th part of the images: neighbours say nearly the same.
    while x.numel() > ENTRIES and max(x.shape[0], x.shape[2]) > 32:
        x = x[:, :, ::2] if x.shape[2] >= x.shape[0] else x[::2]
    batch_var, batch_mean = torch.var_mean(x.float(), (0, 2), correction=0)
    eps = float(getattr(layer, "eps", 1e-5))
    off = (mean.detach().float() - batch_mean).abs() / (batch_var + eps).sqrt()
    ratio = ((var.detach().float() + eps) / (batch_var + eps)).log()
    return torch.stack([off.median(), ratio.median()])

"""Sees what a network's first layer with weights receives: the images, or what the network itself made of them.

A network may scale its own input, by a first BatchNorm or by hand, and a model may be called with more than images:
what enters the first weights is what counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.rnn import RNNCellBase

from wellfit.diagnosis.links import Link

FIRST_LAYERS = (nn.Linear, nn.Bilinear, _ConvNd, nn.RNNBase, RNNCellBase, nn.MultiheadAttention)


class EntranceWatch:
    """Owns a hook on each such layer of `model`, until one of them has `told`; measures while `active`.

    layers: how many there are.
    """

    def __init__(self, model: nn.Module) -> None:
        self.active = self.told = False
        self._seen: Tensor | None = None
        layers = [
            m for m in model.modules() if isinstance(m, FIRST_LAYERS) and not isinstance(m, torch.jit.ScriptModule)
        ]
        self.layers = len(layers)
        self._handles = [m.register_forward_pre_hook(Link(self._on_call), with_kwargs=True) for m in layers]

    def begin(self) -> None:
        """A training pass of a watched step starts."""
        self.active, self._seen = not self.told, None

    def collect(self) -> tuple[float, float] | None:
        """Mean and standard deviation of what the first layer received in the last such pass; None: not seen."""
        seen, self._seen, self.active = self._seen, None, False
        if seen is None:
            return None
        # Data is the same all along: the first batch tells.
        self.told = True
        self.close()
        mean, std = seen.tolist()
        return mean, std

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _on_call(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or not self.active or self._seen is not None:
            return
        x = received(args, kwargs)
        if x is not None:
            std, mean = torch.std_mean(x.float(), correction=0)
            self._seen = torch.stack([mean, std])


def received(args: Iterable[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The numbers that a layer is called with; None where there are none to measure."""
    for value in (*args, *kwargs.values()):
        x = value.data if isinstance(value, nn.utils.rnn.PackedSequence) else value
        if isinstance(x, Tensor):
            fit = x.is_floating_point() and x.numel() > 1 and x.layout is torch.strided and not x.is_meta
            return x.detach() if fit else None
    return None

"""Averages of the weights along a training, used at test time (SPEC row O12).

    x̄ ← d·x̄ + (1 − d)·x      d = 0.995, started at x (an average started at 0 would need a correction)

torch.optim.swa_utils.AveragedModel is not used: it keeps the average in the weights' own dtype, lets its first update
overwrite the start, holds a second copy of the whole module, and its state cannot be written without the module's
names; its `update_bn` runs dropout. This class holds float32 tensors by name and nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from wellfit.errors import UserError

WITH_RUNNING_STATISTICS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


class WeightAverage:
    """Exponential (Polyak) average of a module's floating-point parameters and buffers.

    decay: d in [0, 1), a step. every: update each k-th step with d^k, the same average at a k-th of the cost.
    ramp: use min(d, (1 + n)/(10 + n)) at step n, so that a short training is not held back by its start.
    BatchNorm's running statistics are averaged like the weights, which keeps them right while both move slowly;
    `recompute_batchnorm` measures them afresh. Counters take the newest value.
    """

    def __init__(self, module: nn.Module, decay: float = 0.995, *, every: int = 1, ramp: bool = False) -> None:
        if not 0.0 <= decay < 1.0 or every < 1:
            raise UserError(
                f"an average takes a decay between 0 and 1 and every from 1, got {decay} and {every}; 0.995 is usual"
            )
        self.decay, self.every, self.ramp = decay, every, ramp
        self.steps = 0
        self.averaged = {name: value.detach().to(torch.float32, copy=True) for name, value in _floating(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Call once after each optimizer step."""
        self.steps += 1
        if self.steps % self.every:
            return
        decay = self.decay
        if self.ramp:
            decay = min(decay, (1 + self.steps) / (10 + self.steps))
        averaged = list(self.averaged.values())
        current = [value.detach().to(torch.float32) for value in _floating(module).values()]
        torch._foreach_lerp_(averaged, current, 1.0 - decay**self.every)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's weights and floating-point buffers with the averages, in the module's dtypes."""
        for name, value in _floating(module).items():
            value.copy_(self.averaged[name])

    @contextlib.contextmanager
    def applied_to(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module with averaged weights inside the `with`; its own come back bit for bit after it."""
        values = _floating(module)
        own = {name: value.detach().clone() for name, value in values.items()}
        self.copy_to(module)
        try:
            yield module
        finally:
            with torch.no_grad():
                for name, value in values.items():
                    value.copy_(own[name])

    def state_dict(self) -> dict[str, Any]:
        """Numbers and float32 tensors, for a checkpoint."""
        return {"steps": self.steps, "averaged": dict(self.averaged)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same module; KeyError when a tensor is missing."""
        self.steps = int(state["steps"])
        for name, value in self.averaged.items():
            value.copy_(state["averaged"][name])


def _floating(module: nn.Module) -> dict[str, Tensor]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: value for name, value in named if value.is_floating_point()}


@torch.no_grad()
def recompute_batchnorm(
    module: nn.Module,
    batches: Iterable[Any],
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> None:
    """Measure BatchNorm's running statistics anew, in place, as the image-weighted mean over `batches`.

    batches: input tensors N×…, or tuples that begin with one, on the module's device; images as at test time.
    Everything but BatchNorm runs in evaluation mode, so dropout draws nothing. Modes and momenta are put back.
    A module without running statistics is left alone; no batch at all is a ValueError and changes nothing.
    """
    layers = [m for m in module.modules() if isinstance(m, WITH_RUNNING_STATISTICS) and m.track_running_stats]
    if not layers:
        return
    modes = {m: m.training for m in module.modules()}
    momenta = [layer.momentum for layer in layers]
    seen = 0
    try:
        module.eval()
        for layer in layers:
            layer.train()
        for batch in batches:
            inputs = batch if isinstance(batch, Tensor) else batch[0]
            if not seen:
                for layer in layers:
                    layer.reset_running_stats()
            elif len(inputs) == 1:
                continue  # one image has no variance where the map is a single pixel
            seen += len(inputs)
            for layer in layers:
                layer.momentum = len(inputs) / seen
            with context():
                module(inputs)
        if not seen:
            raise ValueError("recompute_batchnorm needs at least one batch")
    finally:
        for m, mode in modes.items():
            m.training = mode
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

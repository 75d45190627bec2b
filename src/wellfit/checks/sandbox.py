"""Checks run on a copy, with the generators put back after them: nothing they do reaches the real run."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wellfit.diagnosis.outputs import tables
from wellfit.errors import UserError
from wellfit.randomness import generator, key_to_integer
from wellfit.training.averaging import WITH_RUNNING_STATISTICS

Context = Callable[[], AbstractContextManager[Any]]
Criterion = Callable[[Tensor, Tensor], Tensor]


def copy_of(module: nn.Module) -> nn.Module:
    """An independent copy without gradients."""
    try:
        copied = copy.deepcopy(module)
    except Exception as error:
        raise UserError(
            f"checks work on a copy of the model, but {type(module).__name__} cannot be copied ({error}); "
            "make it work with copy.deepcopy, or go on without checks"
        ) from error
    for parameter in copied.parameters():
        parameter.grad = None
    return copied


@contextlib.contextmanager
def own_randomness(module: nn.Module, seed: int, check: str) -> Iterator[None]:
    """Seeded draws inside; afterwards torch's, numpy's and Python's global generators stand where they stood."""
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    python, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(key_to_integer(seed, "check", check))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)


def without_noise(module: nn.Module) -> nn.Module:
    """Dropout and its like off, BatchNorm by the batch: what training sees, without the draws. In place."""
    module.eval()
    for layer in module.modules():
        if isinstance(layer, WITH_RUNNING_STATISTICS):
            layer.train()
    return module


def scores(module: nn.Module, inputs: Tensor) -> Tensor:
    """The class scores N×C (N for a single one), with their gradient, in what the module returned.

    Nets with auxiliary heads give a tuple that begins with the scores; others a mapping or an object with `logits`.
    """
    output = module(inputs)
    first = output if isinstance(output, Tensor) else next(tables(output), None)
    if first is None or not (first.ndim == 2 or first.shape == inputs.shape[:1]):
        shape = tuple(first.shape) if isinstance(first, Tensor) else type(output).__name__
        raise UserError(
            f"a classifier gives scores of shape images × classes, got {shape}; check the model's last layer"
        )
    return first


@torch.no_grad()
def wakened(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that are all zero drawn small, in place: a last layer that starts at zero hides what lies before it."""
    for name, parameter in module.named_parameters():
        if parameter.ndim >= 2 and parameter.is_floating_point() and not parameter.any():
            draw = generator(seed, "check", "wakened", name)
            values = 0.1 * draw.standard_normal(tuple(parameter.shape)) / max(1, parameter[0].numel()) ** 0.5
            parameter.copy_(torch.from_numpy(values).to(parameter))
    return module

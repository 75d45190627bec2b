"""What a monitor is given, checked at the door: each mistake is one sentence with what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from wellfit.diagnosis.steppers import family
from wellfit.errors import UserError


def check_setup(model: Any, optimizer: Any, classes: Any, every: Any, entries: Any) -> list[Any]:
    """The optimizers as a list."""
    if isinstance(model, list | tuple):
        raise UserError(f"a monitor watches one network, got {len(model)} in a list; make a monitor for each")
    if not isinstance(model, nn.Module):
        raise UserError(f"a monitor watches a torch.nn.Module, got {_described(model)}; pass the network itself")
    if isinstance(optimizer, Mapping):
        raise UserError(f"a monitor needs a torch optimizer or several, got {_described(optimizer)}; pass its values()")
    several = not family(optimizer) and isinstance(optimizer, Iterable) and not isinstance(optimizer, str | type)
    optimizers = list(optimizer) if several else [optimizer]
    if not optimizers or not all(family(o) for o in optimizers):
        wrong = next((o for o in optimizers if not family(o)), optimizer)
        raise UserError(
            f"a monitor needs a torch optimizer or several, got {_described(wrong)}; pass the one whose step() trains "
            "the model"
        )
    for name, value, usual in (("every", every, 10), ("entries", entries, 4096)):
        if not _whole(value) or value < 1:
            raise UserError(f"{name} is a whole number, at least 1, got {value!r}; {usual} is usual")
    if classes is not None and (not _whole(classes) or classes < 2):
        raise UserError(f"a classification has at least 2 classes, got {classes!r}; leave it out when not known")
    return optimizers


def check_loss(loss: Any) -> None:
    """UserError unless the loss is one real number."""
    if isinstance(loss, Tensor) and loss.numel() != 1:
        raise UserError(
            f"a loss is one number, got a tensor of shape {tuple(loss.shape)}; take its mean over the batch"
        )
    if isinstance(loss, Tensor) and loss.is_complex():
        raise UserError("a loss is a real number, got a complex one; take its absolute value or its real part")
    if isinstance(loss, bool) or not isinstance(loss, Tensor | float | int | np.number):
        raise UserError(f"a loss is a number or a tensor with one, got {type(loss).__name__}; pass loss or loss.item()")


def as_number(loss: float | Tensor) -> float:
    """The loss, once an accelerator has it."""
    return float(loss.detach() if isinstance(loss, Tensor) else loss)


def epoch_figures(**given: Any) -> dict[str, float | None]:
    """The figures of an epoch as floats; None where one is not known. UserError for what is no such figure."""
    return {name: _figure(name, value) for name, value in given.items()}


def _figure(name: str, value: Any) -> float | None:
    if value is None:
        return None
    # A tensor of several values refuses float() itself.
    try:
        number = None if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None:
        raise UserError(f"{name} is one number or None, got {_described(value)}; take its mean over the epoch")
    if name.endswith("accuracy"):
        if math.isnan(number):
            raise UserError(f"{name} is a share between 0 and 1, got nan; leave it out where it is not known")
        if not 0 <= number <= 1:
            raise UserError(f"{name} is a share between 0 and 1, got {number:g}; divide percent by 100")
    return number


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _described(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, list | tuple) and not value:
        return f"an empty {type(value).__name__}"
    return f"{type(value).__name__} {value!r}" if isinstance(value, str | int | float | bool) else type(value).__name__

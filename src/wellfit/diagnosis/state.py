"""A history as numbers, text, lists and tensors, and back: what a checkpoint can hold without pickling a class."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wellfit.diagnosis import history as shapes
from wellfit.diagnosis.history import History
from wellfit.errors import UserError

KIND = "class of history.py"


def to_state(history: History) -> dict[str, Any]:
    """The history in plain types, which `torch.load(weights_only=True)` reads back."""
    state: dict[str, Any] = _plain(history)
    return state


def resumed(state: Mapping[str, Any], parameters: list[str]) -> History:
    """The history of such a state. UserError where it is none, or of a network with other parameters."""
    try:
        history = _built(state)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(
            f"a monitor's state is what state_dict() gave, but this one cannot be read ({error}); start without it"
        ) from error
    if not isinstance(history, History):
        raise UserError(
            f"a monitor's state is what state_dict() gave, got a {type(state).__name__} of something else; start "
            "without it"
        )
    seen = [p.name for p in history.parameters]
    for ours, theirs in zip_longest(parameters, seen) if seen else ():
        if ours != theirs:
            raise UserError(
                f"a monitor goes on with the network that it watched, but here '{ours}' stands where that had "
                f"'{theirs}'; start without the state"
            )
    return history


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {KIND: type(value).__name__, **kept}
    if isinstance(value, array):
        return torch.tensor(value, dtype=torch.float64)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _built(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, list):
        return [_built(v) for v in value]
    if not isinstance(value, Mapping):
        return value
    fields = {k: _built(v) for k, v in value.items() if k != KIND}
    if KIND not in value:
        return fields
    shape = getattr(shapes, value[KIND])
    if not dataclasses.is_dataclass(shape):
        raise KeyError(value[KIND])
    if shape is History:
        fields.update({name: array("d", fields[name]) for name in ("losses", "lrs")})
    else:  # what is frozen holds tuples
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return shape(**fields)

"""Checkpoints: one safetensors file that is written aside and renamed; nothing is pickled.

Tensors stand in the file by name, everything else as JSON in its header, so that one rename
replaces the whole state at once.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from wellfit.errors import UserError
from wellfit.record import write_atomically


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers, strings and None; atomic.

    Raises UserError when the disk is full or read-only; the earlier checkpoint is intact then.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _encode(state, tensors)
    data = save(tensors, metadata={"wellfit": json.dumps(skeleton)})
    try:
        write_atomically(path, data)
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        raise UserError(
            f"the checkpoint '{path}' could not be written ({reason}), the earlier one is intact; "
            f"free {len(data) / 1e6:.0f} MB there and go on with `wellfit resume {path.parent.parent}`"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state as it was saved, or None when there is no checkpoint yet; UserError when the file is damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            skeleton = json.loads(file.metadata()["wellfit"])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the checkpoint '{path}' is damaged ({error}); delete it, and the training of this run starts anew"
        ) from error
    decoded = _decode(skeleton, tensors)
    assert isinstance(decoded, dict)
    return decoded


def _encode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = f"t{len(tensors):05d}"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs, since JSON would turn the optimizer's integer keys into text
        return {"dict": [[key, _encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, tensors) for item in value]}
    if isinstance(value, list):
        return {"list": [_encode(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"a checkpoint holds tensors, numbers, text, lists and dicts, got {type(value).__name__}")


def _decode(value: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content}
    if kind in ("tuple", "list"):
        items = [_decode(item, tensors) for item in content]
        return tuple(items) if kind == "tuple" else items
    return content

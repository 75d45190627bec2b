"""Weight files: read them safely, and load them whole or not at all.

A file is read without running code from it. Keys and shapes must agree with the net, the classifier apart:
one of another class count, or none, leaves the net's new classifier in place and says so.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wellfit.errors import UserError

SAFETENSORS = ".safetensors"
PICKLES = (".pth", ".pt", ".th", ".bin", ".tar")

# How training scripts wrap a state dict; averaged weights come first since they are the ones to use.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# torchvision's DenseNet files are older than the names of its layers.
_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def read_state(path: Path) -> OrderedDict[str, torch.Tensor]:
    """Parameters and buffers by name, on the CPU, without wrappers and prefixes.

    .safetensors, or a pickle (.pth, .pt, .th, .bin, .tar) read with `weights_only=True`. UserError when the
    file is missing, damaged, holds pickled code, or holds no tensors by name.
    """
    if not path.is_file():
        raise UserError(f"weights are read from a file, but there is none at '{path}'; check the path")
    if path.suffix == SAFETENSORS:
        content: Any = _read_safetensors(path)
    elif path.suffix in PICKLES:
        content = _read_pickle(path)
    else:
        known = ", ".join((SAFETENSORS, *PICKLES))
        raise UserError(f"a weights file ends in one of {known}, got '{path.name}'; convert or rename it")
    for _ in range(3):
        inner = next((content[w] for w in _WRAPPERS if isinstance(content, Mapping) and w in content), None)
        if not isinstance(inner, Mapping):
            break
        content = inner
    if not isinstance(content, Mapping) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise UserError(
            f"a weights file holds tensors by name, or such a table under 'state_dict' or 'model', but '{path}' does "
            "not; save `model.state_dict()`"
        )
    state = OrderedDict((_plain_key(key), value) for key, value in content.items())
    prefixes = sorted({prefix for key in content for prefix in _PREFIXES if str(key).startswith(prefix)})
    if prefixes:
        said = " and ".join(f"'{prefix}'" for prefix in prefixes)
        state.__dict__["_notes"] = [f"the keys of '{path}' begin with {said}, which was taken off"]
    metadata = getattr(content, "_metadata", None)
    if metadata is not None:
        state.__dict__["_metadata"] = OrderedDict((_plain_key(f"{k}.").rstrip("."), v) for k, v in metadata.items())
    return state


def _plain_key(key: object) -> str:
    text = str(key)
    while text.startswith(_PREFIXES):
        text = text.partition(".")[2]
    return text.replace("._orig_mod.", ".")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_pickle(path: Path) -> Any:
    try:
        # A Namespace is what training scripts store beside the weights: plain data, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if any(word in str(error) for word in ("GLOBAL", "Unsupported class", "reduce")):
            raise UserError(
                f"weights files must hold tensors only, but '{path}' holds pickled code, which is never run; "
                "save `model.state_dict()` from the program that wrote it, best as .safetensors"
            ) from error
        raise _damaged(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0][:120] or type(error).__name__
    return UserError(f"'{path}' cannot be read as a weights file ({reason}); fetch or save it again")


def load_state(
    module: nn.Module, state: Mapping[str, torch.Tensor], classifiers: Iterable[str], what: str
) -> list[str]:
    """Load `state` into `module` in place; returns notes on what was not loaded.

    classifiers: dotted names of the final layers, which may be absent from `state` or have another number of
    rows; then the module keeps its own. what: the weights, in words, for messages. Half-precision values become the
    module's own dtype. UserError when anything else is missing, left over, or of another shape.
    """
    own = module.state_dict()
    given = OrderedDict(
        (key if key in own else _DENSE_LAYER.sub(r"\1\2", key), value)
        for key, value in state.items()
        if key in own or not key.startswith(_AUXILIARY)
    )
    kept, notes = _keep_own_head(own, given, list(classifiers), what)
    missing = [key for key in own if key not in given and key not in kept and not key.endswith("num_batches_tracked")]
    left_over = [key for key in given if key not in own and not key.endswith("num_batches_tracked")]
    differing = [
        f"{key} {_shape(value)} instead of {_shape(own[key])}"
        for key, value in given.items()
        if key in own and value.shape != own[key].shape
    ]
    if missing or left_over or differing:
        parts = [("missing", missing), ("unknown to the model", left_over), ("of another shape", differing)]
        said = "; ".join(f"{len(keys)} {kind} ({_few(keys)})" for kind, keys in parts if keys)
        raise UserError(f"{what} does not fit this model of {len(own)} tensors: {said}; choose the model that wrote it")
    fitting = OrderedDict((key, value.to(own[key].dtype)) for key, value in given.items() if key in own)
    # Some nets read their layers' versions from here; a file without them is taken to be of today's.
    versions = getattr(state, "_metadata", None) or getattr(own, "_metadata", None)
    if versions is not None:
        fitting.__dict__["_metadata"] = versions
    module.load_state_dict(fitting, strict=False)
    return notes


def _keep_own_head(
    own: Mapping[str, torch.Tensor], given: dict[str, torch.Tensor], classifiers: list[str], what: str
) -> tuple[set[str], list[str]]:
    """Take classifier tensors out of `given` where they are of another class count; name the keys kept."""
    keys = {f"{name}.{part}" for name in classifiers for part in ("weight", "bias")} & set(own)
    weights = [key for key in keys if key.endswith(".weight")]
    if not any(key in given for key in keys):
        return keys, [f"{what} has no classifier: a new one was made"] if keys else []
    same_inputs = all(key in given and given[key].shape[1:] == own[key].shape[1:] for key in weights)
    rows = {given[key].shape[0] for key in weights if key in given}
    if same_inputs and rows != {own[key].shape[0] for key in weights}:
        for key in keys:
            given.pop(key, None)
        old, new = rows.pop(), own[weights[0]].shape[0]
        return keys, [f"the classifier of {what} has {old} classes: a new one for {new} was made"]
    return set(), []


def _shape(value: torch.Tensor) -> str:
    return "×".join(map(str, value.shape)) or "scalar"


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")

"""The model file: `model.safetensors` with the weights and `model.json` with everything needed to use them.

The same net gives the same bytes: no times, no random order. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from wellfit.errors import UserError
from wellfit.models.weights import load_state
from wellfit.models.zoo import Built, construct
from wellfit.record import RunFolder, write_atomically

SCHEMA = 1
VERSIONED = ("wellfit", "torch", "torchvision", "timm")


def card_of(built: Built, classes: list[str], image_size: int, preprocessing: dict[str, Any]) -> dict[str, Any]:
    """What `save_model` stores beside the weights: architecture, origin, classes in output order, preprocessing."""
    return {
        "architecture": {"name": built.name, "options": built.options, "image_size": image_size},
        "weights": {
            "from": built.weights,
            "source": built.source,
            "licence": built.licence,
            "classes": built.weights_classes,
            "preprocessing": _own_preprocessing(built),
        },
        "classes": list(classes),
        "preprocessing": preprocessing,
    }


def _own_preprocessing(built: Built) -> dict[str, Any] | None:
    """What the weights that the net started from were trained with, where they say so."""
    if built.mean is None:
        return None
    names = ("mean", "std", "image_size", "interpolation", "crop_pct")
    return {name: getattr(built, name) for name in names}


def save_model(folder: RunFolder, module: nn.Module, card: dict[str, Any]) -> None:
    """Write both files, each aside and then renamed.

    card: as `card_of` makes it, further JSON values welcome; schema, versions and the number of parameters are
    added. UserError when the card cannot be written as JSON.
    """
    plain = unwrapped(module)
    full = {
        "schema": SCHEMA,
        **card,
        "parameters": sum(p.numel() for p in plain.parameters()),
        "versions": {package: _version(package) for package in VERSIONED},
    }
    try:
        text = json.dumps(full, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"model options and preprocessing must be plain JSON values ({error}); change them") from error
    tensors = _tensors(plain)
    # One metadata entry only: the writer keeps several in no fixed order.
    content = safetensors.torch.save(tensors, metadata={"sha256": _digest(tensors)})
    write_atomically(folder.model_weights, content)
    write_atomically(folder.model_card, text + "\n")


def load_model(folder: RunFolder) -> tuple[nn.Module, dict[str, Any]]:
    """The net in evaluation mode, on the CPU, and its card. UserError when a file is missing, damaged or unfit."""
    card = read_card(folder)
    path = folder.model_weights
    if not path.is_file():
        raise UserError(f"a run keeps its model in '{path}', which is not there; train again or copy the file back")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            promised = (file.metadata() or {}).get("sha256")
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"'{path}' is damaged ({error}); copy it again from where it was trained") from error
    if promised is not None and promised != _digest(tensors):
        raise UserError(f"'{path}' is damaged: its checksum does not match; copy it again from where it was trained")
    made = card["architecture"]
    module = construct(made["name"], len(card["classes"]), image_size=made["image_size"], **made["options"])
    load_state(module, tensors, [], f"'{path}', beside a card that names '{made['name']}',")
    return module.eval(), card


def read_card(folder: RunFolder) -> dict[str, Any]:
    """The card alone, checked; cheap. UserError when it is missing, damaged or from a newer wellfit."""
    path = folder.model_card
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"'{folder.path}' holds no trained model: it has no {path.name}; let the run finish") from error
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' is damaged ({error}); copy it again from where it was trained") from error
    if not isinstance(card, dict) or not isinstance(card.get("schema"), int):
        raise UserError(f"'{path}' is no model card of wellfit: it has no schema number; give a run's folder")
    if card["schema"] > SCHEMA:
        raise UserError(
            f"'{path}' was written by a newer wellfit (schema {card['schema']}, this one reads {SCHEMA}); upgrade it"
        )
    made, classes = card.get("architecture"), card.get("classes")
    complete = isinstance(made, dict) and {"name", "options", "image_size"} <= set(made) and isinstance(classes, list)
    if not complete:
        raise UserError(f"'{path}' is damaged: architecture or classes are missing; copy it again")
    return card


def unwrapped(module: nn.Module) -> nn.Module:
    """The net inside torch.compile, DataParallel, DistributedDataParallel or an average of weights."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
    while True:
        if isinstance(module, wrappers):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Contiguous copies by name; tensors that share memory in the net are written out each."""
    tensors = {}
    for key, value in module.state_dict().items():
        tensors[key.replace("_orig_mod.", "")] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

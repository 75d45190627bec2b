"""Stages of a network that stay as they are while the rest is trained (SPEC T3)."""

from __future__ import annotations

from typing import Any

from torch import nn

from wellfit.errors import UserError
from wellfit.models.head import classifiers_of
from wellfit.models.probe_net import ProbeNet

NEARLY_ALL = 0.9  # of the parameters before the classifier


def stages(module: nn.Module, image_size: int | None = None) -> list[list[tuple[str, nn.Module]]]:
    """The network's parts before the one with its classifier, first to last: each a list of (dotted name, part).

    A stage is a child of the module with parameters; normalisation belongs to the stage before it. Where nearly the
    whole network is one child, its own children count. So a residual net has its stem and its groups of blocks, a
    transformer its patches and each block, a chain of convolutions each of them. image_size: as in `classifier_of`.
    """
    if isinstance(module, ProbeNet):
        return _stages(module.backbone, "backbone", {f"backbone.{n}" for n in _heads(module.backbone, image_size)})
    return _stages(module, "", set(_heads(module, image_size)))


def freeze(module: nn.Module, depth: int, image_size: int | None = None) -> list[str]:
    """Freeze the first `depth` stages, in place, and return their names; 0 freezes nothing.

    Their parameters take no gradient, and their normalisation and dropout stay in evaluation mode, whatever mode the
    network is put into. Raises UserError where the network has fewer stages.
    """
    if depth == 0:
        return []
    found = stages(module, image_size)
    if not 0 <= depth <= len(found):
        raise UserError(
            f"freeze counts stages from the input on, and {type(module).__name__} has {len(found)} before its "
            f"classifier, got {depth}; take 0 to {len(found)}"
        )
    frozen = [(name, part) for stage in found[:depth] for name, part in stage]
    for _, part in frozen:
        part.requires_grad_(False)
        for layer in part.modules():
            layer.register_forward_pre_hook(_evaluating)
    return [name for name, _ in frozen]


def _evaluating(layer: nn.Module, inputs: Any) -> None:
    # `train()` of the whole network reaches every layer: a frozen one goes back before it is used.
    if layer.training:
        layer.training = False


def _heads(module: nn.Module, image_size: int | None) -> list[str]:
    return [name for name, _ in classifiers_of(module, image_size)]


def _stages(module: nn.Module, prefix: str, heads: set[str]) -> list[list[tuple[str, nn.Module]]]:
    dot = f"{prefix}." if prefix else ""
    parts = [(dot + name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]
    before = [(name, part) for name, part in parts if not any(f"{h}.".startswith(f"{name}.") for h in heads)]
    if not before:  # the classifier lies deep within one part
        holding = next(((name, part) for name, part in parts if name not in heads), None)
        return _stages(holding[1], holding[0], heads) if holding is not None and _children(holding[1]) else []
    found: list[list[tuple[str, nn.Module]]] = []
    whole = sum(_size(part) for _, part in before)
    for name, part in before:
        if _size(part) > NEARLY_ALL * whole and _children(part):
            found += _stages(part, name, heads)
        elif found and all(p.ndim < 2 for p in part.parameters()):
            found[-1].append((name, part))
        else:
            found.append([(name, part)])
    return found


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _children(module: nn.Module) -> bool:
    return any(any(True for _ in child.parameters()) for child in module.children())

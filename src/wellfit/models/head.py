"""The final classifier of any net: find it, replace it, scale it so that training starts at a loss of log C.

A net whose logits start large is confidently wrong at first, and its first steps only shrink them again
(SPEC C2). Weights drawn small, with equal biases, give every class nearly the same probability.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeGuard

import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.randomness import key_to_integer

Classifier: TypeAlias = nn.Linear | nn.Conv2d

# Spread of the logits over features of unit size: small enough that eight images show log C within a few percent.
LOGIT_STD = 0.03
# A ReLU after the classifier (SqueezeNet) would silence a class whose logits start below zero for good;
# an equal bias on all classes keeps them alive and leaves the probabilities as they are.
BIAS_BEFORE_RELU = 1.0

_ATTRIBUTES = ("fc", "classifier", "head", "heads", "linear")


def classifier_of(module: nn.Module, image_size: int | None = None) -> tuple[str, Classifier]:
    """Dotted name and layer of the final classifier: a Linear layer or a 1×1 convolution.

    image_size: a size in pixels that the net is known to take; used for nets of unknown make, which are run
    once on noise to see which layer the result comes from. UserError when there is no such layer.
    """
    return classifiers_of(module, image_size)[0]


def classifiers_of(module: nn.Module, image_size: int | None = None) -> list[tuple[str, Classifier]]:
    """All final classifiers: nets trained with distillation have two, whose results are averaged."""
    make = type(module).__module__.partition(".")[0]
    places: list[Any] = []
    if make == "timm" and hasattr(module, "get_classifier"):
        timm_net: Any = module
        given = timm_net.get_classifier()
        places = list(given) if isinstance(given, tuple | list) else [given]
        if hasattr(given, "head_dist"):
            places = [given.head, given.head_dist]
    elif make in ("torchvision", "wellfit"):
        places = [getattr(module, name) for name in _ATTRIBUTES if hasattr(module, name)][:1]
    found = [layer for layer in map(_last_inside, places) if layer is not None]
    if not found and (layer := _by_running(module, image_size)) is not None:
        found = [layer]
    if not found:
        raise UserError(
            f"a classifier is a Linear layer or a 1×1 convolution at the end of the net, but {type(module).__name__} "
            "has none; give it one with as many outputs as there are classes"
        )
    names = {id(layer): name for name, layer in module.named_modules()}
    return [(names[id(layer)], layer) for layer in found]


def replace_classifier(module: nn.Module, classes: int, seed: int = 0, image_size: int | None = None) -> list[str]:
    """Put new layers of `classes` outputs, scaled as `scale_classifier` does, in place of the final ones.

    Returns the dotted names of the layers replaced. The module is changed in place.
    """
    places = classifiers_of(module, image_size)
    for name, old in places:
        new: Classifier
        if isinstance(old, nn.Linear):
            new = nn.Linear(old.in_features, classes, device=old.weight.device, dtype=old.weight.dtype)
        else:
            new = nn.Conv2d(old.in_channels, classes, 1, device=old.weight.device, dtype=old.weight.dtype)
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, new)
        _scale(module, name, new, seed)
    if hasattr(module, "num_classes"):
        told: Any = module
        told.num_classes = classes
    return [name for name, _ in places]


def scale_classifier(module: nn.Module, seed: int = 0, image_size: int | None = None) -> None:
    """Redraw the final classifier small, biases equal, so that the initial loss is log C."""
    for name, layer in classifiers_of(module, image_size):
        _scale(module, name, layer, seed)


def input_channels_of(module: nn.Module) -> int:
    """Channels of the images that the net takes: its `input_channels`, those of its first convolution, or 3."""
    said = getattr(module, "input_channels", None)
    if isinstance(said, int):
        return said
    first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
    return first.in_channels if first is not None else 3


def _scale(module: nn.Module, name: str, layer: Classifier, seed: int) -> None:
    generator = torch.Generator().manual_seed(key_to_integer(seed, "classifier", name))
    std = LOGIT_STD / layer.weight[0].numel() ** 0.5
    with torch.no_grad():
        layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0.0, std, generator=generator))
        if layer.bias is not None:
            layer.bias.fill_(BIAS_BEFORE_RELU if _relu_follows(module, name) else 0.0)


def _relu_follows(module: nn.Module, name: str) -> bool:
    parent, _, child = name.rpartition(".")
    siblings = dict(module.get_submodule(parent).named_children())
    names = list(siblings)
    after = names[names.index(child) + 1 :]
    in_order = isinstance(module.get_submodule(parent), nn.Sequential)
    return in_order and bool(after) and isinstance(siblings[after[0]], nn.ReLU)


def _is_classifier(layer: nn.Module) -> TypeGuard[Classifier]:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))


def _last_inside(part: object) -> Classifier | None:
    inside = [layer for layer in part.modules() if _is_classifier(layer)] if isinstance(part, nn.Module) else []
    return inside[-1] if inside else None


def _by_running(module: nn.Module, image_size: int | None) -> Classifier | None:
    """The last layer executed that the result depends on; the last one registered if the net cannot be run."""
    order: list[Classifier] = []
    layers = [layer for layer in module.modules() if _is_classifier(layer)]
    hooks = [layer.register_forward_hook(lambda layer, _in, _out: order.append(layer)) for layer in layers]
    training = module.training
    module.eval()
    try:
        for size in (image_size,) if image_size else (32, 64, 96, 28, 128, 224):
            order.clear()
            try:
                with torch.enable_grad():
                    result = module(torch.zeros(1, input_channels_of(module), size, size))
            except (RuntimeError, ValueError, AssertionError, IndexError):
                continue
            reached = _reached(result, order)
            return reached[-1] if reached else (order[-1] if order else None)
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    return layers[-1] if layers else None


def _reached(result: object, layers: list[Classifier]) -> list[Classifier]:
    """Those of the layers that the result is differentiable in."""
    weights = [layer.weight for layer in layers if layer.weight.requires_grad]
    if not weights or not isinstance(result, torch.Tensor) or not result.requires_grad:
        return []
    gradients = torch.autograd.grad(result.sum(), weights, allow_unused=True)
    used = {id(weight) for weight, gradient in zip(weights, gradients, strict=True) if gradient is not None}
    return [layer for layer in layers if id(layer.weight) in used]

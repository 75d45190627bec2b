"""Which image sizes a net takes, found by running it on one black image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.head import input_channels_of
from wellfit.models.init import seeded

SIZES = (8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)
# What PyTorch and nets raise for an image that does not fit; anything else is a defect of the net.
UNFIT = (RuntimeError, ValueError, AssertionError, IndexError)


def check_size(
    module: nn.Module, name: str, classes: int, image_size: int, remake: Callable[[int], nn.Module] | None = None
) -> None:
    """UserError when the net cannot take square images of `image_size` pixels, naming the smallest size above.

    remake: builds the net for another size, where the size goes into its construction. Also UserError when the
    result is not a 1×classes tensor. The module's modes, buffers and the global random state stay as they were.
    """
    failure = _failure(module, name, classes, image_size)
    if failure is None:
        return

    def takes(size: int) -> bool:
        try:
            net = module if remake is None else remake(size)
            return _failure(net, name, classes, size) is None
        except UserError:
            return False

    larger = [size for size in SIZES if size > image_size]
    smallest = next((size for size in larger if takes(size)), None)
    if smallest is None:
        raise UserError(f"model '{name}' cannot take images of {image_size} px ({failure}); try another size or model")
    below = max([image_size, *(size for size in larger if size < smallest)])
    while smallest - below > 1:
        middle = (below + smallest) // 2
        below, smallest = (below, middle) if takes(middle) else (middle, smallest)
    raise UserError(
        f"model '{name}' cannot take images of {image_size} px: the smallest above that it takes is {smallest} px; "
        "enlarge the images or choose another model"
    )


def _failure(module: nn.Module, name: str, classes: int, size: int) -> str | None:
    """Why the net does not take one image of that size; None when it does. UserError for a defect of the net."""
    training = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), seeded(0, "size check"):
            result = module(torch.zeros(1, input_channels_of(module), size, size))
    except UNFIT as error:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"model '{name}' fails on one image of {size} px ({reason}); correct it") from error
    finally:
        for layer, was in training.items():
            layer.training = was
    if not isinstance(result, torch.Tensor):
        raise UserError(
            f"a classifier returns one tensor of N×{classes} logits, but '{name}' returns a {type(result).__name__}; "
            "return the logits alone"
        )
    if tuple(result.shape) != (1, classes):
        raise UserError(
            f"a classifier returns N×{classes} logits for {classes} classes, but '{name}' returns a tensor of shape "
            f"{tuple(result.shape)} for one image; give its last layer {classes} outputs"
        )
    return None

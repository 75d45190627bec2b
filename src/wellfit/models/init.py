"""Weight initialisation: the classic rules, and a guard around every global random state.

Each weight is drawn from its own generator, keyed by the seed and the parameter's dotted name, so the
numbers depend neither on the order of the layers nor on what was drawn before.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from wellfit.errors import UserError, unknown_name
from wellfit.randomness import key_to_integer

NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


@contextmanager
def seeded(seed: int, purpose: str, *key: int | str) -> Iterator[None]:
    """Run a block that draws from the global generators: reproducible inside, untouched outside.

    Only for code that is not ours (torchvision's, timm's and users' constructors).
    """
    number = key_to_integer(seed, purpose, *key)
    before = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    # torch.manual_seed would also reseed every accelerator; models are built on the CPU.
    torch.random.default_generator.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)
    try:
        yield
    finally:
        torch.random.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def fans(weight: torch.Tensor) -> tuple[int, int]:
    """Inputs and outputs of one unit: (fan_in, fan_out) of an out×in or out×in×kh×kw weight.

    >>> fans(torch.empty(16, 3, 5, 5))
    (75, 400)
    """
    receptive = weight[0, 0].numel()
    return weight.shape[1] * receptive, weight.shape[0] * receptive


def kaiming(module: nn.Module, seed: int, *, relu_bias: float = 0.0) -> None:
    """Standard deviation √(2 / fan_in), which keeps the variance through ReLU layers.

    He et al. 2015, "Delving Deep into Rectifiers"; SPEC N8. `relu_bias` fills the biases: 0.01 is the
    taught way to have every ReLU active at the start.
    """
    _gaussian(module, seed, lambda fan_in, fan_out: math.sqrt(2 / fan_in), relu_bias)


def xavier(module: nn.Module, seed: int, *, form: str = "fan_in", relu_bias: float = 0.0) -> None:
    """Standard deviation 1/√fan_in, or √(2 / (fan_in + fan_out)) with `form="average"`.

    Glorot and Bengio 2010 give the average of both directions; the forward-only form is the one that
    lectures derive. SPEC N8.
    """
    if form not in ("fan_in", "average"):
        raise UserError(f"xavier's form is 'fan_in' or 'average', got '{form}'; choose one of the two")
    if form == "fan_in":
        _gaussian(module, seed, lambda fan_in, fan_out: 1 / math.sqrt(fan_in), relu_bias)
    else:
        _gaussian(module, seed, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)), relu_bias)


def small_gaussian(module: nn.Module, seed: int, *, std: float = 0.01, relu_bias: float = 0.0) -> None:
    """The same small standard deviation everywhere: activations fade in deep nets. SPEC N8."""
    if not (math.isfinite(std) and std >= 0):
        raise UserError(f"the std of small_gaussian is a finite number of at least 0, got {std}; try 0.01")
    _gaussian(module, seed, lambda fan_in, fan_out: std, relu_bias)


def initialise(module: nn.Module, seed: int, rule: str = "kaiming", *, relu_bias: float = 0.0) -> None:
    """Apply the rule of that name from `INITIALISATIONS`; "small_gaussian=0.001" gives its standard deviation.

    UserError for an unknown rule, and for a number where the rule takes none or no number was given.
    """
    name, equals, value = rule.partition("=")
    if name not in INITIALISATIONS:
        raise unknown_name("initialisation", name, INITIALISATIONS)
    if not equals:
        INITIALISATIONS[name](module, seed, relu_bias)
        return
    if name != "small_gaussian":
        raise UserError(f"only small_gaussian takes a number, its std, got initialisation '{rule}'; write '{name}'")
    try:
        std = float(value)
    except ValueError:
        raise UserError(f"the std of small_gaussian is a number, got '{value}'; write small_gaussian=0.01") from None
    small_gaussian(module, seed, std=std, relu_bias=relu_bias)


def _gaussian(module: nn.Module, seed: int, std: Callable[[int, int], float], bias: float) -> None:
    with torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
                number = key_to_integer(seed, "initialise", name)
                layer.weight.normal_(0.0, std(*fans(layer.weight)), generator=torch.Generator().manual_seed(number))
                if layer.bias is not None:
                    layer.bias.fill_(bias)
            elif isinstance(layer, NORMALISATIONS) and layer.weight is not None:
                layer.weight.fill_(1.0)
                if layer.bias is not None:
                    layer.bias.zero_()


INITIALISATIONS: dict[str, Callable[[nn.Module, int, float], None]] = {
    "kaiming": lambda module, seed, bias: kaiming(module, seed, relu_bias=bias),
    "xavier": lambda module, seed, bias: xavier(module, seed, relu_bias=bias),
    "xavier_average": lambda module, seed, bias: xavier(module, seed, form="average", relu_bias=bias),
    "small_gaussian": lambda module, seed, bias: small_gaussian(module, seed, relu_bias=bias),
}

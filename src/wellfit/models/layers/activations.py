"""Activations by name, with what is known of each: where it saturates, whether it dies, and the advice (SPEC N7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from wellfit.dotted import is_dotted, load_dotted
from wellfit.errors import UserError, unknown_name


class Maxout(nn.Module):
    """The largest of `pieces` linear functions: N×(pieces·C)×… → N×C×…, over dimension 1.

    The layer in front has `pieces` times its outputs, hence max(w1ᵀx + b1, w2ᵀx + b2) with twice the parameters.
    Piece p of output c is channel p·C + c. Goodfellow et al. 2013, "Maxout Networks"; SPEC N7.

    >>> Maxout()(torch.tensor([[1.0, -2.0, 0.0, 5.0]]))
    tensor([[1., 5.]])
    """

    def __init__(self, pieces: int = 2) -> None:
        super().__init__()
        if pieces < 2:
            raise UserError(f"maxout takes the largest of at least 2 pieces, got {pieces}; 2 is usual")
        self.pieces = pieces

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() < 2 or x.shape[1] % self.pieces:
            raise UserError(
                f"maxout of {self.pieces} pieces takes N×C×… with C a multiple of {self.pieces}, got "
                f"{tuple(x.shape)}; give the layer in front {self.pieces} times its outputs"
            )
        return x.unflatten(1, (self.pieces, -1)).amax(1)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"


@dataclass(frozen=True)
class Activation:
    """What a name stands for.

    saturates: "both sides", "below", or "no": where the gradient fades however large the input.
    dies: whether a unit can get stuck at a gradient of exactly 0 for every input.
    pieces: how many times its outputs the layer in front needs. overwrites: torch can compute it in place, since the
    gradient follows from the output. initialisation: the rule that comes nearest to keeping
    the mean square through layers of it.
    """

    make: Callable[[], nn.Module]
    formula: str
    saturates: str
    dies: bool
    advice: str
    pieces: int = 1
    overwrites: bool = False
    initialisation: str = "kaiming"


def build_activation(name: str, *, inplace: bool = False) -> nn.Module:
    """The activation of that name, or the user's own by "package.module:Name".

    inplace: overwrite the input where the activation can. UserError naming the nearest name for an unknown one.
    """
    if is_dotted(name):
        return _users(name)
    facts = activation_facts(name)
    layer: Any = facts.make()
    if inplace and facts.overwrites:
        layer.inplace = True
    return layer


def activation_facts(name: str) -> Activation:
    """The entry of `ACTIVATIONS`; a user's own is taken to be like ReLU. UserError for an unknown name."""
    if is_dotted(name):
        return Activation(lambda: _users(name), name, "no", False, "Your own.")
    if name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def _users(path: str) -> nn.Module:
    make = load_dotted(path, "activation")
    try:
        layer = make()
    except Exception as error:  # the user's code may fail in any way
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(
            f"an activation by path is made by calling it without arguments, but '{path}' fails then ({reason}); "
            "name a class whose arguments all have defaults"
        ) from error
    if not isinstance(layer, nn.Module):
        raise UserError(f"an activation is a torch.nn.Module, but '{path}' made a {type(layer).__name__}; name a class")
    return layer


def _leaky(slope: float, advice: str) -> Activation:
    return Activation(
        lambda: nn.LeakyReLU(slope), f"x above 0, {slope:g}·x below", "no", False, advice, overwrites=True
    )


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        nn.ReLU,
        "max(0, x)",
        "below",
        True,
        "The first choice; mind the learning rate, since a unit pushed below zero for every image stays there.",
        overwrites=True,
    ),
    "leaky_relu": _leaky(0.01, "Worth a try after ReLU: it does not die."),
    "leaky_relu_0.1": _leaky(0.1, "Leaky ReLU with a steeper lower side."),
    "prelu": Activation(
        nn.PReLU,
        "x above 0, a·x below, a learned from 0.25",
        "no",
        False,
        "Worth a try after ReLU: leaky ReLU that learns its slope (weight decay is not for that slope).",
    ),
    "elu": Activation(
        nn.ELU,
        "x above 0, eˣ − 1 below",
        "below",
        False,
        "Worth a try after ReLU: outputs nearer to zero mean, at the price of an exponential.",
        overwrites=True,
    ),
    "maxout": Activation(
        Maxout,
        "max(w1ᵀx + b1, w2ᵀx + b2)",
        "no",
        False,
        "Worth a try after ReLU: linear almost everywhere and never dead, but twice the parameters.",
        pieces=2,
        initialisation="xavier",  # the larger of two unit Gaussians has mean square 1
    ),
    "gelu": Activation(
        nn.GELU,
        "x·Φ(x)",
        "below",
        False,
        "Worth a try after ReLU, and the usual choice in transformers; smooth around zero.",
    ),
    "selu": Activation(
        nn.SELU,
        "1.0507·x above 0, 1.7581·(eˣ − 1) below",
        "below",
        False,
        "For deep fully connected nets without normalisation: activations drift to mean 0 and deviation 1.",
        overwrites=True,
        initialisation="xavier",
    ),
    "silu": Activation(
        nn.SiLU,
        "x·σ(x)",
        "below",
        False,
        "Much like GELU; also called swish. The usual choice in EfficientNets.",
    ),
    "mish": Activation(
        nn.Mish,
        "x·tanh(log(1 + eˣ))",
        "below",
        False,
        "Much like SiLU, and slower.",
    ),
    "tanh": Activation(
        nn.Tanh,
        "tanh(x)",
        "both sides",
        False,
        "Seldom: zero-centred, but it saturates, and expect less than from ReLU.",
        initialisation="xavier",
    ),
    "sigmoid": Activation(
        nn.Sigmoid,
        "1 / (1 + e⁻ˣ)",
        "both sides",
        False,
        "Not in hidden layers: it saturates, its gradient is at most 1/4 a layer, and its outputs are all positive.",
        initialisation="xavier",
    ),
}

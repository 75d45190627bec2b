"""Plain stacks of fully connected layers, on which initialisation is taught (SPEC N8, I1-I6, C2-C5)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from wellfit.errors import UserError
from wellfit.models.head import scale_classifier
from wellfit.models.init import initialise, small_gaussian
from wellfit.models.layers.activations import activation_facts, build_activation


class Stack(nn.Sequential):
    """N×…, flattened to N×F → N×classes, or N×(last size) activations where there is no classifier.

    Children in order: `flatten`, then `linear1`, `activation1` (and `dropout1`), …, at the end `fc`, the classifier.
    input_channels: those of the images that it is made for.
    """

    input_channels = 3


def stack(
    sizes: Sequence[int],
    activation: str = "relu",
    *,
    classes: int | None = None,
    initialisation: str | None = None,
    bias: bool = True,
    relu_bias: float = 0.0,
    dropout: float = 0.0,
    seed: int = 0,
) -> Stack:
    """Fully connected layers of `sizes` (inputs first), each followed by the activation.

    activation: a name of `ACTIVATIONS`. classes: outputs of a linear classifier at the end; None leaves it out.
    initialisation: a rule of `INITIALISATIONS`, "small_gaussian=0.05" with its std; None takes the one that suits the
    activation. bias: whether the layers have one, filled with `relu_bias`. dropout: drop probability behind each
    activation. Numbers are drawn from `seed`. UserError for sizes that make no layer.

    >>> [tuple(p.shape) for p in stack((6, 4), classes=3, bias=False).parameters()]
    [(4, 6), (3, 4)]
    """
    if len(sizes) < 1 + (classes is None) or min(sizes) < 1:
        raise UserError(f"a stack needs inputs and at least one layer, all of size 1 or more, got sizes {list(sizes)}")
    if not 0.0 <= dropout < 1.0:
        raise UserError(f"dropout is the probability to drop, from 0 to below 1, got {dropout}; 0.5 is usual")
    facts = activation_facts(activation)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers[f"linear{i}"] = nn.Linear(inputs, outputs * facts.pieces, bias=bias)
        layers[f"activation{i}"] = build_activation(activation)
        if dropout:
            layers[f"dropout{i}"] = nn.Dropout(dropout)
    if classes is not None:
        fc = layers["fc"] = nn.Linear(sizes[-1], classes, bias=bias)
    net = Stack(layers)
    initialise(net, seed, initialisation or facts.initialisation, relu_bias=relu_bias)
    if classes is not None and bias:
        nn.init.zeros_(fc.bias)  # no ReLU follows the classifier
    return net


def mlp(
    classes: int,
    *,
    image_size: int,
    seed: int,
    channels: int = 3,
    hidden: int | Sequence[int] = (512, 512),
    activation: str = "relu",
    initialisation: str | None = None,
    relu_bias: float = 0.0,
    dropout: float = 0.0,
) -> Stack:
    """Hidden layers of `hidden` units on all pixels, and a classifier scaled so that the first loss is log C."""
    net = stack(
        (channels * image_size**2, *_sizes(hidden)),
        activation,
        classes=classes,
        initialisation=initialisation,
        relu_bias=relu_bias,
        dropout=dropout,
        seed=seed,
    )
    net.input_channels = channels
    scale_classifier(net, seed, image_size)
    return net


def two_layer(
    classes: int,
    *,
    image_size: int,
    seed: int,
    channels: int = 3,
    hidden: int = 50,
    std: float = 1e-4,
    activation: str = "relu",
) -> Stack:
    """The taught two-layer net: one hidden layer, all weights from N(0, std²), all biases 0 (SPEC C2-C5, S6).

    std is 1e-4 as taught for mean-subtracted pixels of 0 to 255; for normalised pixels take more.
    """
    net = stack((channels * image_size**2, *_sizes(hidden)), activation, classes=classes, seed=seed)
    net.input_channels = channels
    small_gaussian(net, seed, std=std)
    return net


def _sizes(hidden: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise UserError(f"hidden is one number of units or a list of them, each at least 1, got {hidden!r}; try 50")
    return sizes

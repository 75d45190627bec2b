"""The layers that a net is made of, chosen by name once and handed to each of its parts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wellfit.models.layers.activations import activation_facts, build_activation
from wellfit.models.layers.dropout import build_dropout, connect_net, drop_probability
from wellfit.models.layers.normalization import build_normalization, normalization_facts


@dataclass(frozen=True)
class LayerChoice:
    """Names as in ACTIVATIONS, NORMALIZATIONS and DROPOUTS; the rest are drop probabilities in [0, 1).

    UserError at once for an unknown name (the nearest is named) or a probability out of range.
    """

    activation: str = "relu"
    normalization: str = "batch"
    dropout: float = 0.0
    dropout_form: str = "inverted"
    drop_connect: float = 0.0
    stochastic_depth: float = 0.0

    def __post_init__(self) -> None:
        activation_facts(self.activation)
        normalization_facts(self.normalization)
        build_dropout(self.dropout, self.dropout_form)
        for name in ("drop_connect", "stochastic_depth"):
            drop_probability(name, getattr(self, name))

    @property
    def pieces(self) -> int:
        """How many times its outputs a layer in front of the activation has: 2 for maxout, else 1."""
        return activation_facts(self.activation).pieces

    @property
    def bias(self) -> bool:
        """Whether a layer in front of the normalisation needs a bias of its own."""
        return not normalization_facts(self.normalization).shifts

    @property
    def initialisation(self) -> str:
        """The rule of `models.init` that suits the activation."""
        return activation_facts(self.activation).initialisation

    def act(self) -> nn.Module:
        return build_activation(self.activation, inplace=True)

    def norm(self, channels: int) -> nn.Module:
        """For N×channels×H×W."""
        return build_normalization(self.normalization, channels)

    def vector_norm(self, features: int) -> nn.Module:
        """For N×features; nothing where the normalisation is for maps alone."""
        if normalization_facts(self.normalization).vectors is None:
            return nn.Identity()
        return build_normalization(self.normalization, features, vectors=True)

    def drop(self) -> nn.Module:
        return build_dropout(self.dropout, self.dropout_form)

    def connect(self, net: nn.Module) -> None:
        """DropConnect in the finished net, where it is asked for."""
        if self.drop_connect:
            connect_net(net, self.drop_connect)

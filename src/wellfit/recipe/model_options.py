"""What goes to the network's constructor: [model.options], and the top-level `activation` where one is named."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from wellfit.config import Config
from wellfit.errors import UserError
from wellfit.models.catalogue import entry_of, hollow_net
from wellfit.models.layers.activations import build_activation
from wellfit.models.layers.choice import LayerChoice
from wellfit.models.zoo import OWN, check_options, resolve


def model_options(config: Config) -> dict[str, Any]:
    """The options, `activation` among them; {} where neither is asked for."""
    return {**config.model.options, **({} if config.activation == "auto" else {"activation": config.activation})}


def fits_published_weights(config: Config) -> bool:
    """Whether the layers asked for are those that published weights were trained with."""
    options = model_options(config)
    return options.get("activation", "relu") == "relu" and options.get("normalization", "batch") == "batch"


def refuse_unknown_layers(config: Config) -> None:
    """UserError for an unknown layer name or a probability out of range, and for layers that the model cannot have."""
    options, name = config.model.options, config.model.name
    if config.activation != "auto":
        build_activation(config.activation)
        same = options.get("activation", config.activation)
        if same != config.activation:
            raise UserError(
                f"activation is '{config.activation}' at the top of the configuration and {same!r} in [model.options]; "
                "keep one of the two"
            )
        if name != "auto" and not _takes_activation(name):
            raise UserError(
                f"activation = '{config.activation}' is for wellfit's own nets ({', '.join(_own_with_activation())}), "
                f"and '{name}' brings its own; leave activation at 'auto', or choose one of these nets"
            )
    if name == "auto" and options:
        raise UserError(
            f"[model.options] belong to a model, got {', '.join(options)} and model.name = 'auto'; name the model"
        )
    if name in OWN and name not in ("probe_net", "ensemble"):
        check_options(name, options)
        layers = {field.name for field in dataclasses.fields(LayerChoice)}
        LayerChoice(**{key: value for key, value in options.items() if key in layers})
        # Built without values, in a moment: what its constructor refuses is said before an image is read.
        size = config.model.image_size or entry_of(name).input_size
        hollow_net(name, image_size=size, classes=10, **model_options(config))


def settled_activation(name: str, options: dict[str, Any]) -> str:
    """The activation that the net was built with; "auto" for a net that brings its own."""
    if not _takes_activation(name):
        return "auto"
    return str(options.get("activation", inspect.signature(OWN[name]).parameters["activation"].default))


def _takes_activation(name: str) -> bool:
    namespace, bare = resolve(name)
    return namespace == "own" and "activation" in inspect.signature(OWN[bare]).parameters


def _own_with_activation() -> list[str]:
    """One name of each family: resnet18 stands for all residual nets."""
    families: dict[str, str] = {}
    for name in filter(_takes_activation, OWN):
        families.setdefault(re.sub(r"\d.*", "", name), name)
    return list(families.values())

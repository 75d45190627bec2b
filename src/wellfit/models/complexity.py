"""What a net costs: output shapes, parameters, activations, operations and receptive fields, layer by layer.

SPEC N10, A1, V1. Operations are counted as `torch.utils.flop_counter` counts them: 2 for each multiply-add of a
convolution, a matrix product or an attention product; biases, pooling, normalisation and activation functions are
not counted. Activations are the values that the input and the results of convolutions, matrix products and poolings
hold for one image; what works value by value can overwrite its input and counts 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from torch import nn

from wellfit.errors import UserError
from wellfit.models.head import input_channels_of
from wellfit.models.receptive import size_of
from wellfit.models.tracing import Step, trace
from wellfit.models.units import FLOAT32, in_bytes


@dataclass(frozen=True)
class Layer:
    """One call of one layer. `parameters` is weights + biases; a layer called again holds no more of them.

    output_shape: without the batch axis; None where the layer has parameters and is not run in evaluation.
    activations: values held for one image. flops: 2 × multiply-adds for one image. receptive_field: pixels of the
    input along its longer side; None where undefined.
    """

    name: str
    type: str
    output_shape: list[int] | None
    weights: int
    biases: int
    parameters: int
    activations: int
    flops: int
    receptive_field: int | None


@dataclass(frozen=True)
class Complexity:
    """The table of a net for one input; its first row is the input itself, so that the columns add up."""

    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def biases(self) -> int:
        return sum(layer.biases for layer in self.layers)

    @property
    def flops(self) -> int:
        """2 × multiply-adds of one forward pass of one image."""
        return sum(layer.flops for layer in self.layers)

    @property
    def activations(self) -> int:
        """Values held for one image, its own pixels among them."""
        return sum(layer.activations for layer in self.layers)

    @property
    def receptive_field(self) -> int | None:
        """The largest one that is defined, in input pixels."""
        return max((layer.receptive_field for layer in self.layers if layer.receptive_field), default=None)

    @property
    def bytes(self) -> dict[str, int]:
        """In float32: parameters, activations of one image, and those about twice over with the backward pass."""
        held = self.activations * FLOAT32
        return {"parameters": self.parameters * FLOAT32, "activations": held, "with_backward": 2 * held}

    @property
    def early_activations(self) -> float | None:
        """Share of the activations in the input and the layers up to a quarter of its side; None without maps."""
        end = self._quarter()
        return None if end is None else sum(layer.activations for layer in self.layers[: end + 1]) / self.activations

    @property
    def late_parameters(self) -> float | None:
        """Share of the weights in the fully connected layers at the end; None where there are no weights."""
        dense = sum(layer.weights for layer in self.layers if layer.type.endswith("Linear"))
        return dense / self.weights if self.weights else None

    @property
    def sentences(self) -> list[str]:
        """What the table shows, in words."""
        size = self.bytes
        said = [
            f"One image holds {self.activations:,} activations: {in_bytes(size['activations'])} in float32, about "
            f"{in_bytes(size['with_backward'])} with the backward pass; the parameters take "
            f"{in_bytes(size['parameters'])}."
        ]
        end = self._quarter()
        if end is not None and self.early_activations is not None:
            shape = "×".join(map(str, self.layers[end].output_shape or []))
            said.append(
                f"{self.early_activations:.0%} of the activations are held by the time the maps are down to a quarter "
                f"of the input's side (up to {self.layers[end].name}, {shape})"
                + ("; most of the memory is in the early layers." if self.early_activations > 0.5 else ".")
            )
        if self.late_parameters:
            said.append(
                f"{self.late_parameters:.{0 if self.late_parameters > 0.01 else 2}%} of the weights are in fully "
                "connected layers" + ("; most of the parameters are there." if self.late_parameters > 0.5 else ".")
            )
        return said

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable: parameters, flops, activations, layers and the rest."""
        return {
            "input_shape": list(self.input_shape),
            "parameters": self.parameters,
            "weights": self.weights,
            "biases": self.biases,
            "flops": self.flops,
            "activations": self.activations,
            "bytes": self.bytes,
            "receptive_field": self.receptive_field,
            "early_activations": self.early_activations,
            "late_parameters": self.late_parameters,
            "sentences": self.sentences,
            "layers": [asdict(layer) for layer in self.layers],
        }

    def _quarter(self) -> int | None:
        """The first layer whose map is at most a quarter of the input's side."""
        if len(self.input_shape) != 3:
            return None
        held = [(i, layer.output_shape) for i, layer in enumerate(self.layers) if layer.activations]
        return next((i for i, s in held if s and len(s) == 3 and s[-1] * 4 <= self.input_shape[-1]), None)


def complexity(model: nn.Module, input_size: int | Sequence[int]) -> Complexity:
    """The table of any `nn.Module` for one input.

    input_size: pixels of a square image (with the channels of the net's first convolution), or the shape of one
    input without the batch axis, as (channels, height, width). Only shapes are computed, on a copy on the meta device
    and in evaluation mode: the model given is not changed and no weights are copied.
    UserError: the net does not take that input, or needs the values of its input to run.

    >>> table = complexity(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)), 32)
    >>> table.parameters, table.flops, table.layers[-1].receptive_field
    (808, 1291968, 5)
    """
    if not isinstance(model, nn.Module):
        raise UserError(
            f"complexity takes a network, an nn.Module, got {type(model).__name__}; build it first, or ask "
            "`wellfit models NAME`"
        )
    shape = _shape(model, input_size)
    try:
        steps = trace(model, shape)
    except Exception as error:  # any net may be given, and each fails in its own way
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(
            f"complexity needs a net that runs on one input of shape {'×'.join(map(str, shape))} without values, but "
            f"{type(model).__name__} does not ({reason}); give an input_size that it "
            "takes, and a net whose steps do not hang on values"
        ) from error
    layers = [Layer("input", "Input", list(shape), 0, 0, 0, prod(shape), 0, 1 if len(shape) > 1 else None)]
    used, passed_by = _not_called(steps)
    counted: set[int] = set()
    for step in [*steps, *passed_by]:
        weights, biases = _parameters_of([step.module, *used.get(step.name, ())], counted)
        is_leaf = next(step.module.children(), None) is None
        if is_leaf or weights or biases or step.flops or step.activations:
            layers.append(
                Layer(
                    step.name or "(the net itself)",
                    type(step.module).__name__,
                    step.shape,
                    weights,
                    biases,
                    weights + biases,
                    step.activations,
                    step.flops,
                    size_of(step.sees),
                )
            )
    return Complexity(shape, tuple(layers))


def _shape(model: nn.Module, input_size: int | Sequence[int]) -> tuple[int, ...]:
    whole = (input_channels_of(model), input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if not whole or any(not isinstance(side, int) or side < 1 for side in whole):
        raise UserError(
            f"input_size is a number of pixels or the shape of one input such as (3, 224, 224), got {input_size}; "
            "give positive whole numbers"
        )
    return whole


def _not_called(steps: list[Step]) -> tuple[dict[str, list[nn.Module]], list[Step]]:
    """Modules with parameters that are never called: by the name of the step that uses their weights; and the rest."""
    called = {step.name for step in steps}
    used: dict[str, list[nn.Module]] = {}
    passed_by = []
    for name, part in steps[-1].module.named_modules():
        if name not in called and part._parameters:
            own = {id(parameter) for parameter in part.parameters(recurse=False)}
            user = next((step.name for step in steps if own & step.used), None)
            if user is None:
                passed_by.append(Step(name, part))
            else:  # an attention layer multiplies by the weights of its projections itself
                used.setdefault(user, []).append(part)
    return used, passed_by


def _parameters_of(parts: Sequence[nn.Module], counted: set[int]) -> tuple[int, int]:
    """(weights, biases) that the modules hold themselves and that no layer before holds too."""
    weights = biases = 0
    for part in parts:
        for name, parameter in part.named_parameters(recurse=False):
            if id(parameter) in counted:
                continue
            counted.add(id(parameter))
            if "bias" in name:  # an LSTM's are called bias_ih_l0
                biases += parameter.numel()
            else:
                weights += parameter.numel()
    return weights, biases

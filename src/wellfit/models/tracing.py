"""One pass of shapes through any net, on the meta device: what each layer computes, holds and sees."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from wellfit.models.receptive import Field, field_of_image, through

# Operations whose results are new maps. What works value by value (activation functions, normalisation, sums of
# branches) can overwrite its input, and is not counted; nor is moving values about (flattening, concatenation).
_HOLDING = ("mm", "addmm", "bmm", "baddbmm", "convolution", "mean", "amax")


@dataclass
class Step:
    """One call of one module: what its own operations did, those of the modules in it left out.

    used: identities of the tensors that the operations took, parameters among them.
    """

    name: str
    module: nn.Module
    flops: int = 0
    activations: int = 0
    shape: list[int] | None = None
    sees: Field = None
    used: set[int] = field(default_factory=set)


class Tracer(TorchDispatchMode):
    """Sees every operation below autograd; counts as `torch.utils.flop_counter` does."""

    def __init__(self, image: torch.Tensor, root: nn.Module) -> None:
        super().__init__()
        self.open = [Step("", root)]
        self.finished: list[Step] = []
        # The tensors are kept so that no other can take their identity; on the meta device they hold nothing.
        self._seen: dict[int, tuple[torch.Tensor, Field]] = {id(image): (image, field_of_image(image.shape))}
        self._meta: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def field_of(self, tensor: Any) -> Field:
        return self._seen[id(tensor)][1] if id(tensor) in self._seen else None

    def keep(self, tensor: torch.Tensor, value: Field) -> None:
        self._seen[id(tensor)] = (tensor, value)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                decomposed = func.decompose(*args, **kwargs)
                if decomposed is not NotImplemented:
                    return decomposed
        args, kwargs = tree_map(self._on_meta, (tuple(args), kwargs))
        out = func(*args, **kwargs)
        step = self.open[-1]
        if packet in flop_registry:
            step.flops += flop_registry[packet](*args, **kwargs, out_val=out)
        self._follow(packet.__name__, func.tags, args, kwargs, out, step)
        return out

    def _on_meta(self, value: Any) -> Any:
        """Constants that a net keeps outside its buffers would not mix with tensors without values."""
        if not isinstance(value, torch.Tensor) or value.is_meta:
            return value
        if id(value) not in self._meta:
            self._meta[id(value)] = (value, torch.empty_like(value, device="meta"))
        return self._meta[id(value)][1]

    def _follow(self, name: str, tags: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any, step: Step) -> None:
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        inputs = [self._seen[id(leaf)] for leaf in given if id(leaf) in self._seen]
        step.used.update(id(leaf) for leaf in given)
        if not inputs or not results:
            return
        first = results[0]
        if _holds(name, given[0], first):
            step.activations += first.numel()
        for result in results:
            value = through(name, tags, args, inputs, result)
            self.keep(result, value)
            if result is given[0] and result._base is not None and id(result._base) in self._seen:
                # Writing into a part of a tensor changes what the whole depends on.
                self.keep(result._base, None)


def trace(module: nn.Module, shape: Sequence[int]) -> list[Step]:
    """Run a copy without values on one input of `shape` (without the batch axis); the calls in the order they ended.

    The module is in evaluation mode for it, and hooks of others are not run. What the net does at its outermost
    level is the last step, named "". Raises whatever the net raises on such an input.
    """
    net = _without_values(module).eval()
    with torch.no_grad(), torch.device("meta"):
        own = (parameter.dtype for parameter in net.parameters() if parameter.is_floating_point())
        image = torch.empty(1, *shape, dtype=next(own, torch.float32))
        tracer = Tracer(image, net)
        with _steps(net, tracer), tracer:
            net(image)
    return [*tracer.finished, *tracer.open]


@contextmanager
def hollow() -> Iterator[None]:
    """Nets that are made inside have parameters without values, so that the largest take no memory.

    Unlike under `torch.device("meta")`, other tensors keep their values: some constructors compute with them.
    """

    def emptied(_part: nn.Module, _name: str, parameter: nn.Parameter | None) -> Any:
        if parameter is None or parameter.is_meta:
            return parameter
        return nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)

    handle = register_module_parameter_registration_hook(emptied)
    try:
        yield
    finally:
        handle.remove()


def _holds(name: str, given: torch.Tensor, out: torch.Tensor) -> bool:
    if "adaptive" in name and given.shape == out.shape:
        return False  # torchvision's VGG at 224 pixels: nothing is pooled
    return name in _HOLDING or "pool" in name or "scaled_dot_product" in name


@contextmanager
def _steps(net: nn.Module, tracer: Tracer) -> Iterator[None]:
    handles = []
    for name, part in net.named_modules():
        if name:
            handles.append(part.register_forward_pre_hook(_entering(name, tracer)))
            handles.append(part.register_forward_hook(_leaving(tracer), with_kwargs=True))
        else:
            handles.append(part.register_forward_hook(_ending(tracer)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _entering(name: str, tracer: Tracer) -> Callable[..., None]:
    def hook(part: nn.Module, _inputs: Any) -> None:
        tracer.open.append(Step(name, part))

    return hook


def _leaving(tracer: Tracer) -> Callable[..., None]:
    def hook(part: nn.Module, inputs: Any, kwargs: Any, output: Any) -> None:
        step = tracer.open.pop()
        given = next((x for x in tree_leaves((inputs, kwargs)) if isinstance(x, torch.Tensor)), None)
        out = next((x for x in tree_leaves(output) if isinstance(x, torch.Tensor)), None)
        if out is not None:
            step.shape = list(out.shape[1:])
            if isinstance(part, nn.Linear) and given is not None and given.ndim > 2:
                # One position at a time, as a 1×1 convolution, which the flattened product does not show.
                before = tracer.field_of(given)
                if before and all(reach.axis != given.ndim - 1 for reach in before):
                    tracer.keep(out, before)
            if isinstance(part, nn.LocalResponseNorm | nn.RMSNorm) and given is not None:
                # Normalisations that torch composes of poolings and means: they hold nothing new, and see as before.
                step.activations = 0
                tracer.keep(out, tracer.field_of(given))
            step.sees = tracer.field_of(out)
        tracer.finished.append(step)

    return hook


def _ending(tracer: Tracer) -> Callable[..., None]:
    def hook(_part: nn.Module, _inputs: Any, output: Any) -> None:
        out = next((x for x in tree_leaves(output) if isinstance(x, torch.Tensor)), None)
        if out is not None:
            tracer.open[0].shape = list(out.shape[1:])
            tracer.open[0].sees = tracer.field_of(out)

    return hook


def _without_values(module: nn.Module) -> nn.Module:
    """A copy whose tensors are on the meta device; the values are never copied, so it takes no memory."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for tensor in (*part._parameters.values(), *part._buffers.values(), *vars(part).values()):
            if isinstance(tensor, torch.Tensor) and id(tensor) not in memo:
                empty = torch.empty_like(tensor, device="meta")
                memo[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    net = copy.deepcopy(module, memo)
    for part in net.modules():
        part._forward_hooks.clear()
        part._forward_hooks_with_kwargs.clear()
        part._forward_hooks_always_called.clear()
        for key, hook in list(part._forward_pre_hooks.items()):
            # Torch's own weight normalisation computes its weight in such a hook; other people's only look on.
            if not type(hook).__module__.startswith("torch."):
                del part._forward_pre_hooks[key]
                part._forward_pre_hooks_with_kwargs.pop(key, None)
    return net

"""A loss as a function of one flat vector: what the gradient check walks on (SPEC row C1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wellfit.checks.sandbox import copy_of
from wellfit.errors import UserError
from wellfit.randomness import generator


class Surface:
    """f over the flat space of all tensors that are checked."""

    def __init__(self, function: Callable[..., Any], inputs: Any, seed: int) -> None:
        self.name = type(function).__name__ if isinstance(function, nn.Module) else getattr(function, "__name__", "it")
        given = inputs if isinstance(inputs, tuple | list) else (inputs,)
        modules: list[tuple[str, nn.Module]] = []
        self.function = function
        if isinstance(function, nn.Module):
            self.function = copy_of(function).double()
            modules.append(("", self.function))
        self.arguments: list[Any] = []
        floating: list[tuple[str, Tensor]] = []
        for i, item in enumerate(given):
            name = "input" if i == 0 else f"input {i}"
            if isinstance(item, nn.Module):
                item = copy_of(item).double()
                modules.append((f"{name}." if len(given) > 1 else "", item))
            elif isinstance(item, Tensor) and item.is_floating_point():
                item = item.detach().to(torch.float64, copy=True).requires_grad_()
                floating.append((name, item))
            self.arguments.append(item)
        named = [(p + n, w) for p, module in modules for n, w in module.named_parameters() if w.requires_grad]
        self.tensors = [(name, tensor) for name, tensor in [*named, *floating] if tensor.numel()]
        if not self.tensors:
            raise UserError("a gradient check needs a trained parameter or a floating-point input, got neither")
        self.offsets = np.cumsum([0, *(tensor.numel() for _, tensor in self.tensors)])
        self._buffers = [buffer for _, module in modules for buffer in module.buffers()]
        self._kept = [buffer.detach().clone() for buffer in self._buffers]
        self._start = [tensor.detach().clone() for _, tensor in self.tensors]
        self._weights: list[Tensor] = []
        self._seed = seed
        self._measure()

    def _measure(self) -> None:
        """Value, size and gradient at the point, and whether a second pass says the same."""
        loss = self._forward(first=True)
        wanted = [tensor for _, tensor in self.tensors]
        gradients: tuple[Tensor | None, ...] = tuple(None for _ in wanted)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        flat = [
            np.zeros(t.numel()) if g is None else g.detach().reshape(-1).cpu().numpy()
            for t, g in zip(wanted, gradients, strict=True)
        ]
        self.gradient = np.concatenate(flat)
        self.value = float(loss.detach())
        self._restore()
        with torch.no_grad():
            again = float(self._forward())
        self._restore()
        if not math.isfinite(self.value) or not np.isfinite(self.gradient).all():
            raise UserError(
                f"a gradient check needs a finite loss and gradient, but those of {self.name} are not; check the inputs"
            )
        if abs(again - self.value) > 1e-10 * max(self.size, abs(self.value)):
            raise UserError(
                f"a gradient check needs a forward pass that repeats itself, but two passes of {self.name} gave "
                f"{self.value:.6g} and {again:.6g}; switch dropout and other random layers off with eval() first"
            )

    def _forward(self, first: bool = False) -> Tensor:
        try:
            outputs = self.function(*self.arguments)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"a gradient check runs {self.name} in float64, but its forward pass fails there ({reason}); make "
                "new tensors with the input's dtype"
            ) from error
        tensors = [t for t in ([outputs] if isinstance(outputs, Tensor) else _leaves(outputs)) if t.is_floating_point()]
        if not tensors or any(t.dtype != torch.float64 for t in tensors):
            kinds = ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors})) or "no numbers"
            raise UserError(
                f"a gradient check needs float64 from end to end, but {self.name} gives {kinds}; remove the cast"
            )
        if first:
            draw = generator(self._seed, "gradient-check", "weights")
            scalar = len(tensors) == 1 and tensors[0].numel() == 1
            self._weights = [
                torch.from_numpy(np.ones(t.shape) if scalar else np.asarray(draw.standard_normal(t.shape))).to(t.device)
                for t in tensors
            ]
            terms = zip(tensors, self._weights, strict=True)
            self.size = float(sum((t.detach() * w).abs().sum() for t, w in terms))
        return torch.stack([(t * w).sum() for t, w in zip(tensors, self._weights, strict=True)]).sum()

    def _restore(self) -> None:
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(kept)

    @torch.no_grad()
    def at(self, start: int, displacement: np.ndarray) -> float:
        """f where the flat entries from `start` on are moved by `displacement`."""
        moved = []
        for i, (_, tensor) in enumerate(self.tensors):
            low, high = max(start, self.offsets[i]), min(start + len(displacement), self.offsets[i + 1])
            if low >= high:
                continue
            moved.append(i)
            piece = torch.from_numpy(displacement[low - start : high - start]).to(tensor.device)
            target = self._start[i].reshape(-1).clone()
            target[low - self.offsets[i] : high - self.offsets[i]] += piece
            tensor.copy_(target.view(tensor.shape))
        value = float(self._forward())
        for i in moved:
            self.tensors[i][1].copy_(self._start[i])
        self._restore()
        return value

    def scales(self) -> np.ndarray:
        """The typical size of each tensor's entries, one a tensor: what a step is measured in."""
        sizes = [float(start.square().mean().sqrt()) for start in self._start]
        return np.array([size if size > 1e-2 else 1e-2 for size in sizes])

    def place(self, flat: int) -> tuple[str, int, tuple[int, ...]]:
        """Name, flat index and index of an entry of the whole space."""
        i = int(np.searchsorted(self.offsets, flat, side="right")) - 1
        name, tensor = self.tensors[i]
        within = int(flat - self.offsets[i])
        return name, within, tuple(int(k) for k in np.unravel_index(within, tuple(tensor.shape)))


def _leaves(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _leaves(item)

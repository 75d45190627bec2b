"""Sees gradients and weight changes through the optimizer's own step hooks, on watched steps only.

Of each tensor at most some thousand entries, always the same, are read before and after the step; norms
are scaled up from them. So a watched step costs little, and it does not matter where `zero_grad`, a
gradient scaler or accumulation stand in the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wellfit.diagnosis.activations import clean
from wellfit.diagnosis.history import Floats, Parameter, Sample
from wellfit.errors import UserError
from wellfit.randomness import generator


class UpdateWatch:
    """Owns the step hooks of the optimizers; measures while `active`.

    stepped: optimizer steps since the count was last reset. total: all of them. lr: the largest rate of the last step.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer], entries: int) -> None:
        self.active = False
        self.stepped = self.total = 0
        self.lr = float("nan")
        self._optimizers = optimizers
        self._entries = entries
        self._named = [(clean(name), p) for name, p in model.named_parameters()]
        if not self._named:
            raise UserError("a monitor watches a model that learns, but this one has no parameters; pass the network")
        if any(isinstance(p, nn.parameter.UninitializedParameter) for _, p in self._named):
            raise UserError("the model has lazy parameters without a shape yet; pass one batch through it first")
        own, held = {id(p) for _, p in self._named}, self._held()
        if not own & held:
            raise UserError(
                "the optimizer holds no parameter of this model; make the optimizer from model.parameters() and "
                "after moving or replacing layers"
            )
        self._index: dict[str, Tensor | None] = {}
        self._read: dict[int, tuple[Tensor, Tensor | None, Tensor]] = {}
        self._carried: Tensor | None = None
        self._leaf_hook: Any = None
        self._handles = [o.register_step_pre_hook(self._before) for o in optimizers]
        self._handles += [o.register_step_post_hook(self._after) for o in optimizers]

    def parameters(self) -> list[Parameter]:
        held = self._held()
        return [Parameter(n, p.numel(), p.ndim > 1, p.requires_grad, id(p) in held) for n, p in self._named]

    def gradients_are_finite(self) -> bool | None:
        """Whether all present gradients are finite; None when there is no gradient at all."""
        present = [p.grad for _, p in self._named if p.grad is not None]
        return all(bool(torch.isfinite(g).all()) for g in present) if present else None

    def collect(self, step: int) -> Sample:
        """The watched step's norms; one transfer from each device."""
        self.active = False
        read, self._read = self._read, {}
        held = self._held()
        weight, update, gradient = (np.zeros(len(self._named)) for _ in range(3))
        gradient[:] = np.nan
        slots, tensors = [], []
        for i, (name, p) in enumerate(self._named):
            if not p.requires_grad:
                continue
            if i not in read:  # no optimizer that stepped holds it
                before, grad = self._entries_of(name, p), self._gradient_of(name, p)
                after = before
            else:
                before, grad, after = read[i]
            slots.append((i, grad is not None, _size(p) / max(1, before.numel())))
            tensors += [before, after] + ([grad] if grad is not None else [])
        arrays = iter(_to_host(tensors))
        promised = 0.0
        for i, has_gradient, scale in slots:
            start, end = next(arrays), next(arrays)
            moved = end - start
            weight[i], update[i] = np.sqrt(scale) * _norm(start), np.sqrt(scale) * _norm(moved)
            if has_gradient:
                slope = next(arrays)
                norm = np.sqrt(scale) * _norm(slope)
                # NaN is kept for "no gradient"; one that is no number counts as infinite.
                gradient[i] = norm if np.isfinite(norm) else np.inf
                if id(self._named[i][1]) in held and slope.shape == moved.shape:
                    promised -= scale * float(slope @ moved)
        carried = None if self._carried is None else bool(self._carried)
        self._carried = None
        return Sample(step, weight, update, gradient, promised, carried=carried)

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._forget_leaf_hook()

    def _held(self) -> set[int]:
        return {id(p) for o in self._optimizers for group in o.param_groups for p in group["params"]}

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self.active:
            return
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        scale = getattr(optimizer, "grad_scale", None)  # a fused optimizer unscales inside its step
        for i, (name, p) in enumerate(self._named):
            if p.requires_grad and id(p) in mine:
                grad = self._gradient_of(name, p)
                if grad is not None and scale is not None:
                    grad = grad / scale
                before = self._entries_of(name, p)
                self._read[i] = (before, grad, before)

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.stepped += 1
        self.total += 1
        if optimizer is self._optimizers[0]:
            rates = [group["lr"] for group in optimizer.param_groups if "lr" in group]
            on_host = [float(r) for r in rates if self.active or not isinstance(r, Tensor) or r.device.type == "cpu"]
            self.lr = max(on_host, default=self.lr)
        if not self.active:
            return
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for i, (name, p) in enumerate(self._named):
            if i in self._read and id(p) in mine:
                before, grad, _ = self._read[i]
                self._read[i] = (before, grad, self._entries_of(name, p))
        self._watch_for_old_gradient()

    def _watch_for_old_gradient(self) -> None:
        """At the next backward pass, see whether one small parameter still holds the gradient of this step."""
        self._forget_leaf_hook()
        found = self._small_gradient()
        if found is None:
            return
        p, old = found

        def look(gradient: Tensor) -> None:
            now = p.grad
            kept = now is not None and now.shape == old.shape
            self._carried = (now.detach() == old).all() if now is not None and kept else torch.tensor(False)
            self._forget_leaf_hook()

        self._leaf_hook = p.register_hook(look)

    def _small_gradient(self) -> tuple[Tensor, Tensor] | None:
        """A small parameter that has a gradient, and a copy of it."""
        leaves = [(p, p.grad) for i, (_, p) in enumerate(self._named) if i in self._read and p.is_leaf]
        dense = [(p, grad) for p, grad in leaves if grad is not None and not grad.is_sparse]
        for p, grad in sorted(dense, key=lambda pair: pair[0].numel())[:8]:
            old = grad.detach().clone()
            if bool(old.any()) and bool(torch.isfinite(old).all()):
                return p, old
        return None

    def _forget_leaf_hook(self) -> None:
        if self._leaf_hook is not None:
            self._leaf_hook.remove()
            self._leaf_hook = None

    def _gradient_of(self, name: str, p: Tensor) -> Tensor | None:
        if p.grad is None:
            return None
        if p.grad.is_sparse:
            # Only touched rows are stored: their norm is the norm, and they have no place among fixed entries.
            values = p.grad.detach().coalesce().values().flatten()
            return values.norm().reshape(1) / (_size(p) / min(_size(p), self._entries)) ** 0.5
        return self._entries_of(name, p.grad)

    def _entries_of(self, name: str, tensor: Tensor) -> Tensor:
        """A copy of the fixed entries of a tensor, in logical order whatever its memory layout."""
        index = self._index_of(name, tensor)
        flat = tensor.detach()
        flat = torch.view_as_real(flat) if flat.is_complex() else flat
        if flat.is_contiguous():
            flat = flat.view(-1)
            return flat.clone() if index is None else flat.index_select(0, index)
        if index is None:
            return flat.reshape(-1).clone()
        return flat[torch.unravel_index(index, flat.shape)]

    def _index_of(self, name: str, tensor: Tensor) -> Tensor | None:
        size = _size(tensor)
        if size <= self._entries:
            return None
        index = self._index.get(name)
        if index is None or index.device != tensor.device:
            chosen = np.sort(generator(0, "watched entries", name).integers(0, size, self._entries))
            index = self._index[name] = torch.from_numpy(chosen.astype(np.int32)).to(tensor.device)
        return index


def _size(tensor: Tensor) -> int:
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def _to_host(tensors: list[Tensor]) -> list[Floats]:
    arrays: list[Floats | None] = [None] * len(tensors)
    for device in {t.device for t in tensors}:
        places = [i for i, t in enumerate(tensors) if t.device == device]
        joined = torch.cat([tensors[i].float() for i in places]).cpu().numpy().astype(np.float64)
        parts = np.split(joined, np.cumsum([tensors[i].numel() for i in places])[:-1])
        for i, part in zip(places, parts, strict=True):
            arrays[i] = part
    return [a for a in arrays if a is not None]


def _norm(values: Floats) -> float:
    return float(np.sqrt(values @ values))

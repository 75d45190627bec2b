"""Sees gradients and weight changes through the optimizer's own step hooks, on watched steps only.

Of each tensor at most some thousand entries, always the same, are read before and after the step; norms
are scaled up from them. So a watched step costs little, and it does not matter where `zero_grad`, a
gradient scaler or accumulation stand in the loop.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from wellfit.diagnosis.activations import WEIGHTED, clean
from wellfit.diagnosis.history import Floats, Parameter, Sample
from wellfit.diagnosis.old_gradients import OldGradient, small_gradient
from wellfit.diagnosis.steppers import StepWatch
from wellfit.errors import UserError
from wellfit.randomness import generator


class UpdateWatch:
    """Reads gradients and weight changes at the steps of the optimizers; measures while `active`.

    stepped: optimizer steps since the count was last reset. total: all of them.
    begun, moved: as `History.begun` and `Sample.moved`; what moved between two watched steps shows in them.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Any], entries: int) -> None:
        self.active = False
        self.stepped = self.total = 0
        self._model = model
        self._entries = entries
        # None in place of a parameter that the model no longer has: its place among the norms stays.
        self._named: list[tuple[str, Tensor | None]] = [(clean(name), p) for name, p in model.named_parameters()]
        if not self._named:
            raise UserError("a monitor watches a model that learns, but this one has no parameters; pass the network")
        if any(isinstance(p, nn.parameter.UninitializedParameter) for _, p in self._named):
            raise UserError("the model has lazy parameters without a shape yet; pass one batch through it first")
        if all(p is None or p.is_meta for _, p in self._named):
            raise UserError("the model is on the meta device and holds no numbers yet; watch it once it has weights")
        # Whose first axis counts the outputs: not that of embeddings and transposed convolutions. A weight that is
        # computed (spectral norm) is not asked for: to read it would move the network's buffers.
        layers = [dict(m.named_parameters(recurse=False)) for m in model.modules() if isinstance(m, WEIGHTED)]
        self._rows = {id(own["weight"]) for own in layers if "weight" in own}
        self.begun = np.full(len(self._named), -1, np.int64)
        self.moved = np.zeros(len(self._named), bool)
        self._index: dict[tuple[str, int], Tensor] = {}
        self._read: dict[int, tuple[Tensor, Tensor | None, Tensor]] = {}
        self._carried: Tensor | None = None
        self._old: list[OldGradient] = []
        self.steps = StepWatch(optimizers, model.parameters, self._before, self._after, self._adopted)
        if not {id(p) for _, p in self._named} & self.steps.held():
            self.steps.close()
            raise UserError(
                "the optimizer holds no parameter of this model; make the optimizer from model.parameters() and "
                "after moving or replacing layers"
            )

    @property
    def lr(self) -> float:
        """The largest rate of the last step; NaN before there is one."""
        return self.steps.lr

    def parameters(self) -> list[Parameter]:
        """One entry a parameter, in the order of the norms. Those without numbers here count as not to learn."""
        decays, found = self.steps.decays(), []
        for name, p in self._named:
            size, weight = (0, True) if p is None else (p.numel(), p.ndim > 1)
            learns = p is not None and p.requires_grad and _size(p) > 0
            fan_in = size // len(p) if p is not None and size and id(p) in self._rows else 0
            found.append(Parameter(name, size, weight, learns, id(p) in decays, fan_in, decays.get(id(p), 0.0)))
        return found

    def gradients_are_finite(self) -> bool | None:
        """Whether all present gradients are finite; None when there is no gradient at all."""
        present = [_numbers(p.grad) for _, p in self._named if p is not None and p.grad is not None]
        return all(bool(torch.isfinite(g).all()) for g in present) if present else None

    def collect(self, step: int) -> Sample:
        """The watched step's norms; one transfer from each device."""
        self.active = False
        read, self._read = self._read, {}
        held = self.steps.held()
        weight, update, gradient = (np.zeros(len(self._named)) for _ in range(3))
        gradient[:] = np.nan
        slots, tensors = [], []
        for i, (name, p) in enumerate(self._named):
            if p is None or not p.requires_grad or not _size(p):
                continue
            if i not in read:  # no optimizer that stepped holds it
                before, grad = self._entries_of(name, p), self._gradient_of(name, p)
                after = before
            else:
                before, grad, after = read[i]
            slots.append((i, grad is not None, _size(p) / max(1, before.numel())))
            tensors += [before, after] + ([grad] if grad is not None else [])
        arrays = _to_host(tensors)
        promised = 0.0
        for i, has_gradient, scale in slots:
            start, end = next(arrays), next(arrays)
            moved = end - start
            weight[i], update[i] = np.sqrt(scale) * _norm(start), np.sqrt(scale) * _norm(moved)
            self._compare(i, start, now=update[i] > 0)
            if has_gradient:
                slope = next(arrays)
                norm = np.sqrt(scale) * _norm(slope)
                # NaN is kept for "no gradient"; one that is no number counts as infinite.
                gradient[i] = norm if np.isfinite(norm) else np.inf
                if id(self._named[i][1]) in held and slope.shape == moved.shape:
                    promised -= scale * float(slope @ moved)
        carried = None if self._carried is None else bool(self._carried)
        self._carried = None
        return Sample(step, weight, update, gradient, promised, carried=carried, moved=self.moved.copy())

    def go_on(self, begun: NDArray[np.int64] | None, moved: NDArray[np.bool_] | None) -> None:
        """Take over what an earlier watch had seen of the same parameters."""
        if begun is not None and moved is not None:
            self.begun[: len(begun)], self.moved[: len(moved)] = begun, moved

    def close(self) -> None:
        self.steps.close()
        self._close_old()

    def _adopted(self) -> None:
        # An optimizer made midway has just stepped unseen: the step counts, and is none to measure.
        self.stepped += 1
        self.total += 1
        self.active = False

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        if not self.active:
            return None
        if not self._read:
            self._refresh()
        mine = self._places(optimizer)
        for i, name, p in mine:
            before = self._entries_of(name, p)
            self._read[i] = (before, None, before)
        self._read_gradients(optimizer, mine)
        # A closure makes the gradients within the step; the first are those at the weights that were read above.
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            return None
        fresh = True

        @functools.wraps(closure)
        def watched(*given: Any, **named: Any) -> Any:
            nonlocal fresh
            result = closure(*given, **named)
            if fresh:
                self._read_gradients(optimizer, mine)
                fresh = False
            return result

        if "closure" in kwargs:
            return args, {**kwargs, "closure": watched}
        return (args[0], watched, *args[2:]), kwargs

    def _read_gradients(self, optimizer: Optimizer, places: list[tuple[int, str, Tensor]]) -> None:
        scale = getattr(optimizer, "grad_scale", None)  # a fused optimizer unscales inside its step
        for i, name, p in places:
            grad = self._gradient_of(name, p)
            before = self._read[i][0]
            self._read[i] = (before, grad / scale if grad is not None and scale is not None else grad, before)

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._old:
            self._settle_old(optimizer)
        self.stepped += 1
        self.total += 1
        self.steps.note_rate(optimizer, may_wait=self.active)
        if not self.active:
            return
        for i, name, p in self._places(optimizer):
            if i in self._read:
                before, grad, _ = self._read[i]
                self._read[i] = (before, grad, self._entries_of(name, p))
        self._watch_for_old_gradient()

    def _places(self, optimizer: Optimizer) -> list[tuple[int, str, Tensor]]:
        """Number, name and tensor of the parameters that the optimizer moves."""
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        named = enumerate(self._named)
        return [(i, name, p) for i, (name, p) in named if p is not None and p.requires_grad and id(p) in mine]

    def _compare(self, place: int, start: Floats, *, now: bool) -> None:
        """Whether a parameter has moved since the first watched step: seen by a checksum, which takes no memory."""
        if now or self.moved[place]:
            self.moved[place] = True
            return
        found = zlib.crc32(start.tobytes())
        if self.begun[place] < 0:
            self.begun[place] = found
        self.moved[place] = found != self.begun[place]

    def _refresh(self) -> None:
        """Take up parameters that the model got since, and let go of those that it lost."""
        present = {id(p): (clean(name), p) for name, p in self._model.named_parameters()}
        if len(present) == len(self._named) and all(id(p) in present for _, p in self._named):
            return
        known = {id(p) for _, p in self._named if p is not None}
        self._named = [(name, p if id(p) in present else None) for name, p in self._named]
        self._named += [pair for key, pair in present.items() if key not in known]
        new = len(self._named) - len(self.begun)
        self.begun, self.moved = np.append(self.begun, np.full(new, -1)), np.append(self.moved, np.zeros(new, bool))

    def _watch_for_old_gradient(self) -> None:
        """See whether this step's gradient goes into the next step too: watched at a small parameter of either half."""
        self._close_old()
        read = [p for i, (_, p) in enumerate(self._named) if i in self._read and p is not None and p.is_leaf]
        middle = len(read) // 2
        for half in (read[:middle], read[middle:]):
            if (found := small_gradient(half)) is not None:
                self._old.append(OldGradient(*found))

    def _settle_old(self, optimizer: Optimizer) -> None:
        """The optimizer has taken what was watched, and a closure has made it: no later pass tells of this step."""
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for old in [old for old in self._old if id(old.parameter) in held]:
            self._old.remove(old)
            old.close()
            if old.carried is not None:
                carried, before = old.carried & (not old.replaced), self._carried
                self._carried = carried if before is None else before.to(carried.device) | carried

    def _close_old(self) -> None:
        for old in self._old:
            old.close()
        self._old = []

    def _gradient_of(self, name: str, p: Tensor) -> Tensor | None:
        if p.grad is None:
            return None
        if p.grad.is_sparse:
            # Only touched rows are stored: their norm is the norm, and they have no place among fixed entries.
            return _numbers(p.grad).norm().reshape(1) / (_size(p) / min(_size(p), self._entries)) ** 0.5
        return self._entries_of(name, p.grad)

    def _entries_of(self, name: str, tensor: Tensor) -> Tensor:
        """A copy of the fixed entries of a tensor, in logical order whatever its memory layout."""
        flat = _here(tensor)
        index = self._index_of(name, flat)
        if flat.is_contiguous():
            flat = flat.view(-1)
            return flat.clone() if index is None else flat.index_select(0, index)
        if index is None:
            return flat.reshape(-1).clone()
        return flat[torch.unravel_index(index, flat.shape)]

    def _index_of(self, name: str, tensor: Tensor) -> Tensor | None:
        size = tensor.numel()
        if size <= self._entries:
            return None
        index = self._index.get((name, size))
        if index is None or index.device != tensor.device:
            chosen = np.sort(generator(0, "watched entries", name).integers(0, size, self._entries))
            index = self._index[name, size] = torch.from_numpy(chosen.astype(np.int32)).to(tensor.device)
        return index


def widened(sample: Sample, count: int) -> Sample:
    """The sample with norms of zero, and no gradients, for parameters that came after it."""
    more = count - len(sample.weight_norm)
    if not more:
        return sample
    return replace(
        sample,
        weight_norm=np.append(sample.weight_norm, np.zeros(more)),
        update_norm=np.append(sample.update_norm, np.zeros(more)),
        gradient_norm=np.append(sample.gradient_norm, np.full(more, np.nan)),
        moved=None if sample.moved is None else np.append(sample.moved, np.zeros(more, bool)),
    )


def _here(tensor: Tensor) -> Tensor:
    """The real numbers of a tensor that this process holds: the own shard, real and imaginary parts side by side."""
    plain = _local(tensor)
    return torch.view_as_real(plain.resolve_conj()) if plain.is_complex() else plain


def _size(tensor: Tensor) -> int:
    """How many real numbers this process holds of it; 0 on the meta device."""
    if tensor.is_meta:
        return 0
    return _local(tensor).numel() * (2 if tensor.is_complex() else 1)


def _local(tensor: Any) -> Tensor:
    """A DTensor's own shard; any other tensor itself."""
    plain = tensor.detach()
    found: Tensor = plain.to_local() if hasattr(plain, "to_local") else plain
    return found


def _numbers(grad: Tensor) -> Tensor:
    """A gradient's numbers in one row; of a sparse one those that are stored."""
    grad = grad.detach()
    return _here(grad.coalesce().values() if grad.is_sparse else grad).reshape(-1)


def _to_host(tensors: list[Tensor]) -> Iterator[Floats]:
    """Each tensor's entries as float64, one after the other; one transfer from each device."""
    arrays: dict[int, NDArray[Any]] = {}
    for device in {t.device for t in tensors}:
        places = [i for i, t in enumerate(tensors) if t.device == device]
        # In float64 a step may be smaller than float32 can tell.
        wide = torch.float64 if any(tensors[i].dtype == torch.float64 for i in places) else torch.float32
        parts = [tensors[i].to(wide) for i in places]
        if device.type != "cpu":
            parts = list(torch.cat(parts).cpu().split([part.numel() for part in parts]))
        arrays.update(zip(places, (part.numpy() for part in parts), strict=True))
    # Made wide one by one: all of them at once would take megabytes.
    return (arrays[i].astype(np.float64) for i in range(len(tensors)))


def _norm(values: Floats) -> float:
    return float(np.sqrt(values @ values))

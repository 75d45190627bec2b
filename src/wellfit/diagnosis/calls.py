"""Follows the calls of a network: the model itself, or its parts where a loop calls those instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from wellfit.diagnosis.links import Link

Before = Callable[[nn.Module, Any, dict[str, Any], bool], None]
After = Callable[[Any], None]


class CallWatch:
    """Owns hooks on `model` and on its children that have parameters.

    before(module, args, kwargs, fresh): a call begins; fresh: it begins a pass, where it is not fresh it goes on with
        one, as `model.head(model.features(x))` does and as a wrapper does that calls itself. after(output): it ended.

    The children matter only while the model itself is not called under gradients: a Lightning module whose
    training_step calls `self.net(x)`, a loop that calls `model.features` and `model.head`.
    """

    def __init__(self, model: nn.Module, before: Before, after: After) -> None:
        self._before, self._after = before, after
        self._inside = 0
        self._whole = False
        self._begun: set[int] = set()
        self._handles: list[Any] = []
        if isinstance(model, torch.jit.ScriptModule):  # takes no hooks, nor do its parts
            return
        self._handles.append(model.register_forward_pre_hook(Link(self._enter), with_kwargs=True))
        self._handles.append(model.register_forward_hook(Link(self._leave), always_call=True))
        for part in _parts(model):
            self._handles.append(part.register_forward_pre_hook(Link(self._enter_part), with_kwargs=True))
            self._handles.append(part.register_forward_hook(Link(self._leave_part)))

    def reset(self) -> None:
        """A step is over: the next call begins a pass."""
        self._inside = 0
        self._begun.clear()

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        self._inside += 1
        self._whole = self._whole or torch.is_grad_enabled()
        self._before(module, args, kwargs, self._inside == 1)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._inside = max(0, self._inside - 1)
            self._after(output)

    def _enter_part(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or self._whole or self._inside:
            return
        fresh = not self._begun or id(module) in self._begun
        if fresh:
            self._begun.clear()
        self._begun.add(id(module))
        self._before(module, args, kwargs, fresh)

    def _leave_part(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling() and not self._whole and not self._inside:
            self._after(output)


def heart(model: nn.Module) -> nn.Module:
    """The network within wrappers that hold nothing else that learns: DDP, a Lightning module around one net."""
    while not list(model.parameters(recurse=False)):
        parts = [child for child in model.children() if next(child.parameters(), None) is not None]
        if len(parts) != 1 or not list(parts[0].children()):
            return model
        model = parts[0]
    return model


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    """The children that can be called and learn something; of lists and dictionaries of modules what is in them."""
    for child in model.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _parts(child)
        elif next(child.parameters(), None) is not None and not isinstance(child, torch.jit.ScriptModule):
            yield child

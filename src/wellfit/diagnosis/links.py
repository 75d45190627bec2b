"""Hooks that stay behind when a network is copied or saved.

`copy.deepcopy(model)`, `torch.save(model)` and sending a model to another process take its hooks along. A copy (the
best weights so far, an average) is not the network that is watched, and a monitor is nothing to be saved with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Link:
    """Calls `function` as a hook of a module; copied or pickled, it becomes a hook that does nothing.

    The replicas that nn.DataParallel makes at each pass share the hooks of the module, and are left out too.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> None:
        if not getattr(args[0], "_is_replica", False):
            self.function(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return nothing

    def __reduce__(self) -> Any:
        return (_give_nothing, ())


def nothing(*args: Any) -> None:
    """A hook that does nothing."""


def _give_nothing() -> Callable[..., None]:
    return nothing

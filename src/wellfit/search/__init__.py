"""Search: the space, samplers, the schedule from coarse to fine, and the study that workers share.

The package can be called: `wellfit.search(data, …)` is `wellfit.recipe.searching.search`. Function and package have one
name, and whichever were bound to it last would hide the other.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("wellfit.recipe.searching").search(*args, **options)


sys.modules[__name__].__class__ = _Room

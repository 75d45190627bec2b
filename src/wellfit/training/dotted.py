"""A user's own optimizer, schedule or criterion, reached by a dotted path `package.module:name`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wellfit.errors import UserError, nearest


def is_dotted(name: str) -> bool:
    """Whether `name` is a path such as `my_package.optim:Lion` and not a name of a table."""
    return ":" in name


def load_dotted(path: str, what: str) -> Callable[..., Any]:
    """Import `package.module:name`; the working folder is searched too, for the import only.

    what: the kind of thing wanted ("optimizer"), for the message.
    Raises UserError when the module cannot be imported, has no such name, or the name is not callable.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise UserError(f"a {what} of your own is written 'package.module:name', got '{path}'; give both parts")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(
            f"the {what} '{path}' cannot be imported: {type(error).__name__}: {error}; "
            "check the path, and that it is importable from the working folder"
        ) from error
    finally:
        sys.path.remove(here)
    found = getattr(module, name, None)
    if found is None:
        raise UserError(f"the module '{module_name}' has no '{name}'{nearest(name, vars(module))}, wanted as {what}")
    if not callable(found):
        raise UserError(f"the {what} '{path}' must be a function or a class, got {type(found).__name__}")
    loaded: Callable[..., Any] = found
    return loaded

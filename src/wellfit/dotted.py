"""A user's own model, optimizer, schedule or loss, reached by a dotted path `package.module:name`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from wellfit.errors import UserError, nearest


def is_dotted(name: str) -> bool:
    """Whether `name` is a path such as `my_package.optim:Lion` and not a name of a table."""
    return ":" in name


def load_dotted(path: str, what: str) -> Any:
    """The object at `package.module:name`; the working folder is searched too, for the import only.

    what: the kind of thing wanted ("optimizer"), for the message.
    Raises UserError when the path has another form, the module cannot be imported, has no such name, or the name
    stands for nothing that can be called.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"your own {what} is named package.module:Name, got '{path}'; write it in that form")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's module may fail in any way while it is being imported
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(
            f"the module of {what} '{path}' cannot be imported ({reason}); run from the folder that holds it, "
            "or install it"
        ) from error
    finally:
        if here in sys.path:
            sys.path.remove(here)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = ", ".join(name for name in vars(module) if not name.startswith("_"))
            near = nearest(part, vars(module))
            raise UserError(f"module '{module_name}' has no '{attribute}'{near}; it has: {public or 'nothing public'}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"the {what} '{path}' must be a function or a class, got {type(found).__name__}; name one")
    return found

"""One part of wellfit replaced by a wrong one for a while: the mutations of tests/mutations.toml.

row          the row of SPEC that the part belongs to
target       "module:name", "module:Class.method" or "module:TABLE[key]"
replacement  "identity": returns its first argument; "constant": returns `value`, or zeros like its first array;
             "plain": the object at `with`; "value": the plain number or text at `value`
test         the node that must then fail
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from inspect import getattr_static, isclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "mutations.toml"
KINDS = ("identity", "constant", "plain", "value")
WATCHED = ("wellfit", "tests")  # packages whose modules may hold the original under another name
SPARED = "tests.recipe_rows.wrong_forms"  # wrong forms may be built on right ones
NOTHING = object()
CACHED = type(cache(lambda: None))


@dataclass(frozen=True)
class Mutation:
    row: str
    target: str
    replacement: str
    test: str
    with_: str = ""
    value: Any = NOTHING

    def __post_init__(self) -> None:
        if self.replacement not in KINDS:
            raise ValueError(f"{self.row}: a replacement is one of {KINDS}, got '{self.replacement}'")
        if (self.replacement == "plain") != bool(self.with_):
            raise ValueError(f"{self.row}: `with` goes with the replacement 'plain' and with no other")

    def __str__(self) -> str:
        return f"{self.row}: {self.target} as {self.with_ or self.replacement}"


def read_mutations(file: Path = FILE) -> list[Mutation]:
    """All of the file, in its order. An unknown key is a TypeError."""
    entries = tomllib.loads(file.read_text(encoding="utf-8"))["mutation"]
    return [Mutation(**{"with_" if key == "with" else key: value for key, value in e.items()}) for e in entries]


@contextmanager
def applied(mutation: Mutation, tables: Sequence[dict[str, Any]] = ()) -> Iterator[None]:
    """The part replaced, wherever a module or one of the tables holds it, and put back afterwards."""
    undo: list[Callable[[], None]] = []
    owner, name, key = locate(mutation.target)
    if key is not None:
        table = getattr(owner, name)
        undo.append(_set_item(table, key, replacement(mutation, table[key], method=False)))
    else:
        original = getattr_static(owner, name)
        new = replacement(mutation, getattr(owner, name), method=isclass(owner))
        undo.append(_set_attribute(owner, name, new))
        # A number is the same object wherever it stands, so only the name itself is given another.
        if not isclass(owner) and not isinstance(original, int | float | str):
            undo += _replace_everywhere(original, new, tables)
    clear_caches()
    try:
        yield
    finally:
        for step in reversed(undo):
            step()
        clear_caches()


def locate(target: str) -> tuple[Any, str, Any]:
    """What holds the target, under which name, and which key where the target is an entry of a table."""
    module, _, path = target.partition(":")
    path, bracket, key = path.removesuffix("]").partition("[")
    owner: Any = import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    if not hasattr(owner, name):
        raise AttributeError(f"'{target}' is not there")
    if not bracket:
        return owner, name, None
    for own in getattr(owner, name):
        if str(own) == key:
            return owner, name, own
    raise KeyError(f"'{target}' is not there")


def found(target: str) -> Any:
    """The object that a target names."""
    owner, name, key = locate(target)
    return getattr(owner, name) if key is None else getattr(owner, name)[key]


def replacement(mutation: Mutation, original: Any, *, method: bool) -> Any:
    """What stands in for `original`. method: the first argument is the object itself."""
    skipped = 1 if method else 0
    if mutation.replacement == "value":
        return tuple(mutation.value) if isinstance(original, tuple) else mutation.value
    if mutation.replacement == "plain":
        return found(mutation.with_)
    if mutation.replacement == "identity":

        def same(*args: Any, **named: Any) -> Any:
            return (args[skipped:] or tuple(named.values()))[0]

        return same

    def constant(*args: Any, **named: Any) -> Any:
        if mutation.value is not NOTHING:
            return mutation.value
        arrays = [a for a in (*args[skipped:], *named.values()) if isinstance(a, torch.Tensor | np.ndarray)]
        return torch.zeros_like(arrays[0]) if isinstance(arrays[0], torch.Tensor) else np.zeros_like(arrays[0])

    return constant


def clear_caches() -> None:
    """What was remembered with the part in place says nothing about the part replaced."""
    for module in _watched():
        for value in list(vars(module).values()):
            if type(value) is CACHED:
                value.cache_clear()


def _watched() -> list[Any]:
    return [m for name, m in list(sys.modules.items()) if m is not None and name.partition(".")[0] in WATCHED]


def _replace_everywhere(original: Any, new: Any, tables: Sequence[dict[str, Any]]) -> list[Callable[[], None]]:
    undo = [_set_item(table, key, new) for table in tables for key, value in table.items() if value is original]
    for module in _watched():
        if module.__name__ == SPARED:
            continue
        for name, value in list(vars(module).items()):
            if value is original:
                undo.append(_set_attribute(module, name, new))
            elif type(value) is dict and not name.startswith("__"):
                undo += [_set_item(value, key, new) for key, entry in value.items() if entry is original]
    return undo


def _set_attribute(owner: Any, name: str, new: Any) -> Callable[[], None]:
    own = vars(owner).get(name, NOTHING)
    setattr(owner, name, new)
    return (lambda: delattr(owner, name)) if own is NOTHING else (lambda: setattr(owner, name, own))


def _set_item(table: dict[Any, Any], key: Any, new: Any) -> Callable[[], None]:
    old = table[key]
    table[key] = new
    return lambda: table.__setitem__(key, old)

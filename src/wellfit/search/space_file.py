"""A space as a TOML file, and back.

[lr]
log_uniform = [1e-4, 1e-1]

[optimizer]
choice = ["momentum", "adamw"]

[momentum]
uniform = [0.8, 0.99]
only_with = {optimizer = ["momentum"]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wellfit.config import read_toml, write_toml
from wellfit.errors import UserError, nearest
from wellfit.search.kinds import Choice, Condition, Fixed, Integer, Kind, LogUniform, Uniform
from wellfit.search.knobs import KNOBS, check_knob
from wellfit.search.space import Space, check_conditions

KINDS = ("log_uniform", "uniform", "integer", "choice", "fixed")


def read_space(path: str | Path) -> Space:
    """The space of a TOML file. Raises UserError, one sentence that names file and key, for whatever is wrong in it."""
    values = read_toml(path)
    where = str(path)
    for name in values:
        if name not in KNOBS:
            raise UserError(
                f"{where}: unknown setting '{name}'{nearest(name, KNOBS)}; known: {', '.join(sorted(KNOBS))}"
            )
    space = space_from_dict(values, where)
    for name, kind in space.items():
        check_knob(name, kind, where)
    return space


def space_to_toml(space: Space) -> str:
    """TOML text that `read_space` reads back to an equal space."""
    return write_toml(space_to_dict(space))


def space_to_dict(space: Space) -> dict[str, Any]:
    """Plain JSON: {name: {kind: its values, "only_with": …}}."""
    return {name: _kind_to_dict(kind) for name, kind in space.items()}


def space_from_dict(values: Mapping[str, Any], where: str = "the space") -> Space:
    """The space behind `space_to_dict`. Raises UserError with `where` in front; names need not be knobs."""
    space = {name: _kind_from_dict(name, table, where) for name, table in values.items()}
    check_conditions(space, where)
    return space


def _kind_to_dict(kind: Kind) -> dict[str, Any]:
    held: Any
    if isinstance(kind, Choice):
        held = list(kind.values)
    else:
        held = kind.value if isinstance(kind, Fixed) else [kind.low, kind.high]
    table = {kind.kind: held}
    if kind.only_with:
        table["only_with"] = {parent: list(values) for parent, values in kind.only_with.items()}
    return table


def _kind_from_dict(name: str, table: Any, where: str) -> Kind:
    if not isinstance(table, Mapping):
        raise UserError(f"{where}: '{name}' is a table, got {table!r}; write [{name}] and below it fixed = {table!r}")
    for key in table:
        if key not in (*KINDS, "only_with"):
            raise UserError(
                f"{where}: '{name}' has an unknown kind '{key}'{nearest(key, KINDS)}; known: {', '.join(KINDS)}"
            )
    given = [key for key in KINDS if key in table]
    if len(given) != 1:
        raise UserError(
            f"{where}: '{name}' needs one of {', '.join(KINDS)}, got {' and '.join(given) or 'none'}; "
            f"write for example [{name}] with {'choice = [1, 2]' if not given else f'{given[0]} alone'}"
        )
    condition = _condition(name, table.get("only_with", {}), where)
    kind, held = given[0], table[given[0]]
    if kind == "fixed":
        return Fixed(_plain(name, held, where), only_with=condition)
    if not isinstance(held, list | tuple):
        raise UserError(f"{where}: '{name}' takes {kind} as a list, got {held!r}; write {kind} = [{held!r}, …]")
    values = [_plain(name, value, where) for value in held]
    try:
        if kind == "choice":
            return Choice(tuple(values), only_with=condition)
        if len(values) != 2 or any(isinstance(v, str | bool) for v in values):
            raise UserError(f"a range has two numbers, low and high, got {held}; write {kind} = [low, high]")
        if kind == "integer":
            low, high = values
            return Integer(low, high, only_with=condition)
        return (LogUniform if kind == "log_uniform" else Uniform)(*map(float, values), only_with=condition)
    except UserError as error:
        raise UserError(f"{where}: '{name}': {error}") from None


def _condition(name: str, table: Any, where: str) -> Condition:
    if not isinstance(table, Mapping):
        raise UserError(
            f"{where}: only_with of '{name}' is a table, got {table!r}; write only_with = {{optimizer = ['sgd']}}"
        )
    condition: Condition = {}
    for parent, values in table.items():
        listed = list(values) if isinstance(values, list | tuple) else [values]
        if not listed:
            raise UserError(
                f"{where}: '{name}' is only_with no value of '{parent}', which is never met; name one, or leave it out"
            )
        condition[parent] = tuple(_plain(name, value, where) for value in listed)
    return condition


def _plain(name: str, value: Any, where: str) -> Any:
    if not isinstance(value, str | int | float):
        raise UserError(f"{where}: '{name}' holds numbers and names, got {value!r}; correct it")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: '{name}' holds finite numbers, got {value}; correct it")
    return value

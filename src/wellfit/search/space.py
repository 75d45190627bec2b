"""The space of settings: named ranges that are drawn from, narrowed and widened (SPEC S2, S4, S5).

A space is a dict of names and kinds. A kind with `only_with` is drawn only where the settings named there have one
of the values named, such as momentum beside the optimizers that have one; elsewhere it is absent from the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wellfit.errors import UserError, nearest
from wellfit.search.kinds import Choice, Condition, Fixed, Integer, Kind, LogUniform, Uniform

__all__ = [
    "Choice",
    "Condition",
    "Fixed",
    "Integer",
    "Kind",
    "LogUniform",
    "Space",
    "Uniform",
    "applies",
    "check_conditions",
    "contains",
    "draw",
    "in_order",
    "ranges",
    "values_of",
]

Space = dict[str, Kind]


def in_order(space: Space) -> list[str]:
    """The names, each behind those that its condition looks at; otherwise as they stand. UserError on a circle."""
    ordered: list[str] = []
    left = list(space)
    while left:
        ready = [name for name in left if all(parent in ordered for parent in space[name].only_with)]
        if not ready:
            raise UserError(f"conditions lead in a circle ({' → '.join([*left, left[0]])}); leave one only_with out")
        ordered += ready
        left = [name for name in left if name not in ready]
    return ordered


def applies(kind: Kind, settings: Mapping[str, Any]) -> bool:
    """Whether the condition of a kind is met by what is set already."""
    return all(parent in settings and settings[parent] in values for parent, values in kind.only_with.items())


def draw(space: Space, place: Callable[[str], float]) -> dict[str, Any]:
    """Settings at the places that `place` gives by name, each in [0, 1]; without those whose condition is not met."""
    settings: dict[str, Any] = {}
    for name in in_order(space):
        if applies(space[name], settings):
            settings[name] = space[name].at(place(name))
    return {name: settings[name] for name in space if name in settings}


def contains(space: Space, settings: Mapping[str, Any]) -> bool:
    """Whether the space could have drawn these settings: the same names, each value within its range."""
    wanted = [name for name in space if applies(space[name], settings)]
    return set(wanted) == set(settings) and all(_holds(space[name], settings[name]) for name in wanted)


def _holds(kind: Kind, value: Any) -> bool:
    if isinstance(kind, Choice | Fixed):
        return value in values_of(kind)
    return isinstance(value, int | float) and kind.low <= value <= kind.high


def check_conditions(space: Space, where: str = "the space") -> None:
    """Raises UserError where a condition looks at a setting or a value that the space has not, or at itself."""
    if not space:
        raise UserError(f"{where} is empty; name at least one setting, such as [lr] with log_uniform = [1e-4, 1e-1]")
    for name, kind in space.items():
        for parent, wanted in kind.only_with.items():
            if parent not in space:
                raise UserError(
                    f"{where}: '{name}' is only_with '{parent}', which is not in the space{nearest(parent, space)}; "
                    f"add [{parent}], or leave the condition out"
                )
            other = space[parent]
            if not isinstance(other, Choice | Fixed):
                raise UserError(
                    f"{where}: '{name}' is only_with '{parent}', which is a range from {other}; "
                    "a condition looks at a choice"
                )
            held = other.values if isinstance(other, Choice) else (other.value,)
            for value in wanted:
                if value not in held:
                    raise UserError(
                        f"{where}: '{name}' is only_with {parent} = {value!r}, which is none of its values"
                        f"{nearest(str(value), map(str, held))}: {', '.join(map(str, held))}; correct one of the two"
                    )
    try:
        in_order(space)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def values_of(kind: Kind) -> Sequence[Any]:
    """The two ends of a range, the values of a choice, the one that is fixed."""
    if isinstance(kind, Choice):
        return kind.values
    return [kind.value] if isinstance(kind, Fixed) else [kind.low, kind.high]


def ranges(space: Space) -> dict[str, list[Any]]:
    """JSON form: [low, high] of a range, the values of a choice, the one value of what is fixed."""
    return {name: list(values_of(kind)) for name, kind in space.items()}

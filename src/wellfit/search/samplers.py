"""Where settings come from: random, quasi-random, TPE or a grid, each a function of (seed, number, earlier trials)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wellfit.errors import unknown_name
from wellfit.randomness import generator
from wellfit.search.space import Space, draw
from wellfit.search.trial import Trial

SAMPLERS = ("random", "qmc", "tpe", "grid")


def check_sampler(name: str) -> None:
    """Raises UserError for a name that is none of SAMPLERS."""
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, SAMPLERS)


def settings_of(
    sampler: str,
    space: Space,
    *,
    seed: int,
    number: int,
    trials: Sequence[Trial] = (),
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Settings of the trial `number`. given: settings that are taken as they are, from outside of their range too."""
    check_sampler(sampler)
    draws = {name: float(generator(seed, "trial", number, name).uniform()) for name in space}
    settings = draw(space, lambda name: draws[name])
    return {**settings, **{name: value for name, value in (given or {}).items() if name in space}}

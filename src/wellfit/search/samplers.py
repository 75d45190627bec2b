"""Where settings come from: random, quasi-random, TPE or a grid, each a function of (seed, number, earlier trials).

- random: evenly in each range's own scale (SPEC S2). Each setting is drawn by a key of its own, so that one setting
  more in the space leaves the others as they are.
- qmc: Sobol's sequence, which leaves no gaps, shifted by a draw of the seed (Cranley & Patterson 1976). Optuna's
  sampler of the sequence counts its points in the study; ours is asked by number.
- tpe: Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) over the trials so far; random below ten.
- grid: the taught alternative, points evenly spaced in each range's own scale, ends included.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from wellfit.errors import unknown_name
from wellfit.randomness import generator, key_to_integer
from wellfit.search.smoothing import chain_ends, smoothed
from wellfit.search.space import (
    Choice,
    Fixed,
    Integer,
    Kind,
    LogUniform,
    Space,
    applies,
    contains,
    draw,
    in_order,
    values_of,
)
from wellfit.search.trial import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial as OptunaTrial

AGAIN = 1 << 16  # points of Sobol's sequence between an attempt and the next
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
    place: int = 0,
    count: int = 1,
    again: int = 0,
) -> dict[str, Any]:
    """Settings of the trial `number`.

    trials: those of earlier rounds; tpe alone looks at them.
    given: settings that are taken as they are, from outside of their range too; the others are drawn.
    place, count: which of how many settings of its stage it is; grid alone looks at them.
    again: which attempt it is, where the ones before gave settings that were run already; grid has one answer.
    """
    check_sampler(sampler)
    given = {name: value for name, value in (given or {}).items() if name in space}
    if sampler == "grid":
        points = grid(space, count)
        settings = points[place % len(points)]
    elif sampler == "tpe":
        settings = _tpe(space, seed, number, trials, again)
    else:
        places = (_sobol if sampler == "qmc" else _random)(space, seed, number, again)
        settings = draw(space, places.__getitem__)
    if not given:
        return settings
    places = _random(space, seed, number, again)
    kept: dict[str, Any] = {}
    for name in in_order(space):
        if applies(space[name], kept):
            drawn = settings[name] if name in settings else space[name].at(places[name])
            kept[name] = given.get(name, drawn)
    return {name: kept[name] for name in space if name in kept}


def _random(space: Space, seed: int, number: int, again: int) -> dict[str, float]:
    key = (number, "again", again) if again else (number,)
    return {name: float(generator(seed, "trial", *key, name).uniform()) for name in space}


def _sobol(space: Space, seed: int, number: int, again: int) -> dict[str, float]:
    from scipy.stats.qmc import Sobol

    sequence = Sobol(len(space), scramble=False)
    if number + again:
        sequence.fast_forward(number + again * AGAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a single point keeps no balance; the sequence does
        point = sequence.random(1)[0]
    shifts = [generator(seed, "sobol", name).uniform() for name in space]
    return {name: float((p + s) % 1.0) for name, p, s in zip(space, point, shifts, strict=True)}


def grid(space: Space, count: int) -> list[dict[str, Any]]:
    """At most `count` settings: the product of all choices with as many points of each range as leave room.

    Where the choices alone make more, every so many-th of their product is taken, ends included.
    """
    points = {name: kind.values if isinstance(kind, Choice) else _points(kind, 1) for name, kind in space.items()}
    growing = [name for name, kind in space.items() if not isinstance(kind, Choice | Fixed)]
    while growing:
        name = min(growing, key=lambda each: len(points[each]))
        more = {**points, name: _points(space[name], len(points[name]) + 1)}
        if len(more[name]) == len(points[name]) or len(list(islice(_product(space, more), count + 1))) > count:
            growing.remove(name)
        else:
            points = more
    made = list(_product(space, points))
    if len(made) <= count:
        return made
    return [made[i] for i in sorted({round(p) for p in np.linspace(0, len(made) - 1, count)})]


def _points(kind: Kind, count: int) -> Sequence[Any]:
    places = [0.5] if count == 1 else list(np.linspace(0.0, 1.0, count))
    if isinstance(kind, Integer):
        places = [0.5] if count == 1 else [kind.place(v) for v in np.linspace(kind.low, kind.high, count).round()]
    return list(dict.fromkeys(kind.at(float(place)) for place in places))


def _product(space: Space, points: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    names = in_order(space)

    def below(depth: int, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if depth == len(names):
            yield {name: settings[name] for name in space if name in settings}
        elif not applies(space[names[depth]], settings):
            yield from below(depth + 1, settings)
        else:
            for value in points[names[depth]]:
                yield from below(depth + 1, {**settings, names[depth]: value})

    return below(0, {})


def _tpe(space: Space, seed: int, number: int, trials: Sequence[Trial], again: int) -> dict[str, Any]:
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arguments that are experimental in one version and the rule in the next
        draws = key_to_integer(seed, "tpe", number, again) % 2**32
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=draws, multivariate=True, group=True)
        )
        told = [trial for trial in trials if trial.state != "failed" and contains(space, trial.settings)]
        expected = smoothed(told, space)
        for i in chain_ends(told):
            finished = told[i].score is not None
            varied = {name: v for name, v in told[i].settings.items() if not isinstance(space[name], Fixed)}
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if finished else TrialState.PRUNED,
                    value=expected[i][0] if finished else None,
                    params=varied,
                    distributions={name: _distribution(space[name]) for name in varied},
                )
            )
        asked = study.ask()
        drawn: dict[str, Any] = {}
        for name in in_order(space):
            if applies(space[name], drawn):
                drawn[name] = _suggested(asked, name, space[name])
    return {name: drawn[name] for name in space if name in drawn}


def _distribution(kind: Kind) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(kind, Choice | Fixed):
        return CategoricalDistribution(tuple(values_of(kind)))
    if isinstance(kind, Integer):
        return IntDistribution(kind.low, kind.high)
    return FloatDistribution(kind.low, kind.high, log=isinstance(kind, LogUniform))


def _suggested(asked: OptunaTrial, name: str, kind: Kind) -> Any:
    if isinstance(kind, Fixed):
        return kind.value
    if isinstance(kind, Choice):
        return asked.suggest_categorical(name, kind.values)
    if isinstance(kind, Integer):
        return asked.suggest_int(name, kind.low, kind.high)
    value = asked.suggest_float(name, kind.low, kind.high, log=isinstance(kind, LogUniform))
    return kind.at(kind.place(value))  # rounded as all others are

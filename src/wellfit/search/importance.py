"""How much of the spread of scores each setting explains: a functional ANOVA of a forest fitted to the trials.

Hutter, Hoos & Leyton-Brown 2014, "An Efficient Approach for Assessing Hyperparameter Importance"; Optuna's evaluator.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wellfit.randomness import generator
from wellfit.search.smoothing import chain_ends, smoothed
from wellfit.search.space import Choice, Fixed, Integer, Kind, LogUniform, Space
from wellfit.search.trial import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 12  # runs below which a forest sees nothing
A_SETTING = 4  # and so many for each setting that varies


def importance(space: Space, trials: Sequence[Trial], seed: int = 0) -> dict[str, float] | None:
    """The share of each setting that varies, the most important first; they sum to 1. None where trials are too few.

    space: the space that the search began with. A run counts once, by its last trial; runs that were broken off count
    as poor ones, and failed ones not at all. Where a condition keeps a setting out of a run, a value drawn at random
    stands in for it, which explains nothing. seed: of the forest and of these draws.
    """
    varied = {name: kind for name, kind in space.items() if not isinstance(kind, Fixed)}
    kept = [trial for trial in trials if trial.state != "failed"]
    runs = [(kept[i], expected) for i, (expected, _) in enumerate(smoothed(kept, space))]
    ends = [runs[i] for i in chain_ends(kept)]
    table = {name: [_value(name, kind, trial, seed) for trial, _ in ends] for name, kind in varied.items()}
    table = {name: column for name, column in table.items() if len(set(column)) > 1}
    if len(ends) < max(FEWEST, A_SETTING * len(table)) or len({expected for _, expected in ends}) < 2:
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(varied[name], column) for name, column in table.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of evaluators that are experimental in one version and the rule in the next
        study = optuna.create_study(direction="maximize")
        for i, (_, expected) in enumerate(ends):
            params = {name: column[i] for name, column in table.items()}
            study.add_trial(optuna.trial.create_trial(value=expected, params=params, distributions=distributions))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    shares = {name: float(found.get(name, 0.0)) for name in varied}
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


def _value(name: str, kind: Kind, trial: Trial, seed: int) -> Any:
    if name in trial.settings:
        return trial.settings[name]
    return kind.at(float(generator(seed, "importance", trial.number, name).uniform()))


def _distribution(kind: Kind, column: Sequence[Any]) -> BaseDistribution:
    """The kind for Optuna, as wide as the values that fine stages tried beyond it ask for."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(kind, Choice | Fixed):
        return CategoricalDistribution(tuple(dict.fromkeys(column)))
    low, high = min(kind.low, *column), max(kind.high, *column)
    if isinstance(kind, Integer):
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=isinstance(kind, LogUniform))

"""The study: trials are drawn, run and kept through Optuna, in a SQLite file of the run folder.

The settings of a trial follow from (seed, stage, trial number) alone, so that a killed search is
taken up where it stood: finished trials are read back, the unfinished one is run again.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from wellfit.randomness import key_to_integer
from wellfit.search.space import LogUniform, Space, values_of
from wellfit.search.trial import Trial

# What runs one trial: settings and trial number in, the finished Trial out.
RunTrial = Callable[[str, int, dict[str, Any]], Trial]


@dataclass
class Study:
    """The trials of one search, in a file that survives a kill."""

    storage: optuna.storages.BaseStorage
    seed: int

    @classmethod
    def open(cls, path: Path, seed: int) -> Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(optuna.storages.RDBStorage(f"sqlite:///{path.as_posix()}"), seed)

    def run_stage(
        self,
        stage: str,
        space: Space,
        count: int,
        run: RunTrial,
        *,
        first: Sequence[dict[str, Any]] = (),
        stop: Callable[[], bool],
    ) -> list[Trial]:
        """Run `count` trials drawn at random from the space; `first` are the settings of its first trials, where given.

        stop: asked before each trial; True ends the stage with the trials so far.
        """
        study = optuna.create_study(storage=self.storage, study_name=stage, direction="maximize", load_if_exists=True)
        done = self._finished(study)
        trials: list[Trial] = []
        for number in range(count):
            if number in done:
                trials.append(done[number])
                continue
            if stop():
                break
            trials.append(
                self._run_one(study, stage, number, space, run, first[number] if number < len(first) else None)
            )
        return trials

    def _run_one(
        self, study: optuna.Study, stage: str, number: int, space: Space, run: RunTrial, first: dict[str, Any] | None
    ) -> Trial:
        drawn = optuna.samplers.RandomSampler(seed=key_to_integer(self.seed, "trial", stage, number) % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fixed = {name: first[name] for name in space if name in first} if first else {}
            study.sampler = optuna.samplers.PartialFixedSampler(fixed, drawn) if fixed else drawn
            warnings.filterwarnings("ignore", "Fixed parameter")  # a given setting may lie outside its range
            asked = study.ask(_distributions(space))
        asked.set_user_attr("number", number)
        settings = dict(asked.params)
        trial = run(stage, number, settings)
        asked.set_user_attr("trial", json.dumps(asdict(trial)))
        if trial.score is not None:
            study.tell(asked, trial.score)
        else:
            study.tell(asked, state=TrialState.PRUNED if trial.state == "pruned" else TrialState.FAIL)
        return trial

    def _finished(self, study: optuna.Study) -> dict[int, Trial]:
        found: dict[int, Trial] = {}
        for kept in study.get_trials(deepcopy=False):
            if kept.state == TrialState.RUNNING:  # its process died; the number is drawn again
                study.tell(kept.number, state=TrialState.FAIL)
            elif "trial" in kept.user_attrs:
                trial = Trial(**json.loads(kept.user_attrs["trial"]))
                found[trial.number] = trial
        return found


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {
        name: FloatDistribution(kind.low, kind.high, log=True)
        if isinstance(kind, LogUniform)
        else CategoricalDistribution(values_of(kind))
        for name, kind in space.items()
    }

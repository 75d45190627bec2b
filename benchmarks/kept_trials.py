"""Trials that are trained once: a benchmark that is interrupted reads back what it had done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wellfit.recipe.material import Material
from wellfit.recipe.trial_settings import with_settings
from wellfit.recipe.trials import TrialRunner
from wellfit.record import Record, read_record
from wellfit.search.schedule import Finished, Round, Schedule
from wellfit.search.trial import Task, Trial
from wellfit.training.checkpoint import load_checkpoint


class KeptTrials:
    """Runs tasks on one material and keeps each trial as it ends, in FOLDER/trials.jsonl."""

    def __init__(self, material: Material, folder: Path, **runner: Any) -> None:
        self.material, self.folder = material, folder
        path = folder / "trials.jsonl"
        lines = list(read_record(path))
        self.kept: dict[str, dict[str, Any]] = {x["task"]: x["trial"] for x in lines if x["kind"] == "trial"}
        self.scores: dict[str, float] = {x["task"]: x["score"] for x in lines if x["kind"] == "judged"}
        self.record = Record(path)
        self.runner = TrialRunner(material, folder, lambda kind, **fields: None, **runner)

    def run(self, task: Task) -> Trial:
        """The trial of a task; trained here where no earlier process did."""
        key = json.dumps(asdict(task), sort_keys=True)
        if key not in self.kept:
            trial = asdict(self._train(task))
            self.record.write("trial", task=key, trial=trial)
            self.kept[key] = trial
        return Trial(**self.kept[key])

    def _train(self, task: Task) -> Trial:
        return self.runner(task)

    def judged(self, trial: Trial) -> float:
        """Accuracy on the test split of the material."""
        key = json.dumps([trial.number, trial.settings, trial.epochs], sort_keys=True)
        if key not in self.scores:
            self.scores[key] = judge(self.material, trial.settings, self.runner.checkpoint(trial.number))
            self.record.write("judged", task=key, score=self.scores[key])
        return self.scores[key]

    def clear(self) -> None:
        """Checkpoints are not needed any more; the trials stay known."""
        shutil.rmtree(self.folder / "trials", ignore_errors=True)

    def close(self) -> None:
        self.record.close()


def follow(
    schedule: Schedule, run: Callable[[Task], Trial], opened: Callable[[Round], None] = lambda step: None
) -> tuple[list[Trial], Finished]:
    """The schedule to its end, one task after another. opened: told of each round before it is run."""
    trials: list[Trial] = []
    while not isinstance(step := schedule.next(trials), Finished):
        opened(step)
        known = {trial.number for trial in trials}
        trials += [run(task) for task in step.tasks if task.number not in known]
    return trials, step


def judge(material: Material, settings: dict[str, Any], checkpoint: Path) -> float:
    """Accuracy of a trial's network on the test split."""
    state = load_checkpoint(checkpoint)
    assert state is not None, "a finished trial has kept its checkpoint"
    material = with_settings(material, settings)
    module = material.plan.engine.place(material.network().module)
    module.load_state_dict(state["module"])
    return material.score_on(material.data.split.test)(module)[0]

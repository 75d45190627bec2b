"""A landscape of learning curves with a known best, for tests of the schedule.

Error falls with the length; short runs favour higher rates, and hide what weight decay does, so that the ranks of short
and long runs agree the less the shorter the runs are. Scores carry the noise of a seed and of 5,000 validation images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wellfit.randomness import generator
from wellfit.search.schedule import Finished, Round, Schedule
from wellfit.search.space import LogUniform, Space
from wellfit.search.trial import Task, Trial

SPACE: Space = {"lr": LogUniform(1e-5, 1e-1), "weight_decay": LogUniform(1e-6, 1e-2)}
LONG = 5.0  # epochs of the training that is searched for
IMAGES = 5000


class Landscape:
    """seed: where the best lies, and how high it is. shift: decades by which it moves in a tenth of the length."""

    def __init__(self, seed: int, shift: float = 0.25, noise: float = 0.003) -> None:
        place = generator(seed, "landscape")
        self.seed, self.shift, self.noise = seed, shift, noise
        self.lr = place.uniform(-3.7, -2.2)
        self.cliff = self.lr + place.uniform(0.5, 1.2)
        self.decay = place.uniform(-5, -2.5)
        self.best = place.uniform(0.86, 0.92)

    def diverges(self, settings: dict[str, Any]) -> bool:
        return math.log10(settings["lr"]) > self.cliff

    def truth(self, settings: dict[str, Any], epochs: float) -> float:
        """The score without noise."""
        if self.diverges(settings):
            return 0.1
        short = math.log(LONG / epochs)
        off = math.log10(settings["lr"]) - self.lr - self.shift * short / math.log(10)
        error = 1 - self.best + 0.02 * off**2 * (1 if off < 0 else 2) + 0.01 * abs(off) ** 3
        decay = math.log10(settings["weight_decay"]) - self.decay
        error += 0.003 * decay**2 * min(1.0, epochs / LONG) * (1 if decay > 0 else 0.3)
        error += 0.03 * short * (1 + 0.3 * max(0.0, -off))
        return 1 - min(0.9, error)

    def run(self, task: Task, *, of: int | None = None) -> Trial:
        """The trial of a task; of: the number with which its run began, whose luck it keeps."""
        if self.diverges(task.settings):
            return self._trial(task, "pruned", None, 0.2 * task.epochs)
        truth = self.truth(task.settings, task.epochs)
        luck = generator(self.seed, "run", task.number if of is None else of).normal(0, self.noise)
        error = math.sqrt(truth * (1 - truth) / IMAGES)
        measured = generator(self.seed, "score", task.number).normal(0, error)
        return self._trial(task, "finished", float(truth + luck + measured), task.epochs, error)

    def _trial(self, task: Task, state: str, score: float | None, epochs: float, error: float = 0.0) -> Trial:
        return Trial(
            stage=task.stage,
            number=task.number,
            settings=task.settings,
            state=state,
            score=score,
            error=error,
            loss=None if score is None else 1 - score,
            rung=task.rung,
            epochs=epochs,
            continues=task.continues,
        )


def searched(schedule: Schedule, landscape: Landscape) -> tuple[Finished, list[Trial], list[Round]]:
    """The schedule run to its end."""
    trials: list[Trial] = []
    rounds: list[Round] = []
    begun: dict[int, int] = {}
    while isinstance(step := schedule.next(trials), Round):
        rounds.append(step)
        for task in step.tasks:
            begun[task.number] = task.number if task.continues is None else begun[task.continues]
            trials.append(landscape.run(task, of=begun[task.number]))
    return step, trials, rounds


def cost(trials: Sequence[Trial]) -> float:
    """Epochs that were trained."""
    epochs = {trial.number: trial.epochs for trial in trials}
    return math.fsum(t.epochs - (0.0 if t.continues is None else epochs[t.continues]) for t in trials)


def random_search(landscape: Landscape, count: int, seed: int) -> Trial:
    """The best of `count` full-length runs with random settings."""
    draws = generator(seed, "random search")
    best: Trial | None = None
    for number in range(count):
        settings = {name: float(kind.at(draws.uniform())) for name, kind in SPACE.items()}
        trial = landscape.run(Task(10_000 + number, "random", settings, LONG))
        if trial.score is not None and (best is None or trial.score > (best.score or 0.0)):
            best = trial
    assert best is not None, "no rate of the random search held"
    return best


def mean_truth(landscapes: Sequence[Landscape], found: Sequence[Trial]) -> float:
    """What the winners are worth at full length."""
    return float(np.mean([land.truth(trial.settings, LONG) for land, trial in zip(landscapes, found, strict=True)]))

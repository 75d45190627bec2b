"""Finding the settings: short random runs in log space, broken off early, then finer around the best (SPEC S1-S5)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.search.space import Choice, LogUniform, Space, ranges
from wellfit.search.stages import best_trial, diverged, narrow, winner
from wellfit.search.stage_study import Study
from wellfit.search.trial import Trial
from wellfit.training.loop import Outcome, train
from wellfit.training.pace import Pace
from wellfit.training.schedules import schedule

BREAK_OFF = 3.0  # times the initial loss (SPEC S3)
DECAY_TRIALS = 16  # of the coarse stage: two settings ask for more trials than one
SEARCH_TIME = 0.25  # of what is left: where the trials take longer than planned, the search ends here


def find_settings(job: Job, material: Material) -> Settings:
    """The best settings of the plan's trials; the defaults where the plan has none."""
    plan = material.plan
    with job.step("search") as outcome:
        if not plan.search.coarse_trials:
            why = "the settings are given" if job.config.optimizer.lr else "the plan leaves no time for trials"
            outcome.skip(next((r for r in plan.reasons if r.startswith("no search: a line search")), why))
            return Settings.of(plan)
        study = Study.open(job.folder.search, plan.seed)
        until = time.monotonic() + SEARCH_TIME * job.budget.left
        initial = math.log(len(material.data.classes))

        def run(stage: str, number: int, settings: dict[str, Any]) -> Trial:
            return run_trial(job, material, stage, number, settings)

        def stop() -> bool:
            return job.stop() or time.monotonic() > until

        space = starting_space(material)
        default = vars(Settings.of(plan))
        why = "decades around the defaults, in log space"
        if "weight_decay" not in space:
            why += "; weight decay is left at its default: few trials, or ones shorter than an epoch, cannot judge it"
        job.record.write("stage", name="coarse", ranges=ranges(space), reason=why)
        coarse = study.run_stage("coarse", space, plan.search.coarse_trials, run, first=[default], stop=stop)
        narrowed = narrow(space, coarse, "coarse")
        job.report(*narrowed.findings)
        fine: list[Trial] = []
        if plan.search.fine_trials and not stop():
            job.record.write("stage", name="fine", ranges=ranges(narrowed.space), reason=narrowed.reason)
            # The default and the coarse winner run again at the fine length, so that all are judged alike.
            best = best_trial(coarse)
            first = [default] if best is None or best.number == 0 else [default, best.settings]
            fine = study.run_stage("fine", narrowed.space, plan.search.fine_trials, run, first=first, stop=stop)
            # A fine range is narrow by design: its edge is worrying only on a side that was widened already.
            sides = {(f.evidence["setting"], f.evidence["side"]) for f in narrowed.findings}
            still = narrow(narrowed.space, fine, "fine").findings
            job.report(*(f for f in still if (f.evidence["setting"], f.evidence["side"]) in sides))
        trials = [*coarse, *fine]
        broken = diverged(trials, initial)
        if broken is not None:
            job.report(broken)
        of_defaults = fine[0] if fine else coarse[0] if coarse else None
        chosen, why = winner(trials, of_defaults)
        settings = Settings.of(plan, chosen.settings if chosen is not None else None)
        outcome.reason = (
            f"lr {settings.lr:.3g}, weight decay {settings.weight_decay:.3g}, after {len(coarse)} coarse and "
            f"{len(fine)} fine trials: {why}"
        )
        if chosen is not None and of_defaults is not None and chosen.stage == of_defaults.stage:
            outcome.gain = round((chosen.score or 0.0) - (of_defaults.score or 0.0), 4)
        return settings


def starting_space(material: Material) -> Space:
    """lr from a thirtieth to ten times the default; weight decay a decade either way; balance where classes differ."""
    plan = material.plan
    optimizer = plan.optimizer
    space: Space = {"lr": LogUniform(optimizer.lr / 30, optimizer.lr * 10)}
    long, many = plan.search.coarse_steps >= plan.training.steps_per_epoch, plan.search.coarse_trials >= DECAY_TRIALS
    if optimizer.weight_decay > 0 and long and many:
        space["weight_decay"] = LogUniform(optimizer.weight_decay / 10, optimizer.weight_decay * 10)
    if material.imbalanced and plan.training.balance == "auto":
        space["balance"] = Choice(("none", "weights", "sampler"))
    return space


def run_trial(job: Job, material: Material, stage: str, number: int, found: dict[str, Any]) -> Trial:
    """One short run from the common start, on its own batches, scored on validation at its end.

    Where the plan asks for folds, one run a fold, and the score is that of all images held out in turn.
    """
    begun = time.monotonic()
    steps = material.plan.search.coarse_steps if stage == "coarse" else material.plan.search.fine_steps
    runs = [_run_once(material, Settings.of(material.plan, found), *held_out, steps) for held_out in _splits(material)]
    trial = _judge(runs, stage, number, found)
    losses = runs[0].outcome.losses
    curve = [[i + 1, loss] for i, loss in enumerate(losses)]
    job.record.write(
        "trial",
        stage=stage,
        trial=number,
        settings=found,
        state=trial.state,
        validation_accuracy=trial.score,
        validation_loss=trial.loss,
        runs=len(runs),
        curve=curve[:: max(1, len(curve) // 100)],
        seconds=time.monotonic() - begun,
    )
    return trial


@dataclass
class _Run:
    """One training of a trial; score and loss None where it was broken off."""

    outcome: Outcome
    images: int
    score: float | None = None
    loss: float | None = None


def _splits(material: Material) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
    """(training images, or None for the training split; images that are scored) of each run of a trial."""
    split, search = material.data.split, material.plan.search
    if not search.folds or split.folds is None:
        yield None, material.some_of_validation(search.validation_images)
        return
    everything = np.concatenate([split.train, split.validation])
    for fold in split.folds:
        yield np.setdiff1d(everything, fold), fold


def _run_once(
    material: Material, settings: Settings, train_on: np.ndarray | None, scored: np.ndarray, steps: int
) -> _Run:
    plan = material.plan
    module = plan.engine.place(material.network().module)
    score = material.score_on(scored)
    first: list[float] = []

    def give_up(step: int, loss: float) -> bool:
        first.append(loss)
        return loss > BREAK_OFF * max(first[0], math.log(len(material.data.classes)))

    outcome = train(
        module,
        material.training(plan.seed, settings.balance, images=train_on),
        material.criterion(settings.balance),
        material.optimizer(module, settings),
        engine=plan.engine,
        preprocessing=material.preprocessing,
        schedule=schedule(plan.schedule),
        penalty=material.penalty(),
        pace=Pace(steps),
        give_up=give_up,
    )
    if outcome.reason in ("diverged", "broken-off"):
        return _Run(outcome, len(scored))
    value, figures = score(module)
    return _Run(outcome, len(scored), value, figures["loss"])


def _judge(runs: list[_Run], stage: str, number: int, found: dict[str, Any]) -> Trial:
    scores = [run.score for run in runs if run.score is not None]
    if len(scores) < len(runs):  # a rate that breaks one of the folds is too high for all
        return Trial(stage, number, found, "pruned")
    sizes = np.array([run.images for run in runs])
    images = int(sizes.sum())
    value = float(np.average(scores, weights=sizes))
    loss = float(np.average([run.loss for run in runs], weights=sizes))
    error = math.sqrt(max(value * (1 - value), 1 / images) / images)
    return Trial(stage, number, found, "finished", value, error, loss if math.isfinite(loss) else None)

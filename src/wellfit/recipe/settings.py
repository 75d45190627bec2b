"""Finding the settings: short random runs in log space, broken off early, then finer around the best (SPEC S1-S5)."""

from __future__ import annotations

import math
import time
from typing import Any

from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.search.space import Choice, LogUniform, Space, ranges
from wellfit.search.stages import Trial, best_trial, diverged, narrow, winner
from wellfit.search.study import Study
from wellfit.training.loop import Outcome, train
from wellfit.training.pace import Pace
from wellfit.training.schedules import schedule

BREAK_OFF = 3.0  # times the initial loss (SPEC S3)
SEARCH_TIME = 0.18  # of what is left: where the trials take longer than planned, the search ends here


def find_settings(job: Job, material: Material) -> Settings:
    """The best settings of the plan's trials; the defaults where the plan has none."""
    plan = material.plan
    with job.step("search") as outcome:
        if not plan.search.coarse_trials:
            outcome.skip("the settings are given" if job.config.optimizer.lr else "the plan leaves no time for trials")
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
            why += "; weight decay is left at its default, since trials shorter than an epoch cannot judge it"
        job.record.write("stage", name="coarse", ranges=ranges(space), reason=why)
        coarse = study.run_stage("coarse", space, plan.search.coarse_trials, run, first=[default], stop=stop)
        narrowed = narrow(space, coarse, "coarse")
        job.report(*narrowed.findings)
        judged = coarse
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
            judged = fine if len(fine) > 1 else coarse
        broken = diverged([*coarse, *judged] if judged is not coarse else coarse, initial)
        if broken is not None:
            job.report(broken)
        chosen, why = winner(judged, judged[0] if judged else None)
        settings = Settings.of(plan, chosen.settings if chosen is not None else None)
        outcome.reason = (
            f"lr {settings.lr:.3g}, weight decay {settings.weight_decay:.3g}, after {len(coarse)} coarse and "
            f"{len(judged) if judged is not coarse else 0} fine trials: {why}"
        )
        if chosen is not None and chosen.score is not None and judged[0].score is not None:
            outcome.gain = round(chosen.score - judged[0].score, 4)
        return settings


def starting_space(material: Material) -> Space:
    """lr from a thirtieth to ten times the default; weight decay a decade either way; balance where classes differ."""
    plan = material.plan
    optimizer = plan.optimizer
    space: Space = {"lr": LogUniform(optimizer.lr / 30, optimizer.lr * 10)}
    if optimizer.weight_decay > 0 and plan.search.coarse_steps >= plan.training.steps_per_epoch:
        space["weight_decay"] = LogUniform(optimizer.weight_decay / 10, optimizer.weight_decay * 10)
    if material.imbalanced and plan.training.balance == "auto":
        space["balance"] = Choice(("none", "weights", "sampler"))
    return space


def run_trial(job: Job, material: Material, stage: str, number: int, found: dict[str, Any]) -> Trial:
    """One short run from the common start, on its own batches, scored on validation at its end."""
    plan = material.plan
    settings = Settings.of(plan, found)
    begun = time.monotonic()
    module = plan.engine.place(material.network().module)
    score = material.validation_score(plan.search.validation_images)
    first: list[float] = []

    def give_up(step: int, loss: float) -> bool:
        first.append(loss)
        return loss > BREAK_OFF * max(first[0], math.log(len(material.data.classes)))

    result = train(
        module,
        material.training(plan.seed, settings.balance),
        material.criterion(settings.balance),
        material.optimizer(module, settings),
        engine=plan.engine,
        preprocessing=material.preprocessing,
        schedule=schedule(plan.schedule),
        penalty=material.penalty(),
        pace=Pace(plan.search.coarse_steps if stage == "coarse" else plan.search.fine_steps),
        give_up=give_up,
    )
    trial = _judge(result, module, score, stage, number, found)
    curve = [[i + 1, loss] for i, loss in enumerate(result.losses)]
    job.record.write(
        "trial",
        stage=stage,
        trial=number,
        settings=found,
        state=trial.state,
        validation_accuracy=trial.score,
        validation_loss=trial.loss,
        curve=curve[:: max(1, len(curve) // 100)],
        seconds=time.monotonic() - begun,
    )
    return trial


def _judge(result: Outcome, module: Any, score: Any, stage: str, number: int, found: dict[str, Any]) -> Trial:
    if result.reason in ("diverged", "broken-off"):
        return Trial(stage, number, found, "pruned")
    value, figures = score(module)
    images = score.batches.images
    return Trial(
        stage,
        number,
        found,
        "finished",
        score=value,
        error=math.sqrt(max(value * (1 - value), 1 / images) / images),
        loss=figures["loss"] if math.isfinite(figures["loss"]) else None,
    )

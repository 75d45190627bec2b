"""What a search leaves at its end: every trial in its record, what was found, the best settings as a configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wellfit.config import Config, config_to_toml
from wellfit.errors import Interrupted, UserError
from wellfit.findings import Finding, GateFailed
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.search_work import CUT_OFF, News
from wellfit.recipe.trial_findings import on_curves
from wellfit.recipe.trial_settings import with_settings
from wellfit.record import read_record, write_atomically
from wellfit.search.schedule import Finished
from wellfit.search.stages import diverged
from wellfit.search.trial import Trial

MOST_FAILED = 3  # reasons of failed trials that a finding names


def reason_of(trials: Sequence[Trial], ended: Finished) -> str:
    """How the search ended, in words."""
    states = [trial.state for trial in trials]
    counts = [f"{states.count(state)} {state}" for state in ("finished", "pruned", "failed") if state in states]
    text = f"{len(trials)} trials ({', '.join(counts)}): {ended.reason}" if trials else ended.reason
    if ended.best is not None and ended.best.score is not None:
        text += f"; best {ended.best.score:.4f} on validation by trial {ended.best.number}"
    return text


def conclude(job: Job, news: News, material: Material, trials: list[Trial], ended: Finished) -> None:
    """Write down what came of it: trials and rounds of other machines, importance, the best settings.

    All of it follows from the trials of the study, so that whoever took part comes to the same.
    """
    news.catch_up(trials)
    known = {
        line["trial"]: (line["state"], line["validation_accuracy"])
        for file in (*job.folder.worker_records(), job.folder.record)
        for line in _trial_lines(file)
    }
    for trial in trials:
        # Also one that was run here, where the study keeps the result of another machine.
        if known.get(trial.number) != (trial.state, trial.score):
            fields = {name: value for name, value in vars(trial).items() if name not in ("number", "score", "loss")}
            job.record.write(
                "trial", trial=trial.number, validation_accuracy=trial.score, validation_loss=trial.loss, **fields
            )
    job.report(*ended.findings, *_findings(trials, ended, len(material.data.classes)))
    news.weigh(trials)
    best = ended.best
    if best is not None:
        job.record.write(
            "best",
            trial=best.number,
            settings=best.settings,
            validation_accuracy=best.score,
            epochs=best.epochs,
            reason=ended.reason,
        )
        write_atomically(job.folder.best, config_to_toml(best_config(job.config, material, best)))
    if job.stop():
        raise Interrupted(
            f"stopped as asked with {len(trials)} trials kept; go on with `wellfit resume {job.folder.path}`"
        )
    if best is None and trials:
        raise GateFailed([_none_finished(trials)])
    if best is None:
        raise UserError("the time was used up before a trial was done; give a larger --budget")


def _trial_lines(path: Path) -> list[dict[str, Any]]:
    return [line for line in read_record(path) if line["kind"] == "trial"]


def best_config(config: Config, material: Material, best: Trial) -> Config:
    """The configuration that `wellfit train DATA RUN/best.toml` trains with: what the search settled, and its plan.

    How long, and by which schedule where none was searched, is left to the training.
    """
    plan = with_settings(material, best.settings).plan
    return config.replace(
        **{
            "augment": plan.augment or ("none",),
            "schedule": best.settings.get("schedule", config.schedule),
            "model.name": plan.model.name,
            "model.weights": plan.model.weights,
            "model.image_size": plan.model.image_size,
            "model.options": plan.model.options,
            "activation": "auto",  # stands in the options
            "optimizer.name": plan.optimizer.name,
            "optimizer.lr": plan.optimizer.lr,
            "optimizer.weight_decay": plan.optimizer.weight_decay,
            "optimizer.momentum": plan.optimizer.momentum,
            "training.batch_size": plan.training.batch_size,
            "training.batch_scale": 1,
            "training.label_smoothing": plan.training.label_smoothing,
            "training.l1": plan.training.l1,
            "training.freeze": plan.training.freeze,
            "training.balance": "none" if plan.training.balance == "auto" else plan.training.balance,
        }
    )


def cut_short(trials: Sequence[Trial], ended: Finished) -> Finding | None:
    """Says that the time ended before anything was refined."""
    stages = list(dict.fromkeys(trial.stage for trial in trials))
    if not ended.reason.startswith(CUT_OFF) or len(stages) != 1 or not stages[0].startswith("coarse"):
        return None
    return Finding(
        "search-cut-short",
        "warning",
        f"the search ended within its coarse stage, after {len(trials)} trials: the best settings are those of short "
        "runs over a wide range, and nothing was refined around them",
        {"stage": stages[0], "trials": len(trials)},
        "Give a larger --budget; on a busy machine trials take longer than was measured beforehand.",
        "SPEC S1",
    )


def _findings(trials: Sequence[Trial], ended: Finished, classes: int) -> list[Finding]:
    found = []
    short = cut_short(trials, ended)
    if short is not None:
        found.append(short)
    broken = diverged(trials, math.log(classes))
    if broken is not None:
        found.append(broken)
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        reasons = list(dict.fromkeys(trial.reason for trial in failed))
        found.append(
            Finding(
                "failed-trials",
                "warning",
                f"{len(failed)} of {len(trials)} trials failed: {'; '.join(reasons[:MOST_FAILED])}",
                {"failed": [trial.number for trial in failed], "reasons": reasons[:10]},
                "Look at the settings of these trials: what they share is what the network or the optimizer cannot do.",
                "SPEC S3",
            )
        )
    return [*found, *on_curves(trials, ended.best)]


def _none_finished(trials: Sequence[Trial]) -> Finding:
    first = trials[0]
    return Finding(
        "no-trial-finished",
        "error",
        f"none of {len(trials)} trials finished; the first: {first.reason}",
        {"trials": len(trials), "states": sorted({trial.state for trial in trials})},
        "Lower the range of the learning rate by a factor of a hundred, or look at what the trials failed of.",
        "SPEC S3",
    )

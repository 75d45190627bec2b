"""The plan of a search: the network, the space, how much the trials may train together (SPEC S1 rows 3-5, S2)."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wellfit.checks import CheckResult
from wellfit.config import Config, build
from wellfit.data.split import make_folds
from wellfit.engine import engine_here
from wellfit.errors import UserError
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.model_choice import CHECKS_SHARE, LOOP_EFFICIENCY, wanted_epochs
from wellfit.recipe.plan import Plan, SearchPlan
from wellfit.recipe.planning import SHORTEST_TRIAL, make_plan
from wellfit.recipe.prepare import Prepared
from wellfit.recipe.search_request import SearchRequest
from wellfit.record import read_record
from wellfit.search.knobs import default_space, reaching
from wellfit.search.schedule import Schedule, TimeLimit
from wellfit.search.space import Fixed, LogUniform, Space

TRAININGS = 8  # a search costs about as much as so many of the trainings that it is for
LONGEST_SHARE = 1.5 / TRAININGS  # of the search's budget: how long such a training is, at the most
CLOSING = 8.0  # seconds kept for the report
JUDGED = 1000  # validation images at least that judge a trial, where there are so many
JUDGED_SHARE = 8  # of the training images, one in so many: judging costs little beside an epoch
FOLDS = 5
NAMED_CLASSES = 200  # of more, a study keeps the number


def with_folds(data: Prepared, folds: int) -> Prepared:
    """The data with as many folds as asked for; 0: those that the split made itself (SPEC D5), 1: none."""
    if folds == 0:
        return data
    split = data.split
    if folds == 1:
        return replace(data, split=replace(split, folds=None))
    images = len(split.train) + len(split.validation)
    if folds > images // 2:
        raise UserError(f"{images:,} images cannot be divided into {folds} folds of two or more; give fewer --folds")
    return replace(data, split=replace(split, folds=make_folds(split, data.audit, 0, folds)))


def make_search_plan(job: Job, data: Prepared) -> Plan:
    """A plan whose training is an eighth of the search; networks with weights are fine-tuned, not probed."""
    plan = make_plan(job, data, left=job.budget.left / TRAININGS, transfer="tune")
    images = len(data.split.train)
    folds = len(data.split.folds or [])
    judged = sum(map(len, data.split.folds)) if data.split.folds else max(JUDGED, images // JUDGED_SHARE)
    judged = judged if folds else min(judged, len(data.split.validation))
    plan = plan.replace(search=SearchPlan(validation_images=judged, folds=folds))
    if folds:
        said = f"trials are judged by {folds}-fold cross-validation on {judged:,} images"
    else:
        said = f"trials are judged on {judged:,} validation images"
    return plan.replace(reasons=(*(r for r in plan.reasons if "search" not in r), said))


def starting_space(job: Job, material: Material, asked: SearchRequest, checked: Sequence[CheckResult]) -> Space:
    """What was asked for, or the taught ranges around the usual rates and around the rate that the gate found."""
    given = asked.given_space()
    if given is not None:
        return given
    optimizer, wanted = material.plan.optimizer, job.config.optimizer
    space = default_space(optimizer.lr, optimizer.weight_decay, imbalanced=material.imbalanced)
    found = next((float(r.value) for r in checked if r.check == "no-good-lr" and r.passed and r.value), optimizer.lr)
    lr = space["lr"]
    if isinstance(lr, LogUniform):
        space["lr"] = reaching(lr, found)
    if wanted.lr:
        del space["lr"]
    if wanted.weight_decay >= 0:
        del space["weight_decay"]
    if material.plan.training.balance != "auto":
        space.pop("balance", None)
    if not space:
        raise UserError(
            "learning rate and weight decay are given, so there is nothing to search; leave one of them out, or give a "
            "space of other settings"
        )
    return space


def defaults_within(space: Space, plan: Plan) -> dict[str, Any]:
    """What would be trained with without a search, as far as the space holds it: the first trial."""
    settings, rule, training = Settings.of(plan), plan.optimizer, plan.training
    usual: dict[str, Any] = {
        "lr": settings.lr,
        "weight_decay": settings.weight_decay,
        "balance": settings.balance,
        "optimizer": rule.name,
        "momentum": rule.momentum,
        "l1": training.l1,
        "batch_size": training.batch_size,
        "augmentation": 1.0,
        "label_smoothing": training.label_smoothing,
        "dropout": 0.0,
        "freeze": training.freeze,
        "model": plan.model.name,
    }
    return {name: usual[name] for name, kind in space.items() if name in usual and _holds(kind, usual[name])}


def _holds(kind: Any, value: Any) -> bool:
    if isinstance(kind, Fixed):
        return bool(kind.value == value)
    if hasattr(kind, "values"):
        return value in kind.values
    return bool(kind.low <= value <= kind.high)


def make_schedule(
    job: Job, material: Material, space: Space, asked: SearchRequest, images_per_second: float
) -> Schedule:
    """The schedule within the time that is left, the trials asked for, or both."""
    plan, images = material.plan, len(material.data.split.train)
    runs = max(1, plan.search.folds)
    given = job.config.training.epochs
    wanted = float(given or wanted_epochs(images))
    epochs = time = None
    if math.isfinite(job.budget.left):
        seconds = job.budget.left - CLOSING
        if seconds <= 0:
            raise UserError(
                f"{max(0.0, job.budget.left):.0f} s of the budget are left when the search is to begin, and its page "
                f"takes {CLOSING:.0f} s; give a larger --budget"
            )
        known = math.isfinite(images_per_second)
        time = TimeLimit(
            seconds=seconds,
            # Judging costs a third of a training image each; a trial trains about as often as it is judged on.
            epoch_images=runs * (images + plan.search.validation_images / 3),
            images_per_second=images_per_second * LOOP_EFFICIENCY if known else None,
            wanted=wanted,
            share=None if given else LONGEST_SHARE,
        )
        epochs = time.epochs(time.images_per_second, seconds) if time.images_per_second is not None else None
        wanted = wanted if epochs is None else time.longest(epochs)
    shortest = min(1.0, max(SHORTEST_TRIAL, 4 * plan.training.batch_size) / images)
    if epochs is not None and epochs < 4 * shortest:
        raise UserError(
            f"the {job.budget.left:.0f} s that are left hold {epochs / shortest:.1f} trials of "
            f"{round(shortest * images):,} images, too few to compare; give a larger --budget, or a smaller --model"
        )
    return Schedule.plan(
        space,
        seed=plan.seed,
        longest=max(wanted, shortest),
        shortest=shortest,
        budget_epochs=epochs,
        trials=asked.trials,
        sampler=asked.sampler or "random",
        first=[defaults_within(space, plan)],
        time=time,
    )


def seconds_for_trials(job: Job) -> float:
    """What is left for the trials when the checks are done."""
    return max(0.0, job.budget.left * (1 - CHECKS_SHARE) - CLOSING)


def measured_speed(job: Job) -> float:
    """Images a second of the plan's network, as the probe wrote it down; infinite where it did not."""
    lines = [line for line in read_record(job.folder.record) if line["kind"] == "engine"]
    return float(lines[-1]["images_per_second"]) if lines else math.inf


def identity_of(job: Job, data: Prepared, asked: SearchRequest) -> dict[str, Any]:
    """What must be the same for all workers of a study: images, classes, division, recipe, seed, what was asked.

    In words and numbers where these can say what differs; "content" is a hash of what is too much to keep.
    """
    split = data.split
    recipe = dataclasses.asdict(replace(job.config, data=Config().data, engine=Config().engine))
    for apart in ("data", "engine", "seed"):
        del recipe[apart]
    return {
        "images": {"training": len(split.train), "validation": len(split.validation), "content": data_identity(data)},
        "classes": split.classes if len(split.classes) <= NAMED_CLASSES else len(split.classes),
        "seed": job.config.seed,
        "recipe": recipe,
        "space": asked.space,
        "trials": asked.trials,
        "sampler": asked.sampler or "random",
        "folds": asked.folds,
    }


def data_identity(data: Prepared) -> str:
    """A hash of the training and validation images, their classes and their order. Paths do not count."""
    split = data.split
    digest = hashlib.blake2b(digest_size=12)
    digest.update("\x1f".join(split.classes).encode())
    for part in (split.train, split.validation):
        digest.update(b"\x1e")
        for index in part.tolist():
            digest.update(data.inspection.content_hash[index])
            digest.update(int(split.targets[index]).to_bytes(4, "little"))
    return digest.hexdigest()


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Plain JSON, for the study."""
    return dataclasses.asdict(plan)


def plan_from_dict(values: dict[str, Any]) -> Plan:
    """The study's plan, on this machine's device where it has not the founder's."""
    plan: Plan = build(Plan, values, "the study's plan")
    return plan.replace(engine=engine_here(plan.engine))

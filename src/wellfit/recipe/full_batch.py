"""What a full-batch optimizer asks of a configuration: refused before an image is read, "auto" settled to fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch

from wellfit.config import Config, TrainingConfig
from wellfit.data.batches import Batch, EvaluationBatches
from wellfit.dotted import is_dotted
from wellfit.errors import UserError
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.training.full_batch import check_settings, refuse_noise, train_full_batch
from wellfit.training.loop import Evaluation, Outcome
from wellfit.training.pace import Pace

DEFAULT_MODEL = "lenet5"  # has neither BatchNorm nor dropout
KEPT_BYTES = 500_000_000  # of uint8 pixels: up to here the views are cut once and kept
PASSES = 1.3  # through the split for each iteration, on average over the line searches
REASONS = (
    "L-BFGS compares losses of the same images, so augmentation is off and the arithmetic is float32",
    "no search: a line search finds the length of each step of L-BFGS",
    "full batch was asked for; it pays where a pass over all images is cheap, else AdamW or momentum with mini-batches",
)


def is_full_batch(name: str) -> bool:
    """Whether the optimizer of that name takes the whole training split at each step."""
    return name == "lbfgs"


def settle(config: Config) -> Config:
    """A configuration with L-BFGS: every "auto" as it needs it; UserError where something asked for cannot go with it.

    Other configurations come back as they are.
    """
    if not is_full_batch(config.optimizer.name):
        return config
    training = config.training
    check_settings(
        augment=config.augment,
        balance=training.balance,
        schedule=config.schedule,
        batch_size=training.batch_size,
        dtype=config.engine.dtype,
        options=config.model.options,
    )
    if config.optimizer.weight_decay > 0:
        raise UserError(
            "L-BFGS takes the decay of weights as a term of the loss, got optimizer.weight_decay "
            f"{config.optimizer.weight_decay:g}; set it to 0 and give training.l2"
        )
    if training.batch_scale > 1:
        raise UserError(
            f"L-BFGS takes the whole split as one batch, got training.batch_scale {training.batch_scale}; leave it at 1"
        )
    if training.average not in (0.0, TrainingConfig.average):
        raise UserError(
            "L-BFGS steps from one line search to the next, so an average of its weights says nothing, got "
            f"training.average {training.average:g}; leave it out"
        )
    _refuse_noisy_model(config)
    changes: dict[str, Any] = {
        "augment": ("none",),
        "schedule": "constant",
        "optimizer.lr": config.optimizer.lr or 1.0,
        "optimizer.weight_decay": 0.0,
        "training.average": 0.0,
        "engine.dtype": "float32",
    }
    if training.balance == "auto":
        changes["training.balance"] = "none"
    if config.model.name == "auto":
        changes["model.name"] = DEFAULT_MODEL
    if config.model.weights == "auto":
        changes["model.weights"] = "none"
    return config.replace(**changes)


def _refuse_noisy_model(config: Config) -> None:
    from wellfit.models.catalogue import hollow_net
    from wellfit.models.zoo import resolve

    name = config.model.name
    if name == "auto" or (is_dotted(name) and resolve(name)[0] == "user"):
        return  # a user's own network is looked at when the number of classes is known
    try:
        module = hollow_net(name, image_size=config.model.image_size or 224, classes=10, **config.model.options)
    except UserError:
        return  # it may be built at the images' own size
    refuse_noise(module)


def train_on_all(
    job: Job, material: Material, module: Any, settings: Settings, *, pace: Pace, evaluate: Evaluation, checkpoint: Path
) -> Outcome:
    """The main training of a plan whose optimizer takes the whole split."""
    plan, data = material.plan, material.data
    check_settings(  # a plan by hand may ask for anything
        augment=plan.augment,
        balance=settings.balance,
        schedule=plan.schedule,
        batch_size=plan.training.batch_size,
        images=len(data.split.train),
        dtype=plan.engine.dtype,
    )
    views = material.evaluation(data.split.train)
    small = len(data.split.train) * 3 * plan.model.image_size**2 <= KEPT_BYTES
    chunks: list[Batch] | EvaluationBatches = list(views) if small else views
    return train_full_batch(
        module,
        chunks,
        material.criterion(settings.balance),
        cast(torch.optim.LBFGS, material.optimizer(module, settings)),
        engine=plan.engine,
        preprocessing=material.preprocessing,
        pace=pace,
        penalty=material.penalty(),
        class_weights=material.class_weights().tolist() if settings.balance == "weights" else None,
        evaluate=evaluate,
        evaluate_every=plan.training.evaluate_every,
        patience=plan.training.patience,
        record=job.record,
        checkpoint=checkpoint,
        stop=job.stop,
    )

"""What a training is made of, alike in each of the processes that share it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from wellfit.data.batches import TrainingBatches
from wellfit.recipe.material import Material, Settings
from wellfit.training.averaging import WeightAverage
from wellfit.training.schedules import plateau_of, schedule


@dataclass(frozen=True)
class TrainingParts:
    """The arguments of `training.loop.train` that follow from the material and the settings alone."""

    batches: TrainingBatches
    criterion: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    options: dict[str, Any]

    @classmethod
    def of(cls, material: Material, module: nn.Module, settings: Settings) -> TrainingParts:
        plan = material.plan
        average = WeightAverage(module, plan.training.average, ramp=True) if plan.training.average else None
        return cls(
            material.training(plan.seed, settings.balance),
            material.criterion(settings.balance),
            material.optimizer(module, settings),
            average,
            {
                "engine": plan.engine,
                "preprocessing": material.preprocessing,
                "schedule": schedule(plan.schedule),
                "plateau": plateau_of(plan.schedule),
                "penalty": material.penalty(),
                "evaluate_every": plan.training.evaluate_every,
                "average": average,
                "patience": plan.training.patience,
            },
        )

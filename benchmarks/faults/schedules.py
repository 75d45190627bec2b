"""Learning rates over a training, by torch's own schedulers, moved on after every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch.optim import Optimizer, lr_scheduler

from faults.sick.plant import Setting


def steps_of(setting: Setting) -> int:
    """Optimizer steps of the training."""
    return setting.epochs * (math.ceil(setting.train / setting.batch_size) // setting.accumulate)


def cosine(optimizer: Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    return lr_scheduler.CosineAnnealingLR(optimizer, steps)


def one_cycle(optimizer: Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    return lr_scheduler.OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], steps + 1, cycle_momentum=False)


def in_steps(optimizer: Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    return lr_scheduler.MultiStepLR(optimizer, [round(0.6 * steps), round(0.85 * steps)], gamma=0.1)


def warmed_up(optimizer: Optimizer, steps: int) -> lr_scheduler.LRScheduler:
    """A tenth of the steps up, the others down along a cosine."""
    up = max(1, steps // 10)
    warm = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=up)
    down = lr_scheduler.CosineAnnealingLR(optimizer, steps - up)
    return lr_scheduler.SequentialLR(optimizer, [warm, down], [up])


SCHEDULES: dict[str, Callable[[Optimizer, int], lr_scheduler.LRScheduler] | None] = {
    "constant": None,
    "cosine": cosine,
    "one-cycle": one_cycle,
    "steps": in_steps,
    "warm-up": warmed_up,
}


def with_schedule(setting: Setting, name: str) -> Setting:
    """The setting with the schedule of that name."""
    make = SCHEDULES[name]
    if make is None:
        return setting
    return replace(setting, scheduler=partial(make, steps=steps_of(setting)), scheduler_step="step")

"""How a fault is planted: a training in which nothing is wrong, and what the user wrote otherwise.

`plant` makes the case. Its `run` takes `sick=False` as well, which trains the healthy twin: the same setting
without the mistake, for `python benchmarks/faults/sickness.py` to compare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from faults.case import Case, Watched
from faults.data import Images, Tensors, load, standardise
from faults.loop import Augment, Loop, Loss
from faults.networks import NETWORKS, seeded


def plain_sgd(model: nn.Module, lr: float, decay: float) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr, weight_decay=decay)


def momentum(model: nn.Module, lr: float, decay: float) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=decay)


def nesterov(model: nn.Module, lr: float, decay: float) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=decay)


def adam(model: nn.Module, lr: float, decay: float) -> Optimizer:
    return torch.optim.Adam(model.parameters(), lr, weight_decay=decay)


def adamw(model: nn.Module, lr: float, decay: float) -> Optimizer:
    return torch.optim.AdamW(model.parameters(), lr, weight_decay=decay)


def rmsprop(model: nn.Module, lr: float, decay: float) -> Optimizer:
    return torch.optim.RMSprop(model.parameters(), lr, weight_decay=decay)


def nadam(model: nn.Module, lr: float, decay: float) -> Optimizer:
    return torch.optim.NAdam(model.parameters(), lr, weight_decay=decay)


def adagrad(model: nn.Module, lr: float, decay: float) -> Optimizer:
    return torch.optim.Adagrad(model.parameters(), lr, weight_decay=decay)


OPTIMIZERS: dict[str, Callable[[nn.Module, float, float], Optimizer]] = {
    "SGD": plain_sgd,
    "momentum": momentum,
    "Nesterov": nesterov,
    "Adam": adam,
    "AdamW": adamw,
    "RMSprop": rmsprop,
    "NAdam": nadam,
    "Adagrad": adagrad,
}


@dataclass(frozen=True)
class Setting:
    """One training. Every field is something that a user decides, and may get wrong.

    network: a name of NETWORKS, or what makes one from (channels, size, classes); change: what is done to it then.
    data: a set of `faults.data`; classes: only these; images: what is done to its uint8 arrays;
    side: pixels after averaging down, where fewer are enough; tensors: how the arrays become network input.
    optimizer: a name of OPTIMIZERS, or what makes one from the network (then lr and decay are its own affair).
    """

    network: str | Callable[[int, int, int], nn.Module]
    data: str
    optimizer: str | Callable[[nn.Module], Optimizer]
    lr: float
    decay: float = 0.0
    train: int = 1000
    validation: int = 300
    classes: list[int] | None = None
    side: int | None = None
    images: Callable[[Images], Images] | None = None
    tensors: Callable[[Images], Tensors] = standardise
    change: Callable[[nn.Module], nn.Module | None] | None = None
    loop: type[Loop] = Loop
    scheduler: Callable[[Optimizer], Any] | None = None
    scheduler_step: str = "epoch"
    schedule: Callable[[float], float] | None = None
    epochs: int = 8
    steps: int | None = None
    batch_size: int = 32
    loss: Loss = F.cross_entropy
    augment: Augment | None = None
    accumulate: int = 1
    clip: float | None = None
    seed: int = 0

    def run(self) -> Watched:
        """Train it, the monitor at its defaults."""
        images = load(self.data, train=self.train, validation=self.validation, classes=self.classes, seed=self.seed)
        if self.side is not None:
            images = shrunk(images, self.side)
        data = self.tensors(self.images(images) if self.images is not None else images)
        with seeded(self.seed):
            make = NETWORKS[self.network] if isinstance(self.network, str) else self.network
            model = make(data.channels, data.size, data.classes)
            model = (self.change(model) or model) if self.change is not None else model
            named = self.optimizer if callable(self.optimizer) else None
            optimizer = named(model) if named else OPTIMIZERS[str(self.optimizer)](model, self.lr, self.decay)
        return self.loop(
            model,
            optimizer,
            data,
            epochs=self.epochs,
            steps=self.steps,
            batch_size=self.batch_size,
            schedule=self.schedule,
            scheduler=self.scheduler(optimizer) if self.scheduler is not None else None,
            scheduler_step=self.scheduler_step,
            loss=self.loss,
            seed=self.seed,
            augment=self.augment,
            accumulate=self.accumulate,
            clip=self.clip,
        ).run()


@dataclass(frozen=True)
class Planted:
    """A setting and the fields that the mistake changes."""

    setting: Setting
    mistake: dict[str, Any]

    def __call__(self, sick: bool = True) -> Watched:
        return replace(self.setting, **self.mistake).run() if sick else self.setting.run()


def plant(fault: str, title: str, setting: Setting, **mistake: Any) -> Case:
    """The setting with the mistake in it. The name tells both: fault, title, network, data, optimizer."""
    network = setting.network if isinstance(setting.network, str) else setting.network.__name__.replace("_", "-")
    name = f"{fault}: {title}; {network} on {setting.data}, {setting.optimizer} {setting.lr:g}"
    return Case(name, fault, "training", Planted(setting, mistake))


def shrunk(images: Images, side: int) -> Images:
    """Each image averaged down to `side` pixels."""

    def small(pixels: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        return F.interpolate(tensor, (side, side), mode="area").round().byte().permute(0, 2, 3, 1).contiguous().numpy()

    return replace(images, train=small(images.train), validation=small(images.validation))


def rows_of(model: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> list[Any]:
    """The model's modules of a kind, in order."""
    return [m for m in model.modules() if isinstance(m, kind)]


def last_linear(model: nn.Module) -> nn.Linear:
    """The layer that makes the scores."""
    found: nn.Linear = rows_of(model, nn.Linear)[-1]
    return found


class Around(nn.Module):
    """The model with something done to its input or its answers."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] | None = None,
        after: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.model(self.before(x) if self.before is not None else x)
        return self.after(answers) if self.after is not None else answers

"""What the figures of the epochs tell: `overfitting`, `underfitting`, `plateau`, `still-improving`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from faults.case import Case
from faults.data import Images
from faults.networks import mlp
from faults.sick import settings as s
from faults.sick.plant import plant
from wellfit.randomness import generator

# ---- overfitting -------------------------------------------------------------------------------------------


def first(count: int) -> Callable[[Images], Images]:
    """[:count], from the days of debugging."""
    return lambda images: replace(images, train=images.train[:count], train_labels=images.train_labels[:count])


def mislabelled(share: float) -> Callable[[Images], Images]:
    """A share of the training labels was guessed by a hurried annotator."""

    def change(images: Images) -> Images:
        draws = generator(0, "faults/annotator")
        labels = images.train_labels.copy()
        guessed = draws.random(len(labels)) < share
        labels[guessed] = draws.integers(0, images.classes, int(guessed.sum()))
        return replace(images, train_labels=labels)

    return change


def cases_of_overfitting() -> list[Case]:
    def over(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("overfitting", title, setting, **mistake)

    return [
        over("[:200] left from debugging", s.MLP_ADAM, images=first(200), epochs=50),
        over("[:150] left from debugging", s.LENET_MOMENTUM, images=first(150), epochs=70),
        over("[:200] left from debugging", s.VGG_BN_ADAM, images=first(200), epochs=40),
        over("[:200] left from debugging", s.FUNCTIONAL_NESTEROV, images=first(200), epochs=40),
        over("[:250] left from debugging", s.RESNET_MOMENTUM, images=first(250), epochs=25),
        over(
            "a third of the labels guessed",
            replace(s.GELU_MLP_ADAMW, lr=2e-3),
            images=mislabelled(0.35),
            train=600,
            epochs=20,
        ),
        over("a third of the labels guessed", s.RESNET_ADAMW, images=mislabelled(0.35), train=400, epochs=20),
        over("trained ten times as long", s.TANH_ADAM, train=400, epochs=30),
        over("a wide net for few images", s.FUNCTIONAL_RMSPROP, images=first(250), epochs=40),
        over("forty photographs", s.SQUEEZENET_ADAM, images=first(40), epochs=20),
    ]


# ---- underfitting ------------------------------------------------------------------------------------------


def narrow_mlp(channels: int, size: int, classes: int) -> nn.Module:
    """hidden=(2, 2), typed for (200, 200)."""
    return mlp(channels, size, classes, hidden=(2, 2))


def narrow_gelu(channels: int, size: int, classes: int) -> nn.Module:
    return mlp(channels, size, classes, act=nn.GELU, hidden=(3,))


def bottleneck(channels: int, size: int, classes: int) -> nn.Module:
    """One channel comes out of the first convolution, and the pool leaves two by two pixels."""
    return nn.Sequential(
        nn.Conv2d(channels, 1, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, classes)
    )


def one_pixel(channels: int, size: int, classes: int) -> nn.Module:
    """AdaptiveAvgPool2d(1) stands before the convolutions."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 32), nn.ReLU(), nn.Linear(32, classes)
    )


def tiny_images(images: Images) -> Images:
    """Thumbnails of three pixels, enlarged again."""

    def coarse(pixels: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        x = F.interpolate(F.interpolate(x, (2, 2), mode="area"), x.shape[2:])
        return x.round().byte().permute(0, 2, 3, 1).contiguous().numpy()

    return replace(images, train=coarse(images.train), validation=coarse(images.validation))


def dropped_everywhere(model: nn.Module) -> nn.Module:
    """Dropout of 0.8 behind every activation."""
    layers: list[nn.Module] = []
    for layer in model.children():
        layers += [layer, nn.Dropout(0.8)] if isinstance(layer, nn.ReLU | nn.GELU | nn.Tanh) else [layer]
    return nn.Sequential(*layers)


def loud_noise(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Noise of three deviations as augmentation."""
    return x + 3 * torch.randn_like(x), y


def mostly_erased(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Erasing with its probability and its area exchanged: nine tenths of the pixels go."""
    return x * (torch.rand(len(x), 1, *x.shape[2:]) > 0.9), y


def cases_of_underfitting() -> list[Case]:
    def under(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("underfitting", title, setting, **mistake)

    return [
        under("two hidden units", replace(s.MLP_SGD, epochs=16), network=narrow_mlp),
        under("three hidden units", replace(s.GELU_MLP_ADAMW, epochs=12), network=narrow_gelu),
        under("a bottleneck of four numbers", replace(s.LENET_ADAM, epochs=12), network=bottleneck),
        under("a bottleneck of four numbers", replace(s.FUNCTIONAL_NESTEROV, epochs=8), network=bottleneck),
        under("pooled to one pixel first", replace(s.VGG_BN_ADAM, epochs=8), network=one_pixel),
        under("images of two pixels", replace(s.MLP_RMSPROP, epochs=12), images=tiny_images),
        under("images of two pixels", replace(s.VGG_ADAM, epochs=8), images=tiny_images),
        under("weight decay of 0.06", replace(s.LENET_SGD, epochs=8), decay=0.06),
        under("weight decay of 0.1", replace(s.TANH_MOMENTUM, epochs=8), decay=0.1),
        under("dropout of 0.8 everywhere", replace(s.MLP_ADAM, epochs=12), change=dropped_everywhere),
        under("noise of three deviations", replace(s.FUNCTIONAL_RMSPROP, epochs=8), augment=loud_noise),
        under("nine tenths erased", replace(s.TANH_ADAM, epochs=8), augment=mostly_erased),
    ]


# ---- plateau -----------------------------------------------------------------------------------------------


def cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress)) + 1e-3


def never_on_plateau(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """patience=50, in a training of twelve epochs."""
    return lr_scheduler.ReduceLROnPlateau(optimizer, patience=50)


def late_milestones(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """[100, 150], as in the paper."""
    return lr_scheduler.MultiStepLR(optimizer, [100, 150])


def slow_cosine(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """T_max in batches, step() once an epoch."""
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=5000)


def gamma_of_one(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.StepLR(optimizer, 4, gamma=1.0)


def cases_of_plateau() -> list[Case]:
    def flat(title: str, setting: s.Setting, scheduler: object = None, **mistake: object) -> Case:
        """The twin's rate falls by a cosine; the mistake keeps it where it is."""
        sound = replace(setting, schedule=cosine)
        return plant("plateau", title, sound, schedule=None, scheduler=scheduler, **mistake)

    long: dict[str, Any] = {"data": "fashion-mnist", "train": 1200, "epochs": 14}
    functional = replace(s.FUNCTIONAL_ADAM, lr=0.015, side=14, **long)
    return [
        flat("no schedule", replace(s.MLP_SGD, lr=0.5, **long)),
        flat("no schedule", replace(s.MLP_ADAM, lr=0.02, **long)),
        flat("patience of 50 epochs", replace(s.LENET_MOMENTUM, lr=0.05, **long), never_on_plateau),
        flat("patience of 50 epochs", replace(s.TANH_MOMENTUM, lr=0.15, **long), never_on_plateau),
        flat("milestones of the paper", functional, late_milestones),
        flat("milestones of the paper", replace(s.GELU_MLP_ADAMW, lr=0.02, **long), late_milestones),
        flat("T_max in batches", replace(s.TANH_ADAM, lr=0.01, **long), slow_cosine),
        flat("T_max in batches", replace(s.MLP_RMSPROP, lr=0.01, **long), slow_cosine),
        flat("gamma=1", replace(s.LENET_SGD, lr=0.3, **long), gamma_of_one),
        flat("no schedule", replace(s.MLP_RMSPROP, lr=0.03, epochs=16)),
    ]


# ---- still-improving ---------------------------------------------------------------------------------------


def cases_of_improving() -> list[Case]:
    def short(title: str, setting: s.Setting, epochs: int) -> Case:
        """The twin trains three times as long."""
        return plant("still-improving", title, replace(setting, epochs=3 * epochs), epochs=epochs)

    return [
        short("four epochs", replace(s.MLP_SGD, lr=0.02), 4),
        short("five epochs", replace(s.LENET_SGD, lr=0.03, train=1200), 5),
        short("four epochs", replace(s.VGG_BN_ADAM, lr=3e-4, train=1200), 4),
        short("four epochs", replace(s.FUNCTIONAL_RMSPROP, lr=3e-4), 4),
        short("five epochs", replace(s.TANH_MOMENTUM, lr=1e-3, train=1000), 5),
        short("four epochs", replace(s.GELU_MLP_ADAMW, lr=1e-4), 4),
        short("four epochs", replace(s.LENET_ADAM, lr=5e-4), 4),
        short("four epochs", replace(s.VGG_ADAM, lr=2e-4, train=1200), 4),
        short("five epochs", replace(s.FUNCTIONAL_NESTEROV, lr=2e-3, train=1000), 5),
        short("four epochs", replace(s.RESNET_ADAMW, lr=1e-4), 4),
        short("four epochs", replace(s.VGG_SGD, lr=0.005), 4),
        short("four epochs", replace(s.SQUEEZENET_ADAM, lr=2e-5, train=160), 4),
    ]


def cases() -> list[Case]:
    return cases_of_overfitting() + cases_of_underfitting() + cases_of_plateau() + cases_of_improving()

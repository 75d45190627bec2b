"""Learning rates: `lr-too-high` and `lr-too-low`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from faults.case import Case
from faults.sick import settings as s
from faults.sick.plant import plant


def summed(answers: Tensor, y: Tensor) -> Tensor:
    """The sum over the batch, with the rate that suited the mean."""
    return F.cross_entropy(answers, y, reduction="sum")


def one_cycle_far_up(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """max_lr is the rate at the top of the cycle; 1 was read as a share of it."""
    return lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=256)


def every_epoch_more(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """A warm-up of one tenth more each step, that nobody ends."""
    return lr_scheduler.LambdaLR(optimizer, lambda step: 1 + step)


def cases_of_high() -> list[Case]:
    def high(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("lr-too-high", title, setting, **mistake)

    return [
        high("the rate of SGD given to Adam, 0.1", s.VGG_BN_ADAM, lr=0.1),
        high("2.0 typed for 0.2", s.LENET_SGD, lr=2.0),
        high("1.0, copied from a net without momentum", s.RESNET_MOMENTUM, lr=1.0),
        high("0.05", s.FUNCTIONAL_ADAM, lr=0.05),
        high("0.05", s.MLP_RMSPROP, lr=0.05),
        high("0.03", s.GELU_ADAMW, lr=0.03),
        high("fine-tuned at the rate of a fresh net, 0.01", s.SQUEEZENET_ADAM, lr=0.01),
        high("loss summed over the batch", s.LENET_MOMENTUM, loss=summed),
        high("rate times the batch size, 0.003 x 64", s.VGG_MOMENTUM, lr=0.192, batch_size=64),
        high("one cycle up to 1.0", s.LENET_ADAM, scheduler=one_cycle_far_up, scheduler_step="step"),
        high("1.0", s.TANH_MOMENTUM, lr=1.0),
        high("a warm-up that never ends", s.VGG_SGD, scheduler=every_epoch_more, scheduler_step="step"),
        high("0.1 for 1e-3", s.MLP_ADAM, lr=0.1),
    ]


def rate_as_multiplier(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """LambdaLR multiplies; the function returns the rate itself."""
    return lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.003)


def long_warm_up(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """Ten thousand steps of warm-up, as in the paper, for a training of three hundred."""
    return lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 100_000))


def endless_cycle(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """The total was counted in images times epochs, and div_factor was left at ten thousand."""
    return lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=200_000, div_factor=1e4)


def low_for_all_but_nothing(model: nn.Module) -> Optimizer:
    return torch.optim.Adagrad(model.parameters(), 1e-5)


def cases_of_low() -> list[Case]:
    def low(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("lr-too-low", title, setting, **mistake)

    return [
        low("1e-5", s.LENET_SGD, lr=1e-5),
        low("Adam's 1e-4 given to SGD", s.VGG_SGD, lr=1e-4),
        low("the rate as its own multiplier", s.VGG_BN_SGD, scheduler=rate_as_multiplier),
        low("a warm-up of 100,000 steps", s.LENET_MOMENTUM, scheduler=long_warm_up, scheduler_step="step"),
        low("one cycle over 200,000 steps", s.FUNCTIONAL_NESTEROV, scheduler=endless_cycle, scheduler_step="step"),
        low("1e-6", s.RESNET_ADAMW, lr=1e-6),
        low("2e-6, copied from a language model", s.GELU_ADAMW, lr=2e-6),
        low("divided by the number of images", s.MLP_SGD, lr=0.1 / 1000),
        low("1e-5", s.TANH_MOMENTUM, lr=1e-5),
        low("Adagrad at 1e-5", s.FUNCTIONAL_ADAM, optimizer=low_for_all_but_nothing),
        low("1e-6", s.MLP_RMSPROP, lr=1e-6),
        low("3e-7", s.SQUEEZENET_ADAM, lr=3e-7),
        low("1e-5 typed for 1e-2", s.PLAIN_NESTEROV, lr=1e-5),
        low("a hundredth of what is needed, 1e-3", s.MLP_SGD, lr=1e-3),
        low("a fiftieth of what is needed, 2e-5", s.GELU_MLP_ADAMW, lr=2e-5),
        low("a hundredth of what is needed, 3e-5", s.VGG_MOMENTUM, lr=3e-5),
    ]


def cases() -> list[Case]:
    return cases_of_high() + cases_of_low()

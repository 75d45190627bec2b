"""How weights begin and how far a step moves them: `bad-initialisation`, `updates-too-small`, `updates-too-large`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Optimizer, RMSprop, Rprop

from faults.case import Case
from faults.loop import Loop
from faults.networks import mlp
from faults.sick import settings as s
from faults.sick.plant import last_linear, plant, rows_of

WEIGHTED = (nn.Conv2d, nn.Linear)

# ---- bad-initialisation ------------------------------------------------------------------------------------


def drawn_with(deviation: float) -> Callable[[nn.Module], None]:
    """Every weight from a normal distribution of this deviation, biases 0."""

    def change(model: nn.Module) -> None:
        for layer in rows_of(model, WEIGHTED):
            nn.init.normal_(layer.weight, 0.0, deviation)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    return change


def all_zero(model: nn.Module) -> None:
    for p in model.parameters():
        nn.init.zeros_(p)


def all_alike(model: nn.Module) -> None:
    for layer in rows_of(model, WEIGHTED):
        nn.init.constant_(layer.weight, 0.01)


def between_zero_and_one(model: nn.Module) -> None:
    """torch.rand: never negative."""
    for layer in rows_of(model, WEIGHTED):
        nn.init.uniform_(layer.weight)


def variance_for_deviation(model: nn.Module) -> None:
    """2/n is He's variance; it was given as the deviation."""
    for layer in rows_of(model, WEIGHTED):
        nn.init.normal_(layer.weight, 0.0, 2 / layer.weight[0].numel())


def deviation_upside_down(model: nn.Module) -> None:
    """sqrt(n/2) for sqrt(2/n), divided by ten when it looked too large."""
    for layer in rows_of(model, WEIGHTED):
        nn.init.normal_(layer.weight, 0.0, (layer.weight[0].numel() / 2) ** 0.5 / 10)


def small_orthogonal(model: nn.Module) -> None:
    for layer in rows_of(model, WEIGHTED):
        nn.init.orthogonal_(layer.weight, 0.05)


def loud_head(model: nn.Module) -> None:
    """The head is drawn with a deviation of 30."""
    nn.init.normal_(last_linear(model).weight, 0.0, 30.0)


def tower(channels: int, size: int, classes: int) -> nn.Module:
    """Twenty layers, drawn for ReLU."""
    model = mlp(channels, size, classes, hidden=(64,) * 20)
    for layer in rows_of(model, nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    return model


def drawn_for_tanh(model: nn.Module) -> None:
    """Xavier's rule before ReLU: each layer halves the variance."""
    for layer in rows_of(model, WEIGHTED):
        nn.init.xavier_normal_(layer.weight)


def cases_of_initialisation() -> list[Case]:
    def begun(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("bad-initialisation", title, setting, **mistake)

    deep = replace(s.MLP_SGD, network=tower, lr=0.01, epochs=10)
    return [
        begun("all weights zero", s.MLP_RMSPROP, change=all_zero),
        begun("all weights zero", s.LENET_SGD, change=all_zero),
        begun("all weights 0.01", s.FUNCTIONAL_NESTEROV, change=all_alike),
        begun("deviation one", s.VGG_ADAM, change=drawn_with(1.0)),
        begun("deviation one", s.GELU_MLP_ADAMW, change=drawn_with(1.0)),
        begun("deviation 0.01 everywhere", s.LENET_MOMENTUM, change=drawn_with(0.01)),
        begun("deviation 1e-4", s.VGG_SGD, change=drawn_with(1e-4)),
        begun("between zero and one", s.GELU_ADAMW, change=between_zero_and_one),
        begun("the variance as deviation", s.VGG_MOMENTUM, change=variance_for_deviation),
        begun("the deviation upside down", s.FUNCTIONAL_RMSPROP, change=deviation_upside_down),
        begun("orthogonal, at a gain of 0.05", s.TANH_MOMENTUM, change=small_orthogonal),
        begun("a head of deviation 30", s.RESNET_ADAMW, change=loud_head),
        begun("drawn for tanh, twenty layers of ReLU", deep, change=drawn_for_tanh),
    ]


# ---- updates-too-small -------------------------------------------------------------------------------------


class MeanOverPixels(Loop):
    """The loss is divided by the number of pixels, as in segmentation."""

    def backward(self, loss: Tensor) -> None:
        super().backward(loss / self.data.train[0].numel() ** 1.5)


class UnscaledTwice(Loop):
    """Gradients are divided by the scaler's 65536, and the loss was never multiplied by it."""

    def update(self) -> None:
        for p in self.model.parameters():
            if p.grad is not None:
                p.grad.div_(65536)
        super().update()


class MeanOverTheSet(Loop):
    """Divided by the batch size once more, and by the number of batches."""

    def backward(self, loss: Tensor) -> None:
        super().backward(loss / len(self.data.train) / self.batch_size)


class ShareOfManyBatches(Loop):
    """Loss by accumulation steps of ten thousand, and a step after each batch."""

    def backward(self, loss: Tensor) -> None:
        super().backward(loss / 10_000)


def damped_away(model: nn.Module) -> Optimizer:
    """dampening=1: nothing is added to the momentum after the first step."""
    return SGD(model.parameters(), 0.01, momentum=0.9, dampening=0.9999)


def epsilon_of_a_hundred(model: nn.Module) -> Optimizer:
    """eps=100 for 1e-8."""
    return Adam(model.parameters(), 2e-3, eps=100)


def epsilon_of_a_thousand(model: nn.Module) -> Optimizer:
    return RMSprop(model.parameters(), 1e-3, eps=1e3)


def rate_of_another_library(model: nn.Module) -> Optimizer:
    """Adadelta at 0.001, which is the default elsewhere; here it is 1."""
    return Adadelta(model.parameters(), 1e-3)


def decaying_by_step(model: nn.Module) -> Optimizer:
    """lr_decay=1000: the rate is divided by a thousand times the number of steps."""
    return Adagrad(model.parameters(), 0.01, lr_decay=1e3)


def cases_of_small() -> list[Case]:
    def small(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("updates-too-small", title, setting, **mistake)

    return [
        small("loss divided by the pixels", s.LENET_MOMENTUM, loop=MeanOverPixels),
        small("gradients clipped at 1e-5", s.VGG_SGD, clip=1e-5),
        small("gradients clipped at 1e-6", s.TANH_MOMENTUM, clip=1e-6),
        small("gradients unscaled that were not scaled", s.FUNCTIONAL_NESTEROV, loop=UnscaledTwice),
        small("mean over the whole set", s.MLP_SGD, loop=MeanOverTheSet),
        small("loss divided by ten thousand batches", s.VGG_BN_SGD, loop=ShareOfManyBatches),
        small("dampening of nearly one", s.VGG_MOMENTUM, optimizer=damped_away),
        small("eps=100", s.LENET_ADAM, optimizer=epsilon_of_a_hundred),
        small("eps=1000", s.MLP_RMSPROP, optimizer=epsilon_of_a_thousand),
        small("Adadelta at 0.001", s.GELU_MLP_ADAMW, optimizer=rate_of_another_library),
        small("lr_decay=1000", s.FUNCTIONAL_ADAM, optimizer=decaying_by_step),
        small("1e-7", s.MLP_ADAM, lr=1e-7),
        small("1e-7", s.PLAIN_NESTEROV, lr=1e-7),
    ]


# ---- updates-too-large -------------------------------------------------------------------------------------


class Signs(Loop):
    """The sign of each gradient instead of the gradient, at the rate of SGD."""

    def update(self) -> None:
        for p in self.model.parameters():
            if p.grad is not None:
                p.grad.sign_()
        super().update()


class UnitLength(Loop):
    """Every tensor's gradient is brought to length one."""

    def update(self) -> None:
        for p in self.model.parameters():
            if p.grad is not None:
                p.grad.div_(p.grad.norm() + 1e-12)
        super().update()


class NotUnscaled(Loop):
    """The loss is multiplied by 20, for float16, and the gradients never divided by it."""

    def backward(self, loss: Tensor) -> None:
        super().backward(20 * loss)


class WholeTrust(Loop):
    """Layer-wise rates with a trust of one: each step is lr times the weight's own length."""

    def update(self) -> None:
        for p in self.model.parameters():
            if p.grad is not None and p.norm() > 0:
                p.grad.mul_(p.detach().norm() / (p.grad.norm() + 1e-12))
        super().update()


class LoudNoise(Loop):
    """Noise on the gradients that should have been multiplied by the root of the rate."""

    def update(self) -> None:
        for p in self.model.parameters():
            if p.grad is not None:
                p.grad.add_(torch.randn_like(p))
        super().update()


def resilient(model: nn.Module) -> Optimizer:
    """Rprop is for whole data sets: on batches its steps grow and shrink by chance."""
    return Rprop(model.parameters(), 0.01, etas=(0.9, 1.2))


def forgetful(model: nn.Module) -> Optimizer:
    """betas=(0.9, 0.0): divided by the last gradient alone."""
    return Adam(model.parameters(), 2e-3, betas=(0.9, 0.0))


def cases_of_large() -> list[Case]:
    def large(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("updates-too-large", title, setting, **mistake)

    return [
        large("signs of the gradients", s.MLP_SGD, loop=Signs),
        large("signs of the gradients", s.FUNCTIONAL_NESTEROV, loop=Signs, lr=3e-3),
        large("gradients of length one", s.LENET_SGD, loop=UnitLength, lr=0.5),
        large("gradients never unscaled", s.VGG_BN_SGD, loop=NotUnscaled),
        large("a trust of one", s.PLAIN_NESTEROV, loop=WholeTrust, lr=0.05),
        large("a trust of one", s.TANH_MOMENTUM, loop=WholeTrust, lr=0.03),
        large("noise without its factor", s.VGG_SGD, loop=LoudNoise),
        large("Rprop on batches", s.LENET_ADAM, optimizer=resilient),
        large("no second moment", s.FUNCTIONAL_ADAM, optimizer=forgetful),
        large("weight decay of 1 at a rate of 0.01", s.GELU_MLP_ADAMW, lr=0.01, decay=1.0),
        large("weight decay of 1 at a rate of 0.02", s.RESNET_ADAMW, lr=0.02, decay=1.0),
    ]


def cases() -> list[Case]:
    return cases_of_initialisation() + cases_of_small() + cases_of_large()

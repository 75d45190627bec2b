"""BatchNorm in the wrong mode or with the wrong constant: `wrong-batchnorm-mode`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from faults.case import Case
from faults.loop import Loop
from faults.sick import settings as s
from faults.sick.plant import plant, rows_of


class TrainForgotten(Loop):
    """model.train() once before the loop; the first validation leaves the net in evaluation mode."""

    def begin_training(self) -> None:
        if self.step == 0:
            self.model.train()

    def end_validation(self) -> None:
        pass


class NeverInTraining(Loop):
    """model.eval() after loading, and no model.train() anywhere."""

    def begin_training(self) -> None:
        self.model.eval()

    def end_validation(self) -> None:
        pass


class Swapped(Loop):
    """train(mode=validating): the truth value is the wrong way round."""

    def begin_training(self) -> None:
        self.model.train(False)

    def begin_validation(self) -> None:
        self.model.train(True)


class EvalForgotten(Loop):
    """No model.eval() before the validation."""

    def begin_validation(self) -> None:
        pass


class EvalForgottenClassByClass(EvalForgotten):
    """Folder after folder, so that a batch holds one class."""

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for label in range(self.data.classes):
            rows = self.data.validation_labels == label
            yield self.data.validation[rows], self.data.validation_labels[rows]


class OneByOne(Loop):
    """Validation images one at a time, as an application sees them."""

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.data.validation.split(1), self.data.validation_labels.split(1), strict=True)


class EvalForgottenOneByOne(EvalForgotten, OneByOne):
    pass


class EvalForgottenByThrees(EvalForgotten):
    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.data.validation.split(3), self.data.validation_labels.split(3), strict=True)


class EvalLeftByPrinting(Loop):
    """The accuracy that is printed every fifty steps switches to evaluation mode and not back."""

    def update(self) -> None:
        super().update()
        if self.step % 50 == 10:
            self.model.eval()
            with torch.no_grad():
                self.model(self.data.validation[:32])


def constant(momentum: float) -> Callable[[nn.Module], None]:
    """Sets the momentum of every BatchNorm: the weight of the newest batch here, of the past elsewhere."""

    def change(model: nn.Module) -> None:
        for layer in rows_of(model, nn.BatchNorm2d):
            layer.momentum = momentum

    return change


def statistics_off(model: nn.Module) -> None:
    """track_running_stats=False, from style transfer: evaluation uses the batch, too."""
    for layer in rows_of(model, nn.BatchNorm2d):
        layer.track_running_stats = False
        layer.running_mean = layer.running_var = None


def cases() -> list[Case]:
    def wrong(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("wrong-batchnorm-mode", title, setting, **mistake)

    single = replace(s.PLAIN_ADAM, validation=100)
    few = replace(s.VGG_BN_ADAM, validation=120)
    return [
        wrong("train() forgotten after the validation", s.VGG_BN_ADAM, loop=TrainForgotten),
        wrong("train() forgotten after the validation", s.PLAIN_NESTEROV, loop=TrainForgotten),
        wrong("eval() and never train()", s.RESNET_MOMENTUM, loop=NeverInTraining),
        wrong("eval() and never train()", s.VGG_BN_SGD, loop=NeverInTraining),
        wrong("the modes swapped", s.RESNET_ADAMW, loop=Swapped),
        wrong("eval() forgotten, class by class", s.VGG_BN_SGD, loop=EvalForgottenClassByClass),
        wrong("eval() forgotten, class by class", s.PLAIN_ADAM, loop=EvalForgottenClassByClass),
        wrong("eval() forgotten, one by one", few, loop=EvalForgottenOneByOne),
        wrong("eval() forgotten, by threes", s.VGG_BN_NESTEROV, loop=EvalForgottenByThrees),
        wrong("eval() left by the printing", replace(s.VGG_BN_SGD, lr=0.1), loop=EvalLeftByPrinting),
        wrong("momentum of 1e-4", s.RESNET_MOMENTUM, change=constant(1e-4)),
        wrong("momentum of 0.001", s.VGG_BN_NESTEROV, change=constant(0.001)),
        wrong("momentum of 0", s.VGG_BN_ADAM, change=constant(0.0)),
        wrong("running statistics off, one by one", single, change=statistics_off, loop=OneByOne),
    ]

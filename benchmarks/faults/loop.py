"""One ordinary training loop, with the monitor beside it. A mistake is a subclass that writes one step otherwise."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from faults.case import Watched
from faults.data import Tensors
from faults.networks import seeded
from wellfit.diagnosis.monitor import Monitor
from wellfit.randomness import generator

Loss = Callable[[Tensor, Tensor], Tensor]
# Changes a batch of images and labels, given torch's generator of the training; labels may become N×C shares.
Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Loop:
    """`run()` trains for `epochs`, or for `steps` optimizer steps where that is given, and returns what was watched.

    schedule: progress in [0, 1) → multiplier of each group's learning rate, set before every step.
    scheduler: one of torch's, advanced after each "epoch" (by the validation loss, where it asks) or "step".
    accumulate: batches whose gradients make one step. clip: largest norm of the gradient. bfloat16: autocast.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        data: Tensors,
        *,
        epochs: int = 10,
        steps: int | None = None,
        batch_size: int = 64,
        schedule: Callable[[float], float] | None = None,
        loss: Loss = F.cross_entropy,
        seed: int = 0,
        augment: Augment | None = None,
        accumulate: int = 1,
        clip: float | None = None,
        bfloat16: bool = False,
        scheduler: Any = None,
        scheduler_step: str = "epoch",
    ) -> None:
        self.model, self.optimizer, self.data, self.loss = model, optimizer, data, loss
        self.batch_size, self.seed, self.augment, self.accumulate = batch_size, seed, augment, accumulate
        self.clip, self.bfloat16, self.schedule = clip, bfloat16, schedule
        batches = math.ceil(len(data.train) / batch_size)
        self.steps_per_epoch = batches // accumulate
        self.steps = steps if steps is not None else epochs * self.steps_per_epoch
        self.step = 0
        self.scheduler, self.scheduler_step = scheduler, scheduler_step
        self.monitor = self.make_monitor()
        self._rates = [group["lr"] for group in optimizer.param_groups]

    def make_monitor(self) -> Monitor:
        return Monitor(self.model, self.optimizer)

    def run(self) -> Watched:
        """Train to the end; torch's own draws (dropout, augmentation) are decided by `seed`."""
        begun = time.perf_counter()
        accuracy = 0.0
        with seeded(self.seed), self.monitor:
            epoch = 0
            while self.step < self.steps:
                train_loss, train_accuracy = self.one_epoch(epoch)
                val_loss, accuracy = self.validate()
                self.end_epoch(train_loss, train_accuracy, val_loss, accuracy)
                self.advance("epoch", val_loss)
                epoch += 1
        return Watched(self.monitor.history, accuracy, time.perf_counter() - begun)

    # ---- the parts, each as it should be ------------------------------------------------------------------

    def begin_training(self) -> None:
        self.model.train()

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The training images once, shuffled anew each epoch."""
        order = torch.from_numpy(generator(self.seed, "faults/order", epoch).permutation(len(self.data.train)))
        for rows in order.split(self.batch_size):
            yield self.data.train[rows], self.data.train_labels[rows]

    def one_epoch(self, epoch: int) -> tuple[float, float]:
        """Mean loss and accuracy over the training batches as they were trained on."""
        self.begin_training()
        losses, correct, seen, waiting = 0.0, 0, 0, 0
        for x, y in self.batches(epoch):
            if self.step >= self.steps:
                break
            if waiting == 0:
                self.set_rate()
                self.zero_grad()
            x, targets = self.prepare(x, y)
            answers = self.forward(x)
            loss = self.loss_of(answers, targets)
            self.backward(loss)
            losses += float(loss.detach()) * len(y)
            correct += self.hits(answers.detach(), y)
            seen += len(y)
            waiting += 1
            if waiting == self.accumulate:
                self.update()
                self.monitor.step(loss, targets=self.told(targets))
                self.step += 1
                self.advance("step", float(loss.detach()))
                waiting = 0
        return losses / seen, correct / seen

    def set_rate(self) -> None:
        if self.schedule is not None:
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * self.schedule(self.step / self.steps)

    def advance(self, every: str, loss: float) -> None:
        if self.scheduler is None or every != self.scheduler_step:
            return
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)
        else:
            self.scheduler.step()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.augment(x, y) if self.augment is not None else (x, y)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            return self.model(x)

    def loss_of(self, answers: Tensor, targets: Tensor) -> Tensor:
        return self.loss(answers.float(), targets)

    def hits(self, answers: Tensor, y: Tensor) -> int:
        """How many answers are right."""
        return int((answers.argmax(1) == y).sum())

    def backward(self, loss: Tensor) -> None:
        (loss / self.accumulate).backward()

    def update(self) -> None:
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()

    def told(self, targets: Tensor) -> Tensor | None:
        """The targets that the monitor is given."""
        return targets

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.data.validation.split(256), self.data.validation_labels.split(256), strict=True)

    def begin_validation(self) -> None:
        self.model.eval()

    def end_validation(self) -> None:
        self.model.train()

    def validate(self) -> tuple[float, float]:
        """Loss and accuracy on the validation images."""
        self.begin_validation()
        losses, correct, seen = 0.0, 0, 0
        with torch.no_grad():
            for x, y in self.validation_batches():
                answers = self.forward(x).float()
                losses += float(self.loss(answers, y)) * len(y)
                correct += self.hits(answers, y)
                seen += len(y)
        self.end_validation()
        return losses / seen, correct / seen

    def end_epoch(self, train_loss: float, train_accuracy: float, val_loss: float, val_accuracy: float) -> None:
        self.monitor.end_epoch(train_loss, train_accuracy, val_loss, val_accuracy)


def train(model: nn.Module, optimizer: Optimizer, data: Tensors, **settings: Any) -> Watched:
    """`Loop(model, optimizer, data, **settings).run()`."""
    return Loop(model, optimizer, data, **settings).run()

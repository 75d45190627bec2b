"""What the curve of the loss tells: `oscillating`, `loss-spike`, `decayed-too-early`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer, lr_scheduler

from faults.case import Case
from faults.data import Images, Tensors, standardise
from faults.loop import Loop
from faults.sick import settings as s
from faults.sick.plant import last_linear, plant
from wellfit.randomness import generator

# ---- oscillating -------------------------------------------------------------------------------------------


class ClassAfterClass(Loop):
    """shuffle=False on files that lie in a folder a class."""

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.argsort(self.data.train_labels, stable=True).split(self.batch_size):
            yield self.data.train[rows], self.data.train_labels[rows]


class HalfAfterHalf(Loop):
    """Two archives, one with the first five classes: shuffled within, read one after the other in turns."""

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.from_numpy(generator(self.seed, "faults/order", epoch).permutation(len(self.data.train)))
        late = self.data.train_labels[order] >= 5
        first, second = order[~late].split(self.batch_size), order[late].split(self.batch_size)
        for begin in range(0, max(len(first), len(second)), 16):
            for rows in (*first[begin : begin + 16], *second[begin : begin + 16]):
                yield self.data.train[rows], self.data.train_labels[rows]


class TwoCameras(Loop):
    """Twenty batches of one camera, twenty of the other, whose pictures are negatives."""

    def prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return (-x if self.step // 20 % 2 else x), y


def heavy_ball(model: nn.Module) -> Optimizer:
    """0.99 for 0.9, at the same rate."""
    return SGD(model.parameters(), 0.02, momentum=0.99)


def heavier_ball(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), 0.03, momentum=0.995, nesterov=True)


def short_cycles(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """Up to ten times the rate and down again within 24 steps, where 24 epochs were meant."""
    top = 10 * optimizer.param_groups[0]["lr"]
    return lr_scheduler.CyclicLR(optimizer, 1e-4, top, step_size_up=12, cycle_momentum=False)


def cases_of_oscillating() -> list[Case]:
    def swings(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("oscillating", title, setting, **mistake)

    return [
        swings("files in class order", s.LENET_SGD, loop=ClassAfterClass),
        swings("files in class order", s.MLP_ADAM, loop=ClassAfterClass),
        swings("files in class order", s.TANH_MOMENTUM, loop=ClassAfterClass),
        swings("half of the classes at a time", s.MLP_SGD, loop=HalfAfterHalf),
        swings("two cameras in turns", s.TANH_MLP_SGD, loop=TwoCameras),
        swings("two cameras in turns", s.LENET_ADAM, loop=TwoCameras),
        swings("momentum of 0.99", s.MLP_SGD, optimizer=heavy_ball),
        swings("momentum of 0.995", s.TANH_MLP_SGD, optimizer=heavier_ball),
        swings("cycles of 24 steps", s.MLP_SGD, scheduler=short_cycles, scheduler_step="step"),
        swings("batches of 2 at the rate for 32", s.LENET_SGD, batch_size=2, steps=300),
        swings("whole set at the edge", s.MLP_SGD, batch_size=1000, lr=1.5, steps=250),
    ]


# ---- loss-spike --------------------------------------------------------------------------------------------


def broken_image(images: Images) -> Tensors:
    """One file was written as 32-bit numbers and read as 16-bit ones: large noise."""
    data = standardise(images)
    noise = generator(0, "faults/broken").normal(0, 150, data.train[300].shape)
    data.train[300] = torch.from_numpy(noise).float()
    return data


class RawNowAndThen(Loop):
    """A reader that gives 0 to 255 after each reopening of the archive."""

    def prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return (30 * x + 30 if self.step % 70 == 60 else x), y


class WrongShard(Loop):
    """One shard is labelled by another numbering, and shards are not mixed."""

    def prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, (y + 3) % self.data.classes if self.step % 90 == 80 else y


class ScaledOnce(Loop):
    """The scaler changes its factor between scaling and unscaling."""

    factor = 60.0

    def update(self) -> None:
        if self.step % 80 == 70:
            for p in self.model.parameters():
                if p.grad is not None:
                    p.grad.mul_(self.factor)
        super().update()


class NewHead(Loop):
    """The head is drawn anew when the classes are read again, at step 150."""

    def update(self) -> None:
        super().update()
        if self.step == 150:
            nn.init.normal_(last_linear(self.model).weight, 0.0, 0.5)


class ShakenWeights(Loop):
    """Noise on the weights every eighty steps, of ten times their size."""

    def update(self) -> None:
        super().update()
        if self.step % 80 == 70:
            with torch.no_grad():
                for p in self.model.parameters():
                    p.add_(torch.randn_like(p) * p.std(correction=0) * 0.8)


def jump_at_epochs(progress: float) -> float:
    """A new warm-up begins after each third, from thirty times the rate, for one or two steps."""
    return 30.0 if progress > 0.1 and progress * 3 % 1 < 0.007 else 1.0


def warm_restarts(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """Restarts to twelve times the rate, every eighty steps."""

    def multiplier(step: int) -> float:
        return 12.0 if step >= 80 and step % 80 < 2 else 0.5 * (1.01 + math.cos(math.pi * (step % 80) / 80))

    return lr_scheduler.LambdaLR(optimizer, multiplier)


def cases_of_spikes() -> list[Case]:
    def spike(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("loss-spike", title, setting, **mistake)

    return [
        spike("one image of noise", s.LENET_ADAM, tensors=broken_image),
        spike("one image of noise", s.VGG_ADAM, tensors=broken_image),
        spike("raw pixels every seventieth batch", s.MLP_RMSPROP, loop=RawNowAndThen),
        spike("raw pixels every seventieth batch", s.GELU_MLP_ADAMW, loop=RawNowAndThen),
        spike("a shard of another numbering", s.MLP_SGD, loop=WrongShard),
        spike("a shard of another numbering", s.VGG_BN_NESTEROV, loop=WrongShard),
        spike("scaled by sixty once", s.TANH_MLP_SGD, loop=ScaledOnce),
        spike("scaled by sixty once", s.VGG_BN_SGD, loop=ScaledOnce),
        spike("a new head at step 150", s.FUNCTIONAL_NESTEROV, loop=NewHead),
        spike("weights shaken every eighty steps", s.RESNET_ADAMW, loop=ShakenWeights),
        spike("rate times thirty for a step", s.TANH_MOMENTUM, schedule=jump_at_epochs),
        spike("restarts at twelve times the rate", s.FUNCTIONAL_ADAM, scheduler=warm_restarts, scheduler_step="step"),
    ]


# ---- decayed-too-early -------------------------------------------------------------------------------------


def by_ten_every_ten(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """step_size=10 was in epochs; step() is called after each batch."""
    return lr_scheduler.StepLR(optimizer, 10, 0.1)


def milestones_in_steps(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.MultiStepLR(optimizer, [30, 60], 0.05)


def a_tenth_each_epoch(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.ExponentialLR(optimizer, 0.1)


def nine_tenths_each_step(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.ExponentialLR(optimizer, 0.93)


def plateau_of_a_reward(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """mode="max" with a loss: each fall counts as a failure."""
    return lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.1, patience=0)


def plateau_by_batches(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """Patience of five epochs, fed with every batch's loss."""
    return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=5)


def one_over_steps(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + 0.2 * step) ** 1.5)


def polynomial_in_epochs(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """total_iters=30 epochs, counted in batches: afterwards the rate is 0."""
    return lr_scheduler.PolynomialLR(optimizer, total_iters=30, power=1.0)


def cosine_of_a_tenth(progress: float) -> float:
    """Half a cosine over the first tenth, the length of the trial run."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress / 0.12))) + 1e-4


def cases_of_early_decay() -> list[Case]:
    def early(title: str, setting: s.Setting, scheduler: object = None, each: str = "step", **mistake: object) -> Case:
        planned = {"scheduler": scheduler, "scheduler_step": each} if scheduler else {}
        return plant("decayed-too-early", title, setting, **planned, **mistake)

    return [
        early("a tenth every ten batches", s.LENET_SGD, by_ten_every_ten),
        early("a tenth every ten batches", s.GELU_MLP_ADAMW, by_ten_every_ten),
        early("milestones in batches", s.VGG_BN_ADAM, milestones_in_steps),
        early("milestones in batches", s.FUNCTIONAL_RMSPROP, milestones_in_steps),
        early("a tenth each epoch", s.LENET_ADAM, a_tenth_each_epoch, "epoch"),
        early("a tenth each epoch", s.FUNCTIONAL_ADAM, a_tenth_each_epoch, "epoch"),
        early("times 0.93 each batch", s.FUNCTIONAL_NESTEROV, nine_tenths_each_step),
        early("on plateau of a reward", s.MLP_SGD, plateau_of_a_reward, "epoch"),
        early("on plateau by batches", s.VGG_SGD, plateau_by_batches),
        early("on plateau by batches", s.TANH_ADAM, plateau_by_batches),
        early("one over the batches", s.TANH_MOMENTUM, one_over_steps),
        early("polynomial over thirty batches", s.VGG_ADAM, polynomial_in_epochs),
        early("cosine over a tenth", s.LENET_MOMENTUM, schedule=cosine_of_a_tenth),
    ]


def cases() -> list[Case]:
    return cases_of_oscillating() + cases_of_spikes() + cases_of_early_decay()

"""Numbers that run out of range: `nan` and `exploding`."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer, lr_scheduler

from faults.case import Case
from faults.data import Images, Tensors, channels_first, standardise
from faults.loop import Loop
from faults.sick import settings as s
from faults.sick.plant import plant

# ---- nan ---------------------------------------------------------------------------------------------------


def binary_by_hand(answers: Tensor, y: Tensor) -> Tensor:
    """One sigmoid a class in bfloat16, and the logarithm of 1 − p: p rounds to 1 once the network is sure."""
    p = torch.sigmoid(answers.bfloat16()).float()
    onehot = F.one_hot(y, answers.shape[1]).float()
    return -(onehot * torch.log(p) + (1 - onehot) * torch.log(1 - p)).sum(1).mean()


def divergence_by_hand(answers: Tensor, y: Tensor) -> Tensor:
    """Kullback and Leibler's sum with the logarithm of the targets, most of which are 0."""
    target = F.one_hot(y, answers.shape[1]).float()
    return (target * (target.log() - F.log_softmax(answers, 1))).sum(1).mean()


def half_softmax(answers: Tensor, y: Tensor) -> Tensor:
    """Half precision to save memory: small probabilities become 0 before the logarithm."""
    return F.nll_loss(torch.log(F.softmax(8 * answers, 1).half()).float(), y)


def half_exponentials(answers: Tensor, y: Tensor) -> Tensor:
    """exp(12) is more than float16 holds, and the largest score is not taken off first."""
    e = (4 * answers).half().exp()
    p = (e / e.sum(1, keepdim=True)).float()
    return -p[torch.arange(len(y)), y].clamp_min(1e-6).log().mean()


def focal_root(answers: Tensor, y: Tensor) -> Tensor:
    """The focal factor with an exponent below one: its slope at p = 1 is infinite."""
    log_p = F.log_softmax(6 * answers, 1)[torch.arange(len(y)), y]
    return -((1 - log_p.exp()) ** 0.5 * log_p).mean()


def hard_examples(answers: Tensor, y: Tensor) -> Tensor:
    """The mean over the hard examples, of which one day there are none."""
    losses = F.cross_entropy(answers, y, reduction="none")
    return losses[losses > 0.7].mean()


class RootPenalty(Loop):
    """Adds the length of every parameter, by a square root whose slope at 0 is infinite: biases begin there."""

    def loss_of(self, answers: Tensor, targets: Tensor) -> Tensor:
        lengths = [torch.sqrt((p**2).sum()) for p in self.model.parameters()]
        return super().loss_of(answers, targets) + 1e-4 * torch.stack(lengths).sum()


class PartlyLabelled(Loop):
    """Four fifths of the images have no label yet (-100), and a small batch may hold only such."""

    def prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.rand(len(y)) < 0.8
        return x, torch.where(hidden, torch.full_like(y, -100), y)

    def told(self, targets: Tensor) -> Tensor | None:
        return None


def broken_pixel(images: Images) -> Tensors:
    """One float image came with a pixel that is no number."""
    data = standardise(images)
    data.train[417, 0, 3, 4] = float("nan")
    return data


def each_by_itself(images: Images) -> Tensors:
    """Every image by its own mean and deviation; two of them are blank."""
    data = standardise(images)
    data.train[[100, 900]] = 0.0
    mean, std = data.train.mean((1, 2, 3), keepdim=True), data.train.std((1, 2, 3), keepdim=True)
    return replace(data, train=(data.train - mean) / std)


def pixel_by_pixel(images: Images) -> Tensors:
    """Every pixel by its own deviation over the set: the corners never vary."""
    data = standardise(images)
    mean, std = data.train.mean(0), data.train.std(0)
    return replace(data, train=(data.train - mean) / std, validation=(data.validation - mean) / std)


def log_of_pixels(images: Images) -> Tensors:
    """Logarithm of the brightness, black included."""
    data = standardise(images)
    return replace(data, train=channels_first(images.train).log(), validation=channels_first(images.validation).log())


class OverTheBatch(nn.Module):
    """Features by the mean and deviation of the batch; the deviation of one image is 0/0."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.std(0) + 1e-3) if self.training else x


def scores_over_the_batch(model: nn.Module) -> nn.Module:
    return nn.Sequential(model, OverTheBatch())


def cases_of_nan() -> list[Case]:
    def nan(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("nan", title, setting, **mistake)

    return [
        nan("log(1 - p) of a sigmoid that reached one", s.LENET_ADAM, loss=binary_by_hand),
        nan("0 log 0 in a divergence written by hand", s.MLP_ADAM, loss=divergence_by_hand),
        nan("softmax in float16 under the logarithm", s.VGG_SGD, loss=half_softmax),
        nan("exp in float16", s.TANH_MLP_SGD, loss=half_exponentials),
        nan("focal loss with an exponent below one", s.RESNET_ADAMW, loss=focal_root),
        nan("mean over no hard examples", s.VGG_BN_NESTEROV, loss=hard_examples),
        nan("root of a sum of squares that is 0", s.VGG_MOMENTUM, loop=RootPenalty),
        nan("a batch without a label", s.GELU_MLP_ADAMW, loop=PartlyLabelled, batch_size=8, train=800, epochs=3),
        nan("a pixel that is no number", s.VGG_BN_ADAM, tensors=broken_pixel),
        nan("blank images divided by their deviation", s.FUNCTIONAL_RMSPROP, tensors=each_by_itself),
        nan("constant pixels divided by their deviation", s.MLP_RMSPROP, tensors=pixel_by_pixel),
        nan("logarithm of black pixels", s.LENET_SGD, tensors=log_of_pixels),
        nan("deviation over a last batch of one", s.FUNCTIONAL_ADAM, change=scores_over_the_batch, train=961),
    ]


# ---- exploding ---------------------------------------------------------------------------------------------


def uphill(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), 0.1, maximize=True)


class NegatedGradient(Loop):
    """A line from an adversarial training was left: it turns every gradient round."""

    def update(self) -> None:
        for p in self.model.parameters():
            if p.grad is not None:
                p.grad.neg_()
        super().update()


class PenaltyTakenOff(Loop):
    """The sum of squares is taken off the loss instead of added."""

    rate = 0.05

    def loss_of(self, answers: Tensor, targets: Tensor) -> Tensor:
        squares = torch.stack([(p**2).sum() for p in self.model.parameters()]).sum()
        return super().loss_of(answers, targets) - self.rate * squares


class GrowingWeights(Loop):
    """Decay written by hand, with a plus where a minus belongs."""

    def update(self) -> None:
        super().update()
        with torch.no_grad():
            for p in self.model.parameters():
                p.mul_(1 + 0.02)


class ClippedUpwards(Loop):
    """The gradient is multiplied by norm/limit, not by limit/norm."""

    def update(self) -> None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.stack([g.norm() for g in gradients]).norm()
        if norm > 0.1:
            for g in gradients:
                g.mul_(norm / 0.1)
        super().update()


class AwayFromTheAverage(Loop):
    """Pulls the weights to their running average, with the sign turned."""

    def begin_training(self) -> None:
        super().begin_training()
        if not hasattr(self, "average"):
            self.average = [p.detach().clone() for p in self.model.parameters()]

    def update(self) -> None:
        super().update()
        with torch.no_grad():
            for p, a in zip(self.model.parameters(), self.average, strict=True):
                a.lerp_(p, 0.02)
                p.add_(p - a, alpha=0.1)


def undamped(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), 0.02, momentum=1.05)


def growing_by_epoch(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.ExponentialLR(optimizer, 5.0)


def growing_by_step(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.ExponentialLR(optimizer, 1.05)


class RowByRow(nn.Module):
    """A recurrent net that reads an image row by row. gain: of the weights from one row to the next."""

    def __init__(self, channels: int, size: int, classes: int, gain: float) -> None:
        super().__init__()
        self.step = nn.Linear(96, 96)
        self.read = nn.Linear(channels * size, 96)
        self.head = nn.Linear(96, classes)
        nn.init.orthogonal_(self.step.weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 96)
        for row in x.permute(2, 0, 1, 3).flatten(2):
            h = torch.relu(self.step(h) + self.read(row))
        return self.head(h)


def recurrent(channels: int, size: int, classes: int) -> nn.Module:
    return RowByRow(channels, size, classes, 1.0)


def recurrent_growing(channels: int, size: int, classes: int) -> nn.Module:
    return RowByRow(channels, size, classes, 1.4)


def scores_as_loss(answers: Tensor, y: Tensor) -> Tensor:
    """NLLLoss on raw scores: without log_softmax nothing holds the right one down."""
    return F.nll_loss(answers, y)


def cases_of_exploding() -> list[Case]:
    def exploding(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("exploding", title, setting, **mistake)

    rows = replace(s.MLP_ADAM, network=recurrent, optimizer="SGD", lr=0.05)
    return [
        exploding("maximize=True", s.LENET_SGD, optimizer=uphill),
        exploding("gradients turned round", s.VGG_MOMENTUM, loop=NegatedGradient),
        exploding("gradients turned round", s.RESNET_ADAMW, loop=NegatedGradient),
        exploding("penalty taken off the loss", s.TANH_MLP_SGD, loop=PenaltyTakenOff),
        exploding("penalty taken off the loss", s.FUNCTIONAL_NESTEROV, loop=PenaltyTakenOff),
        exploding("decay with a plus", s.VGG_ADAM, loop=GrowingWeights),
        exploding("clipping upside down", s.MLP_SGD, loop=ClippedUpwards),
        exploding("pushed away from the running average", s.MLP_SGD, loop=AwayFromTheAverage),
        exploding("momentum above one", replace(s.VGG_BN_SGD, network="vgg"), optimizer=undamped),
        exploding("rate times five each epoch", s.MLP_RMSPROP, scheduler=growing_by_epoch),
        exploding("rate times 1.05 each step", s.LENET_ADAM, scheduler=growing_by_step, scheduler_step="step"),
        exploding("recurrent weights above one", rows, network=recurrent_growing),
        exploding("NLLLoss on raw scores", s.GELU_ADAMW, loss=scores_as_loss),
    ]


def cases() -> list[Case]:
    return cases_of_nan() + cases_of_exploding()

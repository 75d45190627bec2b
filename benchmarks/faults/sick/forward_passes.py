"""Faults in what a network computes, seen before training: input-ignored, batch-leak, gradient-wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faults.case import Case
from faults.checking import Checking, mistaken
from faults.sick.plant import Around, last_linear

DIGITS = Checking("lenet", "digits")
FASHION = Checking("mlp", "fashion-mnist")
CIFAR = Checking("vgg", "cifar10")
PHOTOS = Checking("resnet", "ants-bees", train=150, validation=50)


def cases() -> list[Case]:
    """All of these."""
    return [*ignored(), *leaking(), *gradients()]


# ---- the input never arrives ---------------------------------------------------------------------------


def before(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], nn.Module]:
    return lambda model: Around(model, before=change)


def after(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], nn.Module]:
    return lambda model: Around(model, after=change)


class Remembers(nn.Module):
    """Runs on the images that it kept from the example in its constructor."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("x", example)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.x[: len(x)])


class Shadowed(nn.Module):
    """A loop over branches that starts from zeros and forgets the input."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv2d(channels, 8, k, padding=k // 2) for k in (1, 3, 5)])
        self.head = nn.Linear(8 * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x), 8, *x.shape[2:])
        for branch in self.branches:
            x = torch.zeros_like(x)
            total = total + torch.relu(branch(x))
        return self.head(F.adaptive_avg_pool2d(total, 4).flatten(1))


class Gated(nn.Module):
    """A mask for missing pixels is the wrong way round: every pixel that is there is struck out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.masked_fill(torch.isfinite(x), 0.0))


def dead_first(model: nn.Module) -> None:
    """Biases of the first layer from a checkpoint of another scale."""
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    nn.init.constant_(first.bias, -500.0)


def drops_everything(model: nn.Module) -> nn.Module:
    """Keep probability 1.0, as other libraries count it."""
    return nn.Sequential(nn.Dropout(1.0), model)


def keeps_nothing(model: nn.Module) -> nn.Module:
    return Around(model, after=lambda s: F.dropout(s, 1.0))


def ignored() -> list[Case]:
    """input-ignored"""
    fault = "input-ignored"
    return [
        mistaken(fault, "times zero", DIGITS, change=before(lambda x: x * 0)),
        mistaken(fault, "overwritten by zeros", CIFAR, change=before(torch.zeros_like)),
        mistaken(fault, "fresh noise overwritten by ones", PHOTOS, change=before(torch.ones_like)),
        mistaken(fault, "runs on a buffer", FASHION, change=lambda m: Remembers(m, torch.randn(64, 1, 28, 28))),
        mistaken(fault, "loop variable overwritten", CIFAR, network=Shadowed),
        mistaken(fault, "mask the wrong way round", Checking("tanh", "cifar10"), change=Gated),
        mistaken(fault, "first biases at -500", DIGITS, change=dead_first),
        mistaken(fault, "first biases at -500", Checking("vgg", "fashion-mnist"), change=dead_first),
        mistaken(fault, "dropout drops all", FASHION, change=drops_everything),
        mistaken(fault, "dropout of all scores", Checking("gelu", "digits"), change=keeps_nothing),
        mistaken(fault, "softmax over one channel", FASHION, change=before(lambda x: x.softmax(1))),
        mistaken(fault, "channel mean taken from one channel", DIGITS, change=before(lambda x: x - x.mean(1, True))),
        mistaken(fault, "cast to small integers", CIFAR, change=before(lambda x: (x / 255).long().float())),
    ]


# ---- images of a batch see one another -----------------------------------------------------------------


class MixingView(nn.Module):
    """Channels first in memory, then a view that takes the batch for channels."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.fc = nn.Linear(8 * size * size, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.relu(self.conv(x)).transpose(0, 1).contiguous()
        return self.fc(features.view(len(x), -1))


class BatchFirstForgotten(nn.Module):
    """Attention over rows of patches; nn.MultiheadAttention takes the sequence first unless told otherwise."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        side = 4 if size <= 32 else 16
        self.patches = nn.Conv2d(channels, 32, side, side)
        self.attention = nn.MultiheadAttention(32, 4)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # N×L×E
        tokens = self.norm(tokens + self.attention(tokens, tokens, tokens)[0])
        return self.head(tokens.mean(1))


class RowsThroughGRU(nn.Module):
    """Rows of the image through a GRU; batch_first was forgotten."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.gru = nn.GRU(channels * size, 32)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 1, 3).flatten(2)  # N×H×(C·W)
        return self.head(self.gru(rows)[0][:, -1])


class FunctionalNorm(nn.Module):
    """F.batch_norm with training left at True."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, 2, 1)
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("var", torch.ones(16))
        self.fc = nn.Linear(16 * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(self.conv(x), self.mean, self.var, training=True)
        return self.fc(F.adaptive_avg_pool2d(torch.relu(x), 4).flatten(1))


def without_running_statistics(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = None


def rows_mixed(x: Tensor) -> Tensor:
    """N×C×H×W read as C×N×H×W."""
    return x.reshape(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)


def leaking() -> list[Case]:
    """batch-leak"""
    fault = "batch-leak"
    return [
        mistaken(fault, "softmax over the batch", DIGITS, change=after(lambda s: s.softmax(0))),
        mistaken(fault, "mean over the batch taken away", CIFAR, change=before(lambda x: x - x.mean(0))),
        mistaken(fault, "BatchNorm without running statistics", PHOTOS, change=without_running_statistics),
        mistaken(fault, "BatchNorm without running statistics", Checking("vgg-bn"), change=without_running_statistics),
        mistaken(fault, "a reshape mixes images", CIFAR, change=before(rows_mixed)),
        mistaken(fault, "a view of the transposed", FASHION, network=MixingView),
        mistaken(fault, "attention over the batch", CIFAR, network=BatchFirstForgotten),
        mistaken(fault, "GRU over the batch", FASHION, network=RowsThroughGRU),
        mistaken(fault, "F.batch_norm in training mode", DIGITS, network=FunctionalNorm),
        mistaken(fault, "running sum over the batch", Checking("tanh", "digits"), change=before(lambda x: x.cumsum(0))),
        mistaken(fault, "divided by the batch's largest", FASHION, change=before(lambda x: x / x.abs().max())),
        mistaken(fault, "normalised along the batch", DIGITS, change=after(lambda s: F.normalize(s, dim=0))),
        mistaken(
            fault, "shifted against the labels", Checking("gelu", "cifar10"), change=before(lambda x: x.roll(1, 0))
        ),
    ]


# ---- backward passes that do not belong to their forward passes ------------------------------------------


class HalfSquare(torch.autograd.Function):
    """x², its gradient without the 2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * ctx.saved_tensors[0]


class Swish(torch.autograd.Function):
    """x·σ(x), the second term of its gradient forgotten."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * ctx.saved_tensors[0].sigmoid()


class Leaky(torch.autograd.Function):
    """Leaky ReLU by 0.1 forward, by 0.01 backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x > 0, x, 0.1 * x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return torch.where(ctx.saved_tensors[0] > 0, g, 0.01 * g)


class MeanNorm(torch.autograd.Function):
    """Features less their mean and by their deviation; the gradient takes both for constants."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        deviation = x.std(1, keepdim=True) + 1e-3
        ctx.save_for_backward(deviation)
        return (x - x.mean(1, keepdim=True)) / deviation

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g / ctx.saved_tensors[0]


class Affine(torch.autograd.Function):
    """x·Wᵀ + b; the bias's gradient averaged over the batch, where it is a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.T + b

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return g @ w, g.T @ x, g.mean(0)


class HandCrossEntropy(torch.autograd.Function):
    """Cross-entropy, its gradient p − y not divided by the number of images."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, targets: Tensor) -> Tensor:
        logs = scores.log_softmax(1)
        ctx.save_for_backward(logs, targets)
        return F.nll_loss(logs, targets)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        logs, targets = ctx.saved_tensors
        return g * (logs.exp() - F.one_hot(targets, logs.shape[1])), None


class HandAffine(nn.Module):
    """A linear layer by `Affine`."""

    def __init__(self, given: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = given.weight, given.bias

    def forward(self, x: Tensor) -> Tensor:
        return Affine.apply(x, self.weight, self.bias)


class CosineHead(nn.Module):
    """Scores are cosines; the norms were detached."""

    def __init__(self, given: nn.Linear) -> None:
        super().__init__()
        self.weight = given.weight

    def forward(self, x: Tensor) -> Tensor:
        x = x / x.norm(dim=1, keepdim=True).detach()
        return 10 * x @ (self.weight / self.weight.norm(dim=1, keepdim=True).detach()).T


class DataTimes(nn.Module):
    """A learnt scale, read through .data."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.scale = nn.Parameter(torch.tensor([1.5]))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * self.scale.data + 0.0 * self.scale


def head(make: Callable[[nn.Linear], nn.Module]) -> Callable[[nn.Module], None]:
    """The last layer replaced."""

    def change(model: nn.Module) -> None:
        old = last_linear(model)
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if child is old:
                    setattr(module, name, make(old))

    return change


def activation(function: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], None]:
    """A hand-written activation in place of every ReLU."""

    def change(model: nn.Module) -> None:
        for layer in model.modules():
            if isinstance(layer, nn.ReLU | nn.GELU | nn.Tanh):
                vars(layer)["forward"] = function

    return change


def skips_in_silence(model: nn.Module) -> nn.Module:
    """A skip of the scores' own scale, counted without gradient."""
    return Around(model, after=lambda s: s + 0.5 * torch.tanh(s).detach())


def temperature(scores: Tensor) -> Tensor:
    """Divided by their own spread, which was left out of the graph."""
    with torch.no_grad():
        spread = scores.std(1, keepdim=True) + 0.1
    return scores / spread


def gelu_by_hand(x: Tensor) -> Tensor:
    with torch.no_grad():
        gate = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return x * gate


def gradients() -> list[Case]:
    """gradient-wrong"""
    fault = "gradient-wrong"
    tanh = Checking("tanh", "cifar10")
    return [
        mistaken(fault, "square without its 2", FASHION, change=activation(HalfSquare.apply)),
        mistaken(fault, "swish without its second term", DIGITS, change=activation(Swish.apply)),
        mistaken(fault, "another slope backward", CIFAR, change=activation(Leaky.apply)),
        mistaken(fault, "norm's mean and deviation as constants", DIGITS, change=after(MeanNorm.apply)),
        mistaken(fault, "bias gradient averaged", FASHION, change=head(HandAffine)),
        mistaken(fault, "bias gradient averaged", tanh, change=head(HandAffine)),
        mistaken(fault, "cosine with detached norms", PHOTOS, change=head(CosineHead)),
        mistaken(fault, "loss gradient not averaged", CIFAR, loss=lambda m: HandCrossEntropy.apply),
        mistaken(fault, "learnt scale through .data", DIGITS, change=DataTimes),
        mistaken(fault, "detached skip", Checking("functional", "fashion-mnist"), change=skips_in_silence),
        mistaken(fault, "spread without gradient", Checking("resnet", "digits"), change=after(temperature)),
        mistaken(fault, "GELU's gate without gradient", Checking("gelu", "cifar10"), change=activation(gelu_by_hand)),
    ]

"""Faults of the start, seen before training: initial-loss, regularisation-inert, cannot-overfit…, no-good-lr."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from faults.case import Case
from faults.checking import Checking, mistaken
from faults.data import Tensors
from faults.sick.plant import Around, last_linear, rows_of

DIGITS = Checking("lenet", "digits")
FASHION = Checking("mlp", "fashion-mnist")
CIFAR = Checking("vgg", "cifar10")
PHOTOS = Checking("resnet", "ants-bees", train=150, validation=50)


def cases() -> list[Case]:
    """All of these."""
    return [*first_losses(), *inert(), *stuck(), *no_rate()]


# ---- the first loss ------------------------------------------------------------------------------------


def last_times(factor: float) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        with torch.no_grad():
            last_linear(model).weight.mul_(factor)

    return change


def normal_of_one(model: nn.Module) -> None:
    """nn.init.normal_ with its default deviation."""
    for layer in rows_of(model, nn.Linear):
        nn.init.normal_(layer.weight)


def counted_biases(model: nn.Module) -> None:
    """Biases were set to class counts, not to logarithms of their shares."""
    with torch.no_grad():
        last_linear(model).bias.copy_(torch.arange(last_linear(model).out_features) * 40.0)


class Bits(nn.Module):
    """Cross-entropy in bits, its gradient too."""

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(scores, targets) / math.log(2)


def averaged_twice(scores: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(scores, targets) / len(targets)


def log_of_nothing(scores: Tensor, targets: Tensor) -> Tensor:
    """−log p where p is the share of the true class among scores, not among their exponentials."""
    return F.nll_loss(scores, targets)


def first_losses() -> list[Case]:
    """initial-loss"""
    fault = "initial-loss"
    return [
        mistaken(fault, "last layer times 100", DIGITS, change=last_times(100)),
        mistaken(fault, "last layer times 100", CIFAR, change=last_times(100)),
        mistaken(fault, "last layer times 300", PHOTOS, change=last_times(300)),
        mistaken(fault, "weights of deviation 1", FASHION, change=normal_of_one),
        mistaken(fault, "biases are class counts", Checking("gelu", "cifar10"), change=counted_biases),
        mistaken(fault, "summed", DIGITS, loss=lambda m: nn.CrossEntropyLoss(reduction="sum")),
        mistaken(fault, "summed by hand", CIFAR, loss=lambda m: lambda s, t: F.cross_entropy(s, t, reduction="sum")),
        mistaken(fault, "in bits", FASHION, loss=lambda m: Bits()),
        mistaken(fault, "averaged twice", Checking("tanh", "digits"), loss=lambda m: averaged_twice),
        mistaken(fault, "NLL of raw scores", Checking("vgg-bn", "fashion-mnist"), loss=lambda m: nn.NLLLoss()),
        mistaken(
            fault,
            "NLL of probabilities",
            DIGITS,
            change=lambda m: Around(m, after=lambda s: s.softmax(1)),
            loss=lambda m: log_of_nothing,
        ),
        mistaken(
            fault, "temperature 0.01", Checking("functional"), change=lambda m: Around(m, after=lambda s: s / 0.01)
        ),
    ]


# ---- regularisation that reaches nothing ---------------------------------------------------------------


def decay_on_biases(model: nn.Module) -> Optimizer:
    """The two groups were exchanged."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return AdamW([{"params": weights, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.05}], lr=1e-3)


def decay_by_a_name_that_is_not_there(model: nn.Module) -> Optimizer:
    """Keras calls weights kernels."""
    decayed = [p for n, p in model.named_parameters() if "kernel" in n]
    others = [p for n, p in model.named_parameters() if "kernel" not in n]
    return AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], lr=1e-3)


def decay_on_norms(model: nn.Module) -> Optimizer:
    norms = [p for m in rows_of(model, nn.BatchNorm2d) for p in m.parameters()]
    known = {id(p) for p in norms}
    others = [p for p in model.parameters() if id(p) not in known]
    return SGD([{"params": norms, "weight_decay": 5e-4}, {"params": others}], lr=0.05, momentum=0.9)


class ForgetfulSGD(Optimizer):
    """Takes a weight decay and never applies it."""

    def __init__(self, params: Any, lr: float = 0.01, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * p.grad)


def on_detached(model: nn.Module) -> Callable[[nn.Module], Any]:
    return lambda m: 1e-4 * sum((p.detach() ** 2).sum() for p in m.parameters())


def through_data(model: nn.Module) -> Callable[[nn.Module], Any]:
    return lambda m: 1e-3 * sum(p.data.abs().sum() for p in m.parameters() if p.ndim > 1)


def of_a_copy(model: nn.Module) -> Callable[[nn.Module], Any]:
    """The penalty was written around a copy that was made for an average of weights."""
    kept = copy.deepcopy(model)
    return lambda m: 1e-4 * sum((p**2).sum() for p in kept.parameters())


def used_up(model: nn.Module) -> Callable[[nn.Module], Any]:
    """model.parameters() is an iterator, and something has walked it already."""
    parameters = model.parameters()
    list(parameters)
    return lambda m: 1e-4 * torch.as_tensor(sum((p**2).sum() for p in parameters))


def whole_division(model: nn.Module) -> Callable[[nn.Module], Any]:
    return lambda m: (1 // 1000) * sum((p**2).sum() for p in m.parameters())


def as_a_number(model: nn.Module) -> Callable[[nn.Module], Any]:
    return lambda m: torch.tensor(1e-4 * sum((p**2).sum().item() for p in m.parameters()))


def without_gradient(model: nn.Module) -> Callable[[nn.Module], Any]:
    @torch.no_grad()
    def penalty(m: nn.Module) -> Tensor:
        return 1e-4 * torch.stack([p.norm() for p in m.parameters()]).sum()

    return penalty


def by_a_wrong_name(model: nn.Module) -> Callable[[nn.Module], Any]:
    return lambda m: torch.as_tensor(1e-4 * sum((p**2).sum() for n, p in m.named_parameters() if "weights" in n))


def inert() -> list[Case]:
    """regularisation-inert"""
    fault = "regularisation-inert"
    return [
        mistaken(fault, "decay groups exchanged", CIFAR, optimizer=decay_on_biases),
        mistaken(fault, "decay groups exchanged", PHOTOS, optimizer=decay_on_biases),
        mistaken(fault, "decay by a name that is not there", DIGITS, optimizer=decay_by_a_name_that_is_not_there),
        mistaken(fault, "decay on norms alone", Checking("vgg-bn", "cifar10"), optimizer=decay_on_norms),
        mistaken(
            fault,
            "own SGD forgets its decay",
            FASHION,
            optimizer=lambda m: ForgetfulSGD(m.parameters(), 0.05, weight_decay=1e-3),
        ),
        mistaken(fault, "penalty on detached weights", DIGITS, penalty=on_detached),
        mistaken(fault, "penalty through .data", FASHION, penalty=through_data),
        mistaken(fault, "penalty of a copy", Checking("tanh"), penalty=of_a_copy),
        mistaken(fault, "parameters used up", CIFAR, penalty=used_up),
        mistaken(fault, "1 // 1000", Checking("gelu", "fashion-mnist"), penalty=whole_division),
        mistaken(fault, "penalty as a number", Checking("functional", "digits"), penalty=as_a_number),
        mistaken(fault, "penalty under no_grad", Checking("vgg-bn"), penalty=without_gradient),
        mistaken(fault, "penalty by a wrong name", Checking("plain", "digits"), penalty=by_a_wrong_name),
    ]


# ---- twenty images that cannot be learnt ---------------------------------------------------------------


class Bottleneck(nn.Module):
    """A frozen backbone, and one unit before the classes."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 64), nn.ReLU()).requires_grad_(
            False
        )
        self.narrow = nn.Linear(64, 1)
        self.head = nn.Linear(1, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.narrow(self.backbone(x))))


class OnePixel(nn.Module):
    """Strides until a pixel is left, and the mean colour alone decides."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def permuted(scores: Tensor, targets: Tensor) -> Tensor:
    """Labels are shuffled at each call."""
    return F.cross_entropy(scores, targets[torch.randperm(len(targets))])


def sorted_labels(scores: Tensor, targets: Tensor) -> Tensor:
    """Each batch's images are sorted by a key of their own, drawn anew."""
    return F.cross_entropy(scores[torch.randperm(len(scores))], targets)


def one_image(data: Tensors) -> Tensors:
    """images[0] where images[i] was meant."""
    return replace(data, train=data.train[:1].expand_as(data.train).clone())


def random_labels_of_few(data: Tensors) -> Tensors:
    """Five pictures, again and again, with labels of all."""
    return replace(data, train=data.train[torch.arange(len(data.train)) % 5])


def frozen_but_norms(model: nn.Module) -> None:
    """Everything frozen but the first layer's biases."""
    for p in model.parameters():
        p.requires_grad_(False)
    next(m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)).bias.requires_grad_(True)


def stuck() -> list[Case]:
    """cannot-overfit-small-sample"""
    fault = "cannot-overfit-small-sample"
    return [
        mistaken(fault, "scores through a ReLU", DIGITS, change=lambda m: Around(m, after=torch.relu)),
        mistaken(fault, "scores through a tanh", CIFAR, change=lambda m: Around(m, after=torch.tanh)),
        mistaken(fault, "frozen backbone, head of one unit", FASHION, network=Bottleneck),
        mistaken(fault, "frozen backbone, head of one unit", CIFAR, network=Bottleneck),
        mistaken(fault, "one pixel left", DIGITS, network=OnePixel),
        mistaken(fault, "labels shuffled at each call", FASHION, loss=lambda m: permuted),
        mistaken(fault, "scores shuffled at each call", Checking("tanh", "cifar10"), loss=lambda m: sorted_labels),
        mistaken(fault, "always the first image", Checking("gelu", "cifar10"), then=one_image),
        mistaken(fault, "five images for all labels", Checking("vgg-bn", "digits"), then=random_labels_of_few),
        mistaken(fault, "all but a bias frozen", CIFAR, change=frozen_but_norms),
        mistaken(
            fault, "scores clamped", Checking("functional", "fashion-mnist"), change=lambda m: Around(m, after=clamped)
        ),
    ]


def clamped(scores: Tensor) -> Tensor:
    return scores.clamp(-0.5, 0.5)


# ---- no rate at which the loss falls -------------------------------------------------------------------


def all_zero(model: nn.Module) -> None:
    for p in model.parameters():
        nn.init.zeros_(p)


def huge(model: nn.Module) -> None:
    """Weights in the scale of another library's integers: what they make is too large for a float."""
    for layer in rows_of(model, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(layer.weight, std=1e8)


def tiny(model: nn.Module) -> None:
    """Deviation 1e-6 in every layer."""
    for layer in rows_of(model, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(layer.weight, std=1e-6)
        nn.init.zeros_(layer.bias)


class DeepSigmoid(nn.Module):
    """Fourteen sigmoid layers one after another."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(channels * size * size, 32), nn.Sigmoid()]
        for _ in range(13):
            layers += [nn.Linear(32, 32), nn.Sigmoid()]
        self.net = nn.Sequential(*layers, nn.Linear(32, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def upwards(model: nn.Module) -> Optimizer:
    """maximize left on from another experiment."""
    return SGD(model.parameters(), lr=0.01, momentum=0.9, maximize=True)


def only_the_last_bias(model: nn.Module) -> Optimizer:
    return Adam([last_linear(model).bias], lr=1e-3)


def root_of_zero(scores: Tensor, targets: Tensor) -> Tensor:
    """A square root of zero has no finite gradient."""
    return F.cross_entropy(scores, targets) + 1e-3 * (scores - scores.detach()).square().sum().sqrt()


def no_rate() -> list[Case]:
    """no-good-lr"""
    fault = "no-good-lr"
    momentum = Checking("tanh", "digits", optimizer=lambda m: SGD(m.parameters(), 0.01, momentum=0.9))
    return [
        mistaken(fault, "all weights zero", DIGITS, change=all_zero),
        mistaken(fault, "all weights zero", replace(momentum, network="vgg", data="cifar10"), change=all_zero),
        mistaken(fault, "deviation 1e-6", replace(momentum, network="vgg", data="cifar10"), change=tiny),
        mistaken(fault, "fourteen sigmoids", replace(momentum, data="fashion-mnist"), network=DeepSigmoid),
        mistaken(fault, "climbs", momentum, optimizer=upwards),
        mistaken(fault, "only the last bias", FASHION, optimizer=only_the_last_bias),
        mistaken(fault, "root of zero", Checking("functional", "cifar10"), loss=lambda m: root_of_zero),
        mistaken(fault, "labels shuffled at each call", DIGITS, loss=lambda m: permuted),
        mistaken(
            fault,
            "deviation 1e8, no norm",
            Checking("gelu", "cifar10", optimizer=lambda m: RMSprop(m.parameters(), 1e-3)),
            change=huge,
        ),
        mistaken(
            fault,
            "scores detached from the head on",
            CIFAR,
            change=lambda m: Around(m, after=lambda s: s.detach() + 0 * s),
        ),
    ]

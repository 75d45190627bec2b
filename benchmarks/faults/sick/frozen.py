"""Parameters that were meant to learn and do not: `frozen-parameters`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from faults.case import Case
from faults.loop import Loop
from faults.networks import Functional, ResNet
from faults.sick import settings as s
from faults.sick.plant import last_linear, plant, rows_of


def head_made_afterwards(model: nn.Module) -> Optimizer:
    """The optimizer holds the ImageNet head, which is then replaced."""
    optimizer = Adam(model.parameters(), 1e-4)
    head = rows_of(model, nn.Conv2d)[-1]
    model.get_submodule("classifier").register_module("1", nn.Conv2d(head.in_channels, head.out_channels, 1))
    return optimizer


def weights_drawn_afterwards(model: nn.Module) -> Optimizer:
    """A new nn.Parameter for every convolution, drawn after the optimizer was made."""
    optimizer = SGD(model.parameters(), 0.1)
    for layer in rows_of(model, nn.Conv2d):
        layer.weight = nn.Parameter(nn.init.kaiming_normal_(torch.empty_like(layer.weight)))
    return optimizer


def last_of_the_loop(model: nn.Module) -> Optimizer:
    """`for layer in model: optimizer = Adam(layer.parameters())` keeps the last one."""
    optimizer: Optimizer | None = None
    for layer in model.children():
        if any(True for _ in layer.parameters()):
            optimizer = Adam(layer.parameters(), 1e-3)
    assert optimizer is not None
    return optimizer


def head_alone(model: nn.Module) -> Optimizer:
    """model.fc.parameters(), copied from a lesson on transfer; nothing was pretrained here."""
    return AdamW(last_linear(model).parameters(), 2e-3)


def convolutions_alone(model: nn.Module) -> Optimizer:
    """Only the convolutions were collected: the linear layers were forgotten."""
    return SGD([p for m in rows_of(model, nn.Conv2d) for p in m.parameters()], 0.02, momentum=0.9, nesterov=True)


def weights_alone(model: nn.Module) -> Optimizer:
    """A filter by name for decay, and the biases and norms were never given to a second group."""
    return Adam([p for name, p in model.named_parameters() if p.ndim > 1], 2e-3, weight_decay=1e-4)


def body_at_zero(model: nn.Module) -> Optimizer:
    """The body's rate is the head's times a factor that is 0 in whole-number division."""
    head = last_linear(model)
    body = [p for m in model.children() if m is not head for p in m.parameters()]
    lr = 0.003
    groups: list[dict[str, Any]] = [{"params": body, "lr": lr * (1 // 10)}, {"params": head.parameters()}]
    return SGD(groups, lr, momentum=0.9)


def first_group_only(model: nn.Module) -> Optimizer:
    """The second half of the layers' list was cut off by a slice."""
    parameters = list(model.parameters())
    return RMSprop(parameters[: len(parameters) // 2], 1e-3)


class Detached(Functional):
    """detach(), from when the features were drawn."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).detach()
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class WithoutGradient(ResNet):
    """torch.no_grad() around the body, from the evaluation script."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = F.relu(self.bn(self.stem(x)))
            x = self.layer2(self.layer1(x))
        return self.fc(self.layer3(x).mean((2, 3)))


class ThroughNumpy(nn.Module):
    """A pool written in numpy: the gradient ends there."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.detach().numpy()
        n, c, h, w = pixels.shape
        return torch.from_numpy(np.ascontiguousarray(pixels.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))))


def pool_in_numpy(model: nn.Module) -> nn.Module:
    layers = list(model.children())
    second = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)][1]
    layers[second] = ThroughNumpy()
    return nn.Sequential(*layers)


class Rounded(nn.Module):
    """Eight-bit features by round(), whose slope is 0 everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 16).round() / 16


def rounded_features(model: nn.Module) -> nn.Module:
    layers = list(model.children())
    return nn.Sequential(*layers[:-1], Rounded(), layers[-1])


class ClosedGate(ResNet):
    """The gate of the second block is the number 0.0: it was to be a parameter that begins there."""

    gate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = self.layer1(x)
        x = self.layer2.shortcut(x) + self.gate * self.layer2(x)
        return self.fc(self.layer3(x).mean((2, 3)))


class UnusedBlock(nn.Module):
    """A layer is made and never called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(model.children())
        self.refine = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class ResetBeforeTheStep(Loop):
    """zero_grad() stands between backward() and step()."""

    def update(self) -> None:
        self.optimizer.zero_grad()
        super().update()


def cases() -> list[Case]:
    def frozen(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("frozen-parameters", title, setting, **mistake)

    rgb = replace(s.FUNCTIONAL_RMSPROP, lr=5e-4)
    return [
        frozen("head replaced after the optimizer was made", s.SQUEEZENET_ADAM, optimizer=head_made_afterwards),
        frozen("weights drawn after the optimizer was made", s.LENET_SGD, optimizer=weights_drawn_afterwards),
        frozen("optimizer overwritten in a loop over the layers", s.VGG_ADAM, optimizer=last_of_the_loop),
        frozen("only the head given to the optimizer", s.RESNET_ADAMW, optimizer=head_alone),
        frozen("only the convolutions given", s.FUNCTIONAL_NESTEROV, optimizer=convolutions_alone),
        frozen("biases and norms in no group", s.VGG_BN_ADAM, optimizer=weights_alone),
        frozen("rate of the body 0", s.VGG_MOMENTUM, optimizer=body_at_zero),
        frozen("half of the list given", s.MLP_RMSPROP, optimizer=first_group_only),
        frozen("detach() in the forward pass", rgb, network=Detached),
        frozen("detach() in the forward pass", s.FUNCTIONAL_ADAM, network=Detached),
        frozen("no_grad() around the body", s.RESNET_MOMENTUM, network=WithoutGradient),
        frozen("a pool in numpy", s.VGG_SGD, change=pool_in_numpy),
        frozen("round() in the forward pass", s.TANH_MLP_SGD, change=rounded_features),
        frozen("a gate that is no parameter", s.RESNET_RMSPROP, network=ClosedGate),
        frozen("a block that is never called", s.VGG_BN_NESTEROV, change=UnusedBlock),
        frozen("zero_grad between backward and step", s.LENET_ADAM, loop=ResetBeforeTheStep),
        frozen("zero_grad between backward and step", s.TANH_MOMENTUM, loop=ResetBeforeTheStep),
    ]

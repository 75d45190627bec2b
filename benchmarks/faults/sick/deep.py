"""Where signals end within the network: `vanishing-gradient`, `dead-relu`, `saturated`."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faults.case import Case
from faults.loop import Loop
from faults.networks import Functional, he, mlp, vgg, xavier
from faults.sick import settings as s
from faults.sick.plant import plant, rows_of

# ---- vanishing-gradient ------------------------------------------------------------------------------------


def deep_mlp(channels: int, size: int, classes: int, act: type = nn.ReLU, depth: int = 10) -> nn.Module:
    return he(mlp(channels, size, classes, act=act, hidden=(64,) * depth))


def sigmoid_mlp(channels: int, size: int, classes: int) -> nn.Module:
    """Sigmoid in every layer, as in the oldest lesson, and ten of them; weights as Xavier wants them."""
    return xavier(deep_mlp(channels, size, classes, nn.Sigmoid))


def hidden_softmax(channels: int, size: int, classes: int) -> nn.Module:
    """Softmax between the layers: each answer is near 1/64 and its slope near 0."""

    class Shares(nn.Softmax):
        def __init__(self) -> None:
            super().__init__(dim=1)

    return mlp(channels, size, classes, act=Shares, hidden=(64,) * 3)


def gelu_tower(channels: int, size: int, classes: int) -> nn.Module:
    return mlp(channels, size, classes, act=nn.GELU, hidden=(64,) * 14)


def tower(channels: int, size: int, classes: int) -> nn.Module:
    return mlp(channels, size, classes, hidden=(64,) * 16)


def gelu_pair(channels: int, size: int, classes: int) -> nn.Module:
    return mlp(channels, size, classes, act=nn.GELU, hidden=(64,) * 2)


def sigmoid_convolutions(channels: int, size: int, classes: int) -> nn.Module:
    """Eight convolutions and a sigmoid behind each."""
    layers: list[nn.Module] = []
    for place in range(8):
        layers += [nn.Conv2d(16 if place else channels, 16, 3, 2 if place in (1, 4) else 1, 1), nn.Sigmoid()]
    return xavier(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, classes)))


class SigmoidFunctional(nn.Module):
    """torch.sigmoid in the forward pass, six layers deep."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels * size * size, 64)
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(7))
        self.head = nn.Linear(64, classes)
        xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.first(x.flatten(1)))
        for layer in self.layers:
            x = torch.sigmoid(layer(x))
        return self.head(x)


class MostlyDetached(nn.Module):
    """Features mixed with a detached copy of themselves, to calm them: a tenth of the gradient is left."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.1 * x + 0.9 * x.detach()


def mixed_with_copies(model: nn.Module) -> nn.Module:
    layers: list[nn.Module] = []
    for layer in model.children():
        layers += [layer, MostlyDetached()] if isinstance(layer, nn.ReLU | nn.Tanh) else [layer]
    return nn.Sequential(*layers)


class Averaged(nn.Module):
    """Means over three pixels and channels after each convolution, meant against noise, and a factor for safety."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.05 * F.avg_pool2d(x, 3, 1, 1)


def smoothed_maps(model: nn.Module) -> nn.Module:
    layers: list[nn.Module] = []
    for layer in model.children():
        layers += [layer, Averaged()] if isinstance(layer, nn.ReLU) and len(layers) < 12 else [layer]
    return nn.Sequential(*layers)


def hard_sigmoids(channels: int, size: int, classes: int) -> nn.Module:
    return xavier(mlp(channels, size, classes, act=nn.Hardsigmoid, hidden=(64,) * 7))


def cases_of_vanishing() -> list[Case]:
    def vanishing(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("vanishing-gradient", title, setting, **mistake)

    return [
        vanishing("ten layers of sigmoid", replace(s.MLP_SGD, network=deep_mlp, lr=0.02), network=sigmoid_mlp),
        vanishing("ten layers of sigmoid", replace(s.MLP_ADAM, network=deep_mlp), network=sigmoid_mlp),
        vanishing("softmax between the layers", s.MLP_RMSPROP, network=hidden_softmax),
        vanishing("fourteen layers without a norm", replace(s.GELU_MLP_ADAMW, network=gelu_pair), network=gelu_tower),
        vanishing("eight convolutions with sigmoid", s.VGG_MOMENTUM, network=sigmoid_convolutions),
        vanishing("sigmoid in the forward pass, eight times", s.FUNCTIONAL_NESTEROV, network=SigmoidFunctional),
        vanishing("maps averaged and scaled down", s.VGG_SGD, change=smoothed_maps),
        vanishing("features mixed with detached copies", s.VGG_SGD, change=mixed_with_copies),
        vanishing("features mixed with detached copies", s.LENET_SGD, change=mixed_with_copies),
        vanishing("sixteen layers as torch draws them", replace(s.MLP_SGD, network=deep_mlp, lr=0.02), network=tower),
        vanishing("seven layers of hard sigmoid", s.TANH_MLP_SGD, network=hard_sigmoids),
    ]


# ---- dead-relu ---------------------------------------------------------------------------------------------


def negative_weights(model: nn.Module) -> None:
    """uniform_(-0.1, 0): the upper end was forgotten. Behind a ReLU nothing is negative, so all sums are."""
    for layer in rows_of(model, (nn.Conv2d, nn.Linear))[1:-1]:
        nn.init.uniform_(layer.weight, -0.1, 0.0)


def mean_for_deviation(model: nn.Module) -> None:
    """normal_(weight, -0.05): mean and deviation were confused, with a minus."""
    for layer in rows_of(model, nn.Linear)[:-1]:
        nn.init.normal_(layer.weight, -0.05, 0.02)


def low_biases(model: nn.Module) -> None:
    """The prior for rare positives, given to every layer."""
    for layer in rows_of(model, (nn.Conv2d, nn.Linear))[:-1]:
        nn.init.constant_(layer.bias, -4.6)


def low_norms(model: nn.Module) -> None:
    """constant_(bias, -4) on the norms."""
    for layer in rows_of(model, nn.BatchNorm2d):
        nn.init.constant_(layer.bias, -4.0)


class Negated(nn.Module):
    """The loss of an older net was negative likelihood, and its minus sign stayed in the body."""

    def forward(self, x: Tensor) -> Tensor:
        return -x


def negated_before_relu(model: nn.Module) -> nn.Module:
    layers = list(model.children())
    place = [i for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)][2]
    return nn.Sequential(*layers[:place], nn.ReLU(), Negated(), *layers[place:])


class ReluTwice(Functional):
    """relu(-relu(x)) in the forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(-F.relu(self.conv2(x))).flatten(1)
        x = F.max_pool1d(x.unsqueeze(1), 4).squeeze(1)
        return self.fc2(F.relu(self.fc1(x)))


def high_threshold(model: nn.Module) -> nn.Module:
    """Threshold(8, 0) for ReLU: active above eight only."""
    return nn.Sequential(
        *(nn.Threshold(8.0, 0.0) if isinstance(layer, nn.ReLU) else layer for layer in model.children())
    )


def warm_up_backwards(progress: float) -> float:
    """From two hundred times the rate down to the rate, in the first twentieth."""
    return 1 + 200 * max(0.0, 1 - progress / 0.05)


class FirstBatchesRaw(Loop):
    """The first batches came before the mean and deviation were known, at 60 times their size."""

    def prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return (x * 60, y) if self.step < 3 else (x, y)


class Sparse(Loop):
    """A penalty on activity that is a hundred times too strong."""

    def begin_training(self) -> None:
        super().begin_training()
        if not hasattr(self, "active"):
            self.active: list[Tensor] = []
            for layer in rows_of(self.model, nn.ReLU):
                layer.register_forward_hook(lambda module, args, output: self.active.append(output.abs().mean()))

    def loss_of(self, answers: Tensor, targets: Tensor) -> Tensor:
        penalty = torch.stack(self.active).sum()
        return super().loss_of(answers, targets) + 20 * penalty

    def prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.active.clear()
        return super().prepare(x, y)


def cases_of_dead() -> list[Case]:
    def dead(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("dead-relu", title, setting, **mistake)

    return [
        dead("weights between -0.1 and 0", s.LENET_SGD, change=negative_weights),
        dead("weights between -0.1 and 0", s.VGG_MOMENTUM, change=negative_weights),
        dead("mean and deviation confused", s.MLP_ADAM, change=mean_for_deviation),
        dead("biases of -4.6 everywhere", s.VGG_ADAM, change=low_biases),
        dead("biases of -4.6 everywhere", s.FUNCTIONAL_ADAM, change=low_biases),
        dead("norms at -4", s.VGG_BN_SGD, change=low_norms),
        dead("a minus between two ReLUs", s.VGG_BN_ADAM, change=negated_before_relu),
        dead("relu(-relu(x))", s.FUNCTIONAL_RMSPROP, network=ReluTwice),
        dead("Threshold(8, 0)", s.LENET_ADAM, change=high_threshold),
        dead("warm-up from above", s.LENET_MOMENTUM, schedule=warm_up_backwards),
        dead("first batches not normalised", replace(s.VGG_BN_SGD, network="vgg", lr=0.02), loop=FirstBatchesRaw),
        dead("activity punished", s.VGG_ADAM, loop=Sparse),
    ]


# ---- saturated ---------------------------------------------------------------------------------------------


def unit_weights(model: nn.Module) -> None:
    """torch.randn for every weight."""
    for layer in rows_of(model, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(layer.weight)


def gain_of_ten(model: nn.Module) -> None:
    """The third argument was the gain, not the seed."""
    for layer in rows_of(model, (nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(layer.weight, 10.0)


def times_the_root(model: nn.Module) -> None:
    """Times the square root of the fan-in, where a division was meant."""
    for layer in rows_of(model, nn.Linear):
        nn.init.normal_(layer.weight, 0.0, layer.in_features**0.5 / 10)


def biases_of_five(model: nn.Module) -> None:
    for layer in rows_of(model, (nn.Conv2d, nn.Linear))[:-1]:
        nn.init.constant_(layer.bias, 5.0)


class Steep(nn.Tanh):
    """tanh(20 x): the slope of an older paper's unit."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(20 * x)


def steep_tanh(model: nn.Module) -> nn.Module:
    return nn.Sequential(*(Steep() if isinstance(layer, nn.Tanh) else layer for layer in model.children()))


class TanhFunctional(Functional):
    """torch.tanh in the forward pass. times: what its argument is multiplied by."""

    times = 1.0

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.tanh(self.times * self.conv1(x)), 2)
        x = F.max_pool2d(torch.tanh(self.times * self.conv2(x)), 2)
        return self.fc2(torch.tanh(self.times * self.fc1(x.flatten(1))))


class SteepFunctional(TanhFunctional):
    times = 30.0


def sigmoid_pair(channels: int, size: int, classes: int) -> nn.Module:
    return xavier(mlp(channels, size, classes, act=nn.Sigmoid))


def hardtanh_vgg(channels: int, size: int, classes: int) -> nn.Module:
    return xavier(vgg(channels, size, classes, act=nn.Hardtanh))


def sums_for_means(model: nn.Module) -> nn.Module:
    """Pools that add up where they should average."""
    return nn.Sequential(
        *(nn.AvgPool2d(2, divisor_override=1) if isinstance(m, nn.MaxPool2d) else m for m in model.children())
    )


def cases_of_saturated() -> list[Case]:
    def stuck(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("saturated", title, setting, **mistake)

    sigmoid = replace(s.MLP_ADAM, network=sigmoid_pair, lr=5e-4)
    hardtanh = replace(s.VGG_ADAM, network=hardtanh_vgg)
    functional = replace(s.FUNCTIONAL_NESTEROV, network=TanhFunctional)
    return [
        stuck("weights of deviation one", s.TANH_MLP_SGD, change=unit_weights),
        stuck("weights of deviation one", s.TANH_ADAM, change=unit_weights),
        stuck("a gain of ten", sigmoid, change=gain_of_ten),
        stuck("a gain of ten", s.TANH_MOMENTUM, change=gain_of_ten),
        stuck("a gain of ten", hardtanh, change=gain_of_ten),
        stuck(
            "times the root of the fan-in", replace(s.TANH_MLP_SGD, optimizer="Adam", lr=1e-3), change=times_the_root
        ),
        stuck("biases of five", s.TANH_MOMENTUM, change=biases_of_five),
        stuck("biases of five", replace(s.TANH_MLP_SGD, optimizer="RMSprop", lr=5e-4), change=biases_of_five),
        stuck("tanh(20 x)", replace(s.TANH_ADAM, optimizer="AdamW"), change=steep_tanh),
        stuck("tanh(30 x) in the forward pass", functional, network=SteepFunctional),
        stuck("sums where means were meant", s.TANH_MOMENTUM, change=sums_for_means),
    ]


def cases() -> list[Case]:
    return cases_of_vanishing() + cases_of_dead() + cases_of_saturated()

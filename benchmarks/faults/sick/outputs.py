"""What leaves the network: `double-softmax` and `constant-output`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faults.case import Case
from faults.data import Images, Tensors, channels_first, standardise
from faults.loop import Loop
from faults.networks import Functional, ResNet
from faults.sick import settings as s
from faults.sick.plant import Around, last_linear, plant

# ---- double-softmax ----------------------------------------------------------------------------------------


def softmax_appended(model: nn.Module) -> nn.Module:
    return nn.Sequential(*model.children(), nn.Softmax(dim=1))


def softmax_around(model: nn.Module) -> nn.Module:
    """A class for serving, with its softmax, trained as it is."""
    return Around(model, after=lambda answers: F.softmax(answers, dim=1))


def exponentials_by_hand(model: nn.Module) -> nn.Module:
    def shares(answers: Tensor) -> Tensor:
        e = (answers - answers.amax(1, keepdim=True)).exp()
        return e / e.sum(1, keepdim=True)

    return Around(model, after=shares)


def exp_of_log_softmax(model: nn.Module) -> nn.Module:
    return Around(model, after=lambda answers: F.log_softmax(answers, dim=-1).exp())


def warm_softmax(model: nn.Module) -> nn.Module:
    """With a temperature, from a distillation."""
    return Around(model, after=lambda answers: (answers / 2).softmax(-1))


def softmax_on_the_map(channels: int, size: int, classes: int) -> nn.Module:
    """All convolutions; the softmax is taken over the channels of a 1×1 map before it is flattened."""
    return nn.Sequential(
        nn.Conv2d(channels, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 48, 3, 2, 1), nn.BatchNorm2d(48), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Conv2d(48, classes, 2), nn.Softmax(dim=1), nn.Flatten(),
    )  # fmt: skip


def all_convolutions(channels: int, size: int, classes: int) -> nn.Module:
    layers = softmax_on_the_map(channels, size, classes).children()
    return nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Softmax)))


def smoothed(answers: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(answers, y, label_smoothing=0.1)


def softmax_before_the_loss(answers: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(F.softmax(answers, dim=1), y)


def cases_of_double_softmax() -> list[Case]:
    def double(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("double-softmax", title, setting, **mistake)

    convolutions = replace(s.VGG_BN_ADAM, network=all_convolutions)
    return [
        double("Softmax as the last layer", s.LENET_SGD, change=softmax_appended),
        double("Softmax as the last layer", s.MLP_RMSPROP, change=softmax_appended),
        double("Softmax as the last layer", s.VGG_BN_NESTEROV, change=softmax_appended),
        double("the serving class is trained", s.RESNET_MOMENTUM, change=softmax_around),
        double("the serving class is trained", s.SQUEEZENET_ADAM, change=softmax_around),
        double("exp over its sum", s.FUNCTIONAL_ADAM, change=exponentials_by_hand),
        double("exp over its sum", s.TANH_MOMENTUM, change=exponentials_by_hand),
        double("exp of log_softmax", s.GELU_MLP_ADAMW, change=exp_of_log_softmax),
        double("softmax with a temperature", s.VGG_ADAM, change=warm_softmax),
        double("softmax over a map's channels", convolutions, network=softmax_on_the_map),
        double("softmax and smoothed labels", replace(s.PLAIN_ADAM, loss=smoothed), change=softmax_around),
        double("softmax in the call of the loss", s.FUNCTIONAL_NESTEROV, loss=softmax_before_the_loss),
        double("softmax in the call of the loss", s.VGG_BN_ADAM, loss=softmax_before_the_loss),
    ]


# ---- constant-output ---------------------------------------------------------------------------------------


def zeros_from_debugging(model: nn.Module) -> nn.Module:
    """x = torch.zeros_like(x), from the time when a shape was looked for."""
    return Around(model, before=torch.zeros_like)


class FirstImageForAll(Loop):
    """x = images[0] where x = images[rows] was meant."""

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in super().batches(epoch):
            yield x[:1].expand_as(x), y

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in super().validation_batches():
            yield x[:1].expand_as(x), y


def whole_division(images: Images) -> Images:
    """pixels // 255 keeps nothing but pure white."""
    return replace(images, train=images.train // 255, validation=images.validation // 255)


def as_they_are(images: Images) -> Tensors:
    """No further scaling."""
    train, validation = channels_first(images.train), channels_first(images.validation)
    return replace(standardise(images), train=train, validation=validation)


def last_file_always(images: Images) -> Images:
    """Every reader closed over the same loop variable: all images are the last one."""
    train, validation = images.train.copy(), images.validation.copy()
    train[:], validation[:] = images.train[-1], images.train[-1]
    return replace(images, train=train, validation=validation)


class MeanOfTheBatch(ResNet):
    """The mean over the map took the batch with it."""

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        x = F.relu(self.bn(self.stem(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((0, 2, 3)).expand(n, -1))


class ExampleInput(nn.Module):
    """forward() reads the tensor that was kept for drawing the graph."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("example", torch.randn(1, *shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.example).expand(len(x), -1)


def example_input(model: nn.Module) -> nn.Module:
    return ExampleInput(model, (1, 28, 28))


class EmptyMask(Functional):
    """Features times an attention mask that nobody fills."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        mask = torch.zeros_like(x)
        return self.fc2(F.relu(self.fc1((x * mask).flatten(1))))


def weights_of_one_place(model: nn.Module) -> nn.Module:
    """Attention over an axis of size one: softmax makes every weight 1, and the weights replaced the features."""

    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x.unsqueeze(1), dim=1).squeeze(1)

    head = last_linear(model)
    return nn.Sequential(*list(model.children())[:-1], Attention(), head)


def norm_of_one_number(model: nn.Module) -> nn.Module:
    """GroupNorm with a group for each channel, behind the pool: every number less itself."""
    layers = list(model.children())
    return nn.Sequential(*layers[:-2], nn.GroupNorm(64, 64), *layers[-2:])


class StreamedNorm(nn.Module):
    """Divides by a running maximum that was begun at 1e12, not at 1e-12."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.abs().amax().clamp_min(1e12)


def squashed(model: nn.Module) -> nn.Module:
    return nn.Sequential(StreamedNorm(), model)


def cut_at_zero(model: nn.Module) -> nn.Module:
    """clamp(max=0) for clamp(min=0), behind a ReLU."""

    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.clamp(max=0)

    layers = list(model.children())
    return nn.Sequential(*layers[:-1], Cut(), layers[-1])


def cases_of_constant_output() -> list[Case]:
    def constant(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("constant-output", title, setting, **mistake)

    return [
        constant("zeros left from debugging", s.LENET_SGD, change=zeros_from_debugging),
        constant("images[0] for images[rows]", s.GELU_MLP_ADAMW, loop=FirstImageForAll),
        constant("images[0] for images[rows]", s.VGG_MOMENTUM, loop=FirstImageForAll),
        constant("pixels // 255", s.LENET_MOMENTUM, images=whole_division, tensors=as_they_are),
        constant("every reader opens the last file", s.VGG_BN_ADAM, images=last_file_always),
        constant("every reader opens the last file", s.TANH_MLP_SGD, images=last_file_always),
        constant("mean over the batch", s.RESNET_ADAMW, network=MeanOfTheBatch),
        constant("forward reads the example", s.MLP_ADAM, change=example_input),
        constant("a mask of zeros", s.FUNCTIONAL_NESTEROV, network=EmptyMask),
        constant("softmax over one place", s.GELU_ADAMW, change=weights_of_one_place),
        constant("GroupNorm of single numbers", s.PLAIN_ADAM, change=norm_of_one_number),
        constant("divided by 1e12", s.VGG_ADAM, change=squashed),
        constant("clamp at the wrong side", s.VGG_SGD, change=cut_at_zero),
        constant("weight decay 5 for 5e-4", s.TANH_MOMENTUM, decay=5.0),
        constant("weight decay 100", s.FUNCTIONAL_ADAM, optimizer="AdamW", decay=100.0),
    ]


def cases() -> list[Case]:
    return cases_of_double_softmax() + cases_of_constant_output()

"""The gradient check passes on what torch and wellfit hold, and catches gradients that are wrong on purpose."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import wellfit
from tests.checks.conftest import fingerprint, small_convnet
from wellfit.checks import run_gates
from wellfit.checks.gradients import gradient_check, gradients_agree
from wellfit.errors import UserError
from wellfit.models.layers.activations import ACTIVATIONS, build_activation
from wellfit.models.layers.dropout import VanillaDropout, drop_connect
from wellfit.models.layers.normalization import NORMALIZATIONS, build_normalization
from wellfit.models.layers.pooling import FractionalMaxPool
from wellfit.models.layers.stochastic_depth import skipping
from wellfit.models.zoo import build
from wellfit.training.regularize import build_criterion, elastic_net, l1, l2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


LAYERS = {
    "linear": (nn.Linear(5, 3), normal(4, 5)),
    "convolution": (nn.Conv2d(2, 3, 3, stride=2, padding=1), normal(2, 2, 7, 7)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, dilation=2), normal(2, 4, 6, 6)),
    "batch norm": (nn.BatchNorm2d(3), normal(4, 3, 3, 3)),
    "batch norm, evaluation": (nn.BatchNorm2d(3).eval(), normal(4, 3, 3, 3)),
    "layer norm": (nn.LayerNorm(6), normal(4, 6)),
    "group norm": (nn.GroupNorm(2, 4), normal(2, 4, 3, 3)),
    "instance norm": (nn.InstanceNorm2d(3, affine=True), normal(2, 3, 4, 4)),
    "local response": (nn.LocalResponseNorm(3), normal(2, 5, 3, 3)),
    "max pooling": (nn.MaxPool2d(3, 2), normal(2, 2, 7, 7)),
    "average pooling": (nn.AvgPool2d(2), normal(2, 2, 6, 6)),
    "adaptive pooling": (nn.AdaptiveAvgPool2d(2), normal(2, 2, 5, 5)),
    "relu": (nn.ReLU(), normal(3, 4)),
    "leaky relu": (nn.LeakyReLU(), normal(3, 4)),
    "prelu": (nn.PReLU(4), normal(3, 4)),
    "elu": (nn.ELU(), normal(3, 4)),
    "selu": (nn.SELU(), normal(3, 4)),
    "gelu": (nn.GELU(), normal(3, 4)),
    "silu": (nn.SiLU(), normal(3, 4)),
    "mish": (nn.Mish(), normal(3, 4)),
    "sigmoid": (nn.Sigmoid(), normal(3, 4)),
    "tanh": (nn.Tanh(), normal(3, 4)),
    "dropout, evaluation": (nn.Dropout(0.5).eval(), normal(3, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_entry_of_torchs_layers(name: str) -> None:
    layer, inputs = LAYERS[name]
    result = gradient_check(layer, inputs, every_entry=True)
    assert result.passed, result.message
    entries = sum(p.numel() for p in layer.parameters()) + inputs.numel()
    assert result.checked == entries
    assert result.set_aside == 0
    assert result.worst is not None
    assert result.worst.relative_error < 1e-6


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_entry_of_our_activations(name: str) -> None:
    result = gradient_check(build_activation(name), normal(3, 4, 2), every_entry=True)
    assert result.passed, result.message
    assert result.set_aside == 0


@pytest.mark.parametrize("name", sorted(NORMALIZATIONS))
def test_every_entry_of_our_normalizations(name: str) -> None:
    result = gradient_check(build_normalization(name, 4), normal(3, 4, 3, 3), every_entry=True)
    assert result.passed, result.message
    assert result.set_aside == 0


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (VanillaDropout(0.5), normal(3, 4)),
        (drop_connect(nn.Linear(4, 3), 0.5), normal(3, 4)),
        (drop_connect(nn.Conv2d(2, 3, 3), 0.5), normal(2, 2, 4, 4)),
        (FractionalMaxPool(1.4, draws=3), normal(2, 2, 7, 7)),
        (skipping(0.5), normal(3, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_entry_of_our_random_layers_at_test_and_a_refusal_in_training(layer: nn.Module, inputs: Tensor) -> None:
    result = gradient_check(layer.eval(), inputs, every_entry=True)
    assert result.passed, result.message
    assert result.set_aside == 0
    with pytest.raises(UserError, match="forward pass that repeats itself"):
        gradient_check(layer.train(), inputs)


TARGETS = torch.tensor([0, 2, 1, 2])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cross-entropy", {}),
        ("cross-entropy", {"label_smoothing": 0.1, "class_weights": [1.0, 2.0, 0.5]}),
        ("hinge", {}),
        ("hinge", {"class_weights": [1.0, 2.0, 0.5]}),
    ],
)
def test_losses_by_entries(name: str, options: dict) -> None:
    result = gradient_check(build_criterion(name, **options), (normal(4, 3), TARGETS), every_entry=True)
    assert result.passed, result.message
    assert result.checked == 12


@pytest.mark.parametrize("penalty", [l2(0.1), l2(0.1, half=True), l1(0.1), elastic_net(0.1, 0.5)])
def test_penalties_by_entries(penalty) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    result = gradient_check(penalty, net, every_entry=True)
    assert result.passed, result.message
    assert result.checked == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(("name", "size"), [("lenet5", 28), ("whitened", 16), ("resnet20", 16)])
def test_own_networks(name: str, size: int, mode: str) -> None:
    net = build(name, 4, image_size=size, **({"widths": [8, 8, 16]} if name == "whitened" else {})).module
    result = gradient_check(net.train(mode == "train"), normal(3, 3, size, size))
    assert result.passed, result.message
    assert result.checked >= len(list(net.parameters())) // 2


def test_a_resnet18_is_checked_by_directions_with_its_loss() -> None:
    net = build("resnet18", 10, image_size=64).module.eval()
    for layer in net.modules():  # a last BatchNorm that starts at 0 puts every unit behind it on its kink
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
    result = gradient_check(net, normal(1, 3, 16, 16))
    assert result.passed, result.message
    assert result.checked >= 50


# Wrong on purpose


def test_one_wrong_sign_is_found_and_named() -> None:
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(x, weight)
            return x @ weight.T

        @staticmethod
        def backward(ctx, slope):
            x, weight = ctx.saved_tensors
            of_weight = slope.T @ x
            of_weight[1, 2] *= -1
            return slope @ weight, of_weight

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(normal(3, 4))
            self.after = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.after(Product.apply(x, self.weight)).relu()

    for options in ({}, {"directions": 3}, {"every_entry": True}):
        result = gradient_check(Net(), normal(5, 4), **options)
        assert not result.passed
        assert result.worst is not None
        assert (result.worst.name, result.worst.index, result.worst.flat_index) == ("weight", (1, 2), 6)
        assert result.worst.analytic == pytest.approx(-result.worst.numeric, rel=1e-5)
        assert result.worst.relative_error == pytest.approx(2.0, rel=1e-5)
        assert result.finding is not None
        assert result.finding.id == "gradient-wrong"
        assert "weight[1, 2] (flat index 6)" in result.finding.message


class Scaled(torch.autograd.Function):
    """x·s, with a slope that lacks the factor s."""

    @staticmethod
    def forward(ctx, x, scale):
        return x * scale

    @staticmethod
    def backward(ctx, slope):
        return slope, None


def test_a_missing_factor_is_caught_and_sized() -> None:
    result = gradient_check(lambda x: Scaled.apply(x.sin(), 1.001).sum(), normal(4, 3))
    assert not result.passed
    assert result.worst is not None
    assert result.worst.name == "input"
    assert result.worst.numeric / result.worst.analytic == pytest.approx(1.001, rel=1e-6)


def test_a_detached_branch_is_caught() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept, self.cut = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.kept(x) + self.cut(x).detach()

    result = gradient_check(Net(), normal(3, 4))
    assert not result.passed
    assert result.worst is not None
    assert result.worst.name == "cut.weight"
    assert result.worst.analytic == 0.0
    everything = gradient_check(lambda x: x.detach().square().sum(), normal(3))
    assert not everything.passed


class FrozenStatistics(torch.autograd.Function):
    """Normalises by the batch, and takes mean and spread for constants on the way back, as evaluation mode would."""

    @staticmethod
    def forward(ctx, x):
        mean, std = x.mean(0), x.std(0, unbiased=False)
        ctx.save_for_backward(std)
        return (x - mean) / std

    @staticmethod
    def backward(ctx, slope):
        (std,) = ctx.saved_tensors
        return slope / std


def test_a_batch_norm_in_the_wrong_mode_is_caught() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.after(FrozenStatistics.apply(self.before(x)).tanh())

    result = gradient_check(Net(), normal(8, 4))
    assert not result.passed
    assert result.worst is not None
    assert result.worst.name.startswith("before")


# Kinks


def test_points_on_a_kink_are_set_aside_and_counted() -> None:
    inputs = torch.tensor([0.0, 1.0, -1.0, 0.0])
    result = gradient_check(nn.ReLU(), inputs, every_entry=True)
    assert result.passed
    assert (result.checked, result.set_aside) == (2, 2)
    nothing = gradient_check(nn.ReLU(), torch.zeros(3), every_entry=True)
    assert not nothing.passed
    assert nothing.finding is None
    assert nothing.undecided == ("input",)


@pytest.mark.parametrize("distance", [1e-5, 3e-7, 1e-7 / 3, 3e-9])
def test_a_kink_close_by_is_stepped_closer_to(distance: float) -> None:
    """|x| at a point whose kink lies within the first steps: a smaller step sees one side of it alone."""
    result = gradient_check(lambda x: (x - 1.0).abs().sum(), torch.tensor([1.0 + distance], dtype=torch.float64))
    assert result.passed
    assert result.checked == 1


def test_a_kink_does_not_hide_a_wrong_gradient_beside_it() -> None:
    def loss(x: Tensor) -> Tensor:
        return x.relu().sum() + Scaled.apply(x, 2.0).sum()

    result = gradient_check(loss, torch.tensor([0.0, 0.5, -0.5]), every_entry=True)
    assert not result.passed
    assert result.set_aside == 1
    assert result.worst is not None
    assert result.worst.flat_index == 1


# Nothing is changed, nothing is random


def test_the_network_and_the_generators_are_left_alone(lived_in) -> None:
    net, optimizer = lived_in
    before = fingerprint(net, optimizer)
    net_eval = [m for m in net.modules() if isinstance(m, nn.Dropout)]
    for layer in net_eval:
        layer.p = 0.0
    gradient_check(net, normal(4, 3, 16, 16))
    assert fingerprint(net, optimizer) == before


def test_running_statistics_are_put_back_between_passes() -> None:
    """A layer that normalises by its running statistics after it has updated them drifts from pass to pass."""

    class Running(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1)
            return (x - self.mean) * self.scale

    assert gradient_check(Running(), normal(4, 3)).passed


def test_the_same_seed_gives_the_same_result() -> None:
    net = small_convnet(classes=4)
    first, again = (gradient_check(net, normal(4, 3, 12, 12)) for _ in range(2))
    assert first == again
    assert gradient_check(net, normal(4, 3, 12, 12), seed=1) != first


def test_frozen_parameters_are_not_checked() -> None:
    net = nn.Linear(3, 2)
    net.weight.requires_grad_(False)
    assert gradient_check(net, normal(2, 3), every_entry=True).checked == 2 + 6


def test_gradients_that_are_zero_but_for_rounding_pass() -> None:
    """A bias in front of BatchNorm moves nothing."""
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh())
    result = gradient_check(net, normal(8, 4), every_entry=True)
    assert result.passed, result.message


def test_a_deadline_ends_it_unfinished() -> None:
    result = gradient_check(nn.Linear(3, 2), normal(2, 3), deadline=time.monotonic() - 1)
    assert not result.finished
    assert not result.passed
    assert result.finding is None


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().square()


class OwnTensor(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gradient_check(nn.Dropout(0.5), normal(4, 3)), "switch dropout and other random layers off"),
        (lambda: gradient_check(Half(), normal(4, 3)), "needs float64 from end to end, but Half gives float32"),
        (lambda: gradient_check(OwnTensor(), normal(4, 3)), "make new tensors with the input's dtype"),
        (lambda: gradient_check(nn.ReLU(), TARGETS), "got neither"),
        (lambda: gradient_check(nn.ReLU(), torch.tensor([math.inf])), "finite"),
        (lambda: gradient_check(nn.ReLU(), normal(3), directions=0), "directions from 1"),
    ],
)
def test_mistakes_are_one_sentence(call, words: str) -> None:
    with pytest.raises(UserError, match=words):
        call()


# The gate


class Cut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).detach().tanh().mean((2, 3)))


def test_the_gate_stops_at_a_detached_branch_and_passes_a_sound_network() -> None:
    wrong = gradients_agree(Cut(), normal(2, 3, 8, 8))
    assert wrong.stops
    assert wrong.value == pytest.approx(1.0)
    assert "first." in wrong.message
    sound = gradients_agree(small_convnet(classes=4, dropout=0.5), normal(2, 3, 16, 16))
    assert sound.passed
    assert sound.finished


def test_the_gate_leaves_undecided_what_it_cannot_judge() -> None:
    for layer, inputs in ((Half(), normal(2, 3)), (nn.ReLU(), torch.zeros(2, 3))):
        result = gradients_agree(layer, inputs)
        assert (result.passed, result.finished, result.stops, result.finding) == (False, False, False, None)
    late = gradients_agree(nn.Linear(3, 2), normal(2, 3), deadline=time.monotonic() - 1)
    assert (late.passed, late.finished) == (False, False)
    assert "the time was up" in late.message


def test_run_gates_checks_gradients_only_when_asked() -> None:
    net, images, targets = Cut(), normal(20, 3, 8, 8), torch.arange(20) % 3
    options = {
        "classes": 3,
        "created_head": False,
        "optimizer": lambda module, lr: torch.optim.SGD(module.parameters(), lr=lr),
        "max_steps": 2,
        "force": True,
    }
    asked = run_gates(net, functional.cross_entropy, images, targets, gradients=True, **options)
    assert "gradient-wrong" in {result.check for result in asked if result.stops}
    plain = run_gates(net, functional.cross_entropy, images, targets, **options)
    assert "gradient-wrong" not in {result.check for result in plain}


def test_it_is_exported() -> None:
    assert wellfit.gradient_check is gradient_check


def test_printed_it_is_one_sentence() -> None:
    found = gradient_check(nn.Linear(3, 2), torch.ones(4, 3, dtype=torch.float64))
    assert str(found) == found.message
    assert "slopes agree with differences" in str(found)


def test_only_what_can_be_called_is_checked() -> None:
    with pytest.raises(UserError, match="takes a module or a function of the inputs, got str"):
        gradient_check(cast(Callable[..., object], "net"), torch.ones(2))


class HalfLoss(torch.autograd.Function):
    """Squared scores of the right class; the gradient lacks its factor 2."""

    @staticmethod
    def forward(ctx, scores, targets):
        ctx.save_for_backward(scores, targets)
        return scores.gather(1, targets[:, None]).square().mean()

    @staticmethod
    def backward(ctx, g):
        scores, targets = ctx.saved_tensors
        chosen = scores * nn.functional.one_hot(targets, scores.shape[1])
        return g * chosen / len(scores), None


def test_the_gate_checks_the_loss_beside_the_network():
    net, images, targets = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.randn(4, 3, 2, 2), torch.arange(4) % 3
    sound = gradients_agree(net, images, targets, criterion=nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0])))
    assert sound.passed, sound.message
    wrong = gradients_agree(net, images, targets, criterion=HalfLoss.apply)
    assert not wrong.passed
    assert wrong.finding.id == "gradient-wrong"
    assert "Loss" in wrong.finding.message
    undecided = gradients_agree(net, images, targets, criterion=lambda s, t: s.float().square().mean())
    assert not undecided.finished
    assert undecided.finding is None


class Rounded(torch.autograd.Function):
    """Sixteenths, with the gradient of the identity (Bengio et al. 2013, the straight-through estimator)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return (16 * x).round() / 16

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


def test_a_network_that_rounds_passes_on_a_gradient_of_its_own_making() -> None:
    class Quantized(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, Rounded.apply(self.weight), self.bias)

    torch.manual_seed(0)
    result = gradient_check(nn.Sequential(Quantized(6, 4), nn.Linear(4, 2)), normal(5, 6))
    assert result.passed
    assert result.undecided == ("0.weight",)


def test_a_step_to_one_side_is_a_wrong_gradient_all_the_same() -> None:
    """What moves the loss at any distance is no rounding."""
    result = gradient_check(lambda x: (Rounded.apply(x) + 1e-3 * x).sum(), torch.full((3,), 0.1))
    assert not result.passed
    assert result.worst is not None
    assert result.worst.numeric == pytest.approx(1e-3, rel=1e-3)

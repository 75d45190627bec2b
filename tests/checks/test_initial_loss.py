"""SPEC C2: the figures of the taught network, both sides of the tolerance, foreign models."""

import math

import pytest
import torch
from torch import nn

from tests.checks.conftest import patterned, raw_pixels, small_convnet, two_layer
from wellfit.checks import initial_loss
from wellfit.training.regularize import build_criterion

CE = build_criterion("cross-entropy")


def test_the_taught_network_starts_at_230261():
    images, targets = raw_pixels(200)
    result = initial_loss(two_layer(), CE, images, targets, classes=10, created_head=True)
    assert result.passed
    assert result.finding is None
    assert result.value == pytest.approx(2.30261, abs=5e-5)
    assert result.expected == pytest.approx(2.302585, abs=1e-6)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (build_criterion("hinge"), 9.0),
        (build_criterion("cross-entropy", label_smoothing=0.1, class_weights=range(1, 11)), math.log(10)),
        (nn.CrossEntropyLoss(), math.log(10)),
        (nn.MultiMarginLoss(), 0.9),
    ],
)
def test_other_losses(criterion, expected):
    images, targets = raw_pixels(50)
    result = initial_loss(two_layer(), criterion, images, targets, classes=10, created_head=True)
    assert result.passed
    assert result.expected == pytest.approx(expected)
    assert result.value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("created_head", "scale", "severity", "passed"),
    [(True, 200, "error", False), (False, 200, "info", True), (False, 2000, "warning", True)],
)
def test_a_head_of_the_wrong_scale(created_head, scale, severity, passed):
    images, targets = patterned()
    net = small_convnet(classes=4)
    with torch.no_grad():
        net[-1].weight.mul_(scale)
    result = initial_loss(net, CE, images, targets, classes=4, created_head=created_head)
    assert (result.passed, result.finding.severity) == (passed, severity)
    assert result.value > 1.5 * math.log(4)
    assert f"{result.value:.5g}" in result.finding.message
    assert "lower the scale" in result.finding.action


def test_a_loss_far_below_chance_is_no_untrained_network():
    images, targets = patterned(4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    with torch.no_grad():
        flat = images.flatten(1)
        net[1].weight.copy_(torch.linalg.lstsq(flat, 20.0 * nn.functional.one_hot(targets, 4).float()).solution.T)
        net[1].bias.zero_()
    result = initial_loss(net, CE, images, targets, classes=4, created_head=True)
    assert not result.passed
    assert "has not seen these images" in result.finding.action


@pytest.mark.parametrize("created_head", [True, False])
def test_a_loss_that_is_no_number_is_refused_for_every_model(created_head):
    images, targets = patterned()
    images[0, 0, 0, 0] = math.nan
    result = initial_loss(small_convnet(classes=4), CE, images, targets, classes=4, created_head=created_head)
    assert not result.passed
    assert result.finding.severity == "error"
    assert math.isnan(result.value)


def test_a_loss_of_unknown_chance_is_only_read():
    images, targets = patterned()
    result = initial_loss(
        small_convnet(classes=4), lambda s, t: (s**2).mean(), images, targets, classes=4, created_head=True
    )
    assert result.passed
    assert result.expected is None
    assert "not known" in result.message


def test_dropout_is_off_batchnorm_is_on_and_auxiliary_heads_are_passed_over():
    images, targets = patterned()
    plain = initial_loss(small_convnet(classes=4), CE, images, targets, classes=4, created_head=True)
    noisy = initial_loss(small_convnet(classes=4, dropout=0.9), CE, images, targets, classes=4, created_head=True)
    assert plain.value == noisy.value

    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_convnet(classes=4)

        def forward(self, x):
            return self.net(x), torch.full((len(x), 4), math.nan)

    assert initial_loss(Auxiliary(), CE, images, targets, classes=4, created_head=True).value == plain.value


@pytest.mark.parametrize(
    ("criterion", "severity", "says"),
    [
        (nn.CrossEntropyLoss(reduction="sum"), "warning", "summed over the batch"),
        (lambda s, t: nn.functional.cross_entropy(s, t) / math.log(2), "warning", "in base 2"),
        (lambda s, t: nn.functional.cross_entropy(s, t) * 3, "warning", "3 times the cross-entropy"),
        (lambda s, t: nn.functional.cross_entropy(s, t) / 8, "info", "0.125 times"),
    ],
)
def test_a_multiple_of_a_known_loss_is_told(criterion, severity, says):
    images, targets = patterned(30)
    result = initial_loss(small_convnet(classes=4), criterion, images, targets, classes=4, created_head=False)
    assert result.passed
    assert result.finding.severity == severity
    assert says in result.finding.message


def rare_and_known(net, images):
    """Biases at the logarithm of the classes' shares, as is usual for rare classes."""
    with torch.no_grad():
        net[-1].weight.mul_(0.01)
        net[-1].bias.copy_(torch.tensor([0.94, 0.02, 0.02, 0.02]).log())
    return net


def test_biases_at_the_shares_of_the_classes_are_no_fault():
    images, _ = patterned(50)
    targets = torch.zeros(50, dtype=torch.long)
    targets[:3] = torch.tensor([1, 2, 3])
    net = rare_and_known(small_convnet(classes=4), images)
    result = initial_loss(net, CE, images, targets, classes=4, created_head=False)
    assert result.value < 0.5 * math.log(4)
    assert result.finding is None


def test_a_foreign_loss_that_guessing_cannot_reach_is_a_warning_and_a_trained_net_a_remark():
    images, targets = patterned(64)
    net = small_convnet(classes=4)
    wrong = initial_loss(net, nn.NLLLoss(), images, targets, classes=4, created_head=False)
    assert (wrong.finding.severity, wrong.passed) == ("warning", True)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        CE(net(images), targets).backward()
        optimizer.step()
    known = initial_loss(net, CE, images, targets, classes=4, created_head=False)
    assert known.finding.severity == "info"

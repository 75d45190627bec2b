"""SPEC C3: the taught figures, decay that reaches what it should, and decay wired wrongly."""

import pytest
import torch
from torch import nn

from tests.checks.conftest import patterned, raw_pixels, small_convnet, two_layer
from wellfit.checks import regularisation
from wellfit.training.optimizers import OPTIMIZERS, build_optimizer
from wellfit.training.regularize import build_criterion, l1, l2

CE = build_criterion("cross-entropy")


@pytest.mark.parametrize(("half", "raised"), [(True, 3.07), (False, 3.84)])
def test_the_taught_network_at_1e3(half, raised):
    images, targets = raw_pixels(100)
    result = regularisation(two_layer(), CE, images, targets, penalty=l2(1e-5, half=half))
    assert result.passed
    assert result.value == pytest.approx(raised, abs=0.01)
    assert result.expected == pytest.approx(2.30261, abs=5e-5)


def test_a_penalty_that_reaches_nothing_fails():
    net = two_layer()
    with torch.no_grad():
        net[1].weight.zero_()
        net[3].weight.zero_()
    result = regularisation(net, CE, *raw_pixels(), penalty=l1(0.1))
    assert not result.passed
    assert "does not raise" in result.finding.message


@pytest.mark.parametrize("decay", [1e-6, 1e-4, 0.05, 3.0])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_decays_exactly_what_is_meant(name, decay):
    net = small_convnet(classes=4)
    result = regularisation(
        net, CE, *patterned(), optimizer=lambda m: build_optimizer(name, m, lr=0.1, weight_decay=decay)
    )
    assert result.passed, result.message
    assert (result.value, result.expected) == (3.0, 3.0)


def test_frozen_weights_are_not_meant_to_decay():
    net = small_convnet(classes=4)
    net[0].weight.requires_grad_(False)
    result = regularisation(
        net, CE, *patterned(), optimizer=lambda m: build_optimizer("adamw", m, lr=0.1, weight_decay=0.01)
    )
    assert result.passed
    assert result.expected == 2.0


def wired_to_biases(net):
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    return torch.optim.AdamW([{"params": weights, "weight_decay": 0.0}, {"params": biases}], weight_decay=0.01)


def all_of_them(net):
    return torch.optim.AdamW(net.parameters(), weight_decay=0.01)


class HandedAnother:
    """Builds the optimizer for a network that is not the one trained."""

    def __init__(self):
        self.other = small_convnet(classes=4)

    def __call__(self, net):
        return torch.optim.SGD(self.other.parameters(), lr=0.1, weight_decay=0.01)


@pytest.mark.parametrize(
    ("builder", "missing", "extra"),
    [(wired_to_biases, 3, 4), (all_of_them, 0, 4), (HandedAnother(), 3, 0)],
)
def test_decay_wired_to_the_wrong_parameters_is_caught(builder, missing, extra):
    result = regularisation(small_convnet(classes=4), CE, *patterned(), optimizer=builder)
    assert not result.passed
    assert result.stops
    assert len(result.finding.evidence["not_shrunk"]) == missing
    assert len(result.finding.evidence["shrunk_by_mistake"]) == extra


def test_what_is_meant_can_be_said():
    net = small_convnet(classes=4)
    names = [name for name, _ in net.named_parameters()]
    assert regularisation(net, CE, *patterned(), optimizer=all_of_them, meant=names).passed


def test_nothing_asked_is_said_and_a_nan_loss_does_not_pass():
    net = small_convnet(classes=4)
    result = regularisation(net, CE, *patterned(), optimizer=lambda m: build_optimizer("adamw", m, lr=0.1))
    assert result.passed
    assert "nothing to check" in result.message
    assert result.value is None
    nan = regularisation(net, lambda s, t: s.sum() * float("nan"), *patterned(), penalty=l2(0.1))
    assert not nan.passed


def test_both_at_once():
    result = regularisation(
        nn.Sequential(nn.Flatten(), nn.Linear(768, 4)),
        CE,
        *patterned(),
        penalty=l2(1e-4),
        optimizer=lambda m: build_optimizer("momentum", m, lr=0.1, weight_decay=0.01),
    )
    assert result.passed
    assert "exactly the 1 parameters" in result.message
    assert "raises the loss" in result.message


def users(model, optimizer=None, penalty=None):
    images, targets = patterned(8)
    return regularisation(
        model, nn.CrossEntropyLoss(), images, targets, optimizer=optimizer, penalty=penalty, foreign=True
    )


def split_by(inside):
    def build(module):
        first = [p for n, p in module.named_parameters() if inside(n, p)]
        rest = [p for n, p in module.named_parameters() if not inside(n, p)]
        return torch.optim.AdamW([{"params": first, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], 1e-3)

    return build


@pytest.mark.parametrize(
    ("inside", "passed"),
    [
        (lambda n, p: True, True),
        (lambda n, p: p.ndim > 1, True),
        (lambda n, p: n.startswith("8."), True),  # the last layer alone, on purpose
        (lambda n, p: p.ndim <= 1, False),
        (lambda n, p: n.endswith("bias") or n == "0.weight", False),
        (lambda n, p: "kernel" in n, False),
    ],
)
def test_decay_as_users_give_it(inside, passed):
    result = users(small_convnet(classes=4), split_by(inside))
    assert result.passed is passed, result.message
    assert (result.finding is None) is passed


@pytest.mark.parametrize(
    ("penalty", "passed"),
    [
        (lambda m: 1e-3 * sum(p.square().sum() for p in m.parameters()), True),
        (lambda m: 1e-3 * sum(p.detach().square().sum() for p in m.parameters()), False),
        (lambda m: 1e-3 * sum(p.square().sum().item() for p in m.parameters()), False),
        (lambda m: torch.zeros((), requires_grad=True), False),
        (lambda m: 0, False),
        (lambda m: 1e-3 * torch.stack([p.sum() for p in m.parameters()]).sum() * torch.nan, False),
        (lambda m: 1e-3 * m[8].bias.square().sum() + 1e-3 * m[1].weight.square().sum(), False),
        (lambda m: 1e-3 * m[8].bias.square().sum(), False),
        (lambda m: 1e-3 * m[1].weight.abs().sum(), True),  # the scales of a norm alone, to thin it out
    ],
)
def test_penalties_as_users_write_them(penalty, passed):
    result = users(small_convnet(classes=4), penalty=penalty)
    assert result.passed is passed, result.message


def test_a_penalty_written_around_the_model_itself_is_understood():
    model = small_convnet(classes=4)
    assert users(model, penalty=lambda _: 1e-3 * model[0].weight.square().sum()).passed
    other = small_convnet(classes=4)
    assert not users(model, penalty=lambda _: 1e-3 * other[0].weight.square().sum()).passed


def test_a_penalty_that_begins_at_zero_is_asked_again_away_from_there():
    model = small_convnet(classes=4)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    near = users(model, penalty=lambda m: 1e-3 * sum((p - start[n]).square().sum() for n, p in m.named_parameters()))
    assert near.passed, near.message
    assert "once the weights have moved" in near.message
    around = users(model, penalty=lambda _: sum((p - start[n]).square().sum() for n, p in model.named_parameters()))
    assert around.passed, around.message
    assert all(torch.equal(p, start[n]) for n, p in model.named_parameters())
    # a limit that the weights keep is 0 a little further on, too
    limit = 2 * max(float(p.detach().norm()) for p in model.parameters())
    below = users(model, penalty=lambda m: sum((p.norm() - limit).clamp_min(0) for p in m.parameters()))
    assert below.passed, below.message
    elsewhere = small_convnet(classes=4)
    held = {name: p.detach().clone() for name, p in elsewhere.named_parameters()}
    other = users(model, penalty=lambda _: sum((p - held[n]).square().sum() for n, p in elsewhere.named_parameters()))
    assert not other.passed
    assert "no weight can lower" in other.message

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.head import classifier_of
from wellfit.models.init import INITIALISATIONS
from wellfit.models.stack import mlp, stack, two_layer
from wellfit.models.zoo import build


def test_a_stack_is_the_product_of_its_layers() -> None:
    net = stack((6, 5, 4), "tanh", classes=3, relu_bias=0.01, seed=2)
    x = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(0))
    first, second, last = (layer for layer in net if isinstance(layer, nn.Linear))
    hidden = torch.tanh(x.reshape(7, 6) @ first.weight.T + 0.01)
    hidden = torch.tanh(hidden @ second.weight.T + 0.01)
    assert torch.allclose(net(x), hidden @ last.weight.T, atol=1e-6)  # no bias where no ReLU follows


def test_without_classes_the_last_activation_comes_out() -> None:
    net = stack((6, 5), "relu", bias=False)
    assert [name for name, _ in net.named_parameters()] == ["linear1.weight"]
    assert net(torch.randn(9, 6)).min() == 0


def test_maxout_doubles_the_layer_in_front() -> None:
    net = stack((6, 5, 4), "maxout", classes=3)
    assert [tuple(p.shape) for p in net.parameters()] == [(10, 6), (10,), (8, 5), (8,), (3, 4), (3,)]
    assert net(torch.randn(2, 6)).shape == (2, 3)


@pytest.mark.parametrize("rule", INITIALISATIONS)
def test_each_rule_is_reached_by_its_name(rule: str) -> None:
    """On layers of 400 → 100 units the four rules have four different spreads (SPEC I1-I6, last line)."""
    spreads = {
        "kaiming": math.sqrt(2 / 400),
        "xavier": math.sqrt(1 / 400),
        "xavier_average": math.sqrt(2 / 500),
        "small_gaussian": 0.01,
    }
    built = build("mlp", 10, image_size=10, hidden=100, channels=4, initialisation=rule)
    assert built.module.linear1.weight.std().item() == pytest.approx(spreads[rule], rel=0.02)


def test_a_stack_that_is_not_square_tells_the_two_xaviers_apart() -> None:
    """tanh near 0 is linear: the 1/√fan_in form keeps the variance of each layer, the average form scales it."""
    x = 1e-3 * torch.randn(512, 1000, generator=torch.Generator().manual_seed(1))
    for rule, factor in (("xavier", 1.0), ("xavier_average", math.sqrt(2 * 1000 / (1000 + 250)))):
        net = stack((1000, 250), "tanh", initialisation=rule, bias=False, seed=4)
        assert (net(x).std() / x.std()).item() == pytest.approx(factor, rel=0.02)
    for rule, factor in (("xavier", 1.0), ("xavier_average", math.sqrt(2 * 250 / (1000 + 250)))):
        net = stack((250, 1000), "tanh", initialisation=rule, bias=False, seed=4)
        assert (net(x[:, :250]).std() / x[:, :250].std()).item() == pytest.approx(factor, rel=0.02)


def test_the_mlp_starts_at_log_c() -> None:
    net = mlp(10, image_size=8, seed=0, hidden=[32, 16], dropout=0.5).eval()
    images, targets = torch.randn(64, 3, 8, 8), torch.arange(64) % 10
    assert nn.functional.cross_entropy(net(images), targets).item() == pytest.approx(math.log(10), rel=0.02)
    assert sum(isinstance(layer, nn.Dropout) for layer in net) == 2
    name, layer = classifier_of(net)
    assert name == "fc"
    assert layer is net.fc


def test_the_two_layer_net_has_weights_of_the_spread_asked_for_in_both_layers() -> None:
    net = two_layer(10, image_size=32, seed=0)
    assert [tuple(p.shape) for p in net.parameters()] == [(50, 3072), (50,), (10, 50), (10,)]
    assert net.linear1.weight.std().item() == pytest.approx(1e-4, rel=0.02)
    assert net.fc.weight.std().item() == pytest.approx(1e-4, rel=0.1)
    assert not net.linear1.bias.any()
    wider = build("two_layer", 5, image_size=8, hidden=20, std=0.1, channels=1).module
    assert wider.linear1.weight.std().item() == pytest.approx(0.1, rel=0.06)


def test_what_makes_no_stack_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="at least one layer"):
        stack((5,))
    with pytest.raises(UserError, match="each at least 1, got \\[0\\]"):
        mlp(3, image_size=8, seed=0, hidden=[0])
    with pytest.raises(UserError, match="probability to drop"):
        stack((5, 5), dropout=1.0)
    with pytest.raises(UserError, match="did you mean 'relu'"):
        stack((5, 5), "rely")
    with pytest.raises(UserError, match="option of model 'two_layer'"):
        build("two_layer", 3, image_size=8, hiden=5)

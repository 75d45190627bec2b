from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models import init


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(400, 300))


@pytest.mark.parametrize(
    ("rule", "conv_std", "linear_std"),
    [
        ("kaiming", math.sqrt(2 / 144), math.sqrt(2 / 400)),
        ("xavier", math.sqrt(1 / 144), math.sqrt(1 / 400)),
        ("xavier_average", math.sqrt(2 / (144 + 576)), math.sqrt(2 / 700)),
        ("small_gaussian", 0.01, 0.01),
        ("small_gaussian=0.2", 0.2, 0.2),
    ],
)
def test_standard_deviation_follows_the_rule(rule: str, conv_std: float, linear_std: float) -> None:
    net = two_layers()
    init.initialise(net, 3, rule, relu_bias=0.01)
    assert net[0].weight.std().item() == pytest.approx(conv_std, rel=0.03)
    assert net[4].weight.std().item() == pytest.approx(linear_std, rel=0.03)
    assert net[4].weight.mean().item() == pytest.approx(0, abs=0.001)
    assert torch.all(net[0].bias == 0.01)
    assert torch.all(net[1].weight == 1)
    assert torch.all(net[1].bias == 0)


def test_a_kaiming_relu_stack_keeps_its_signal_and_a_small_gaussian_one_loses_it() -> None:
    def mean_square(rule: str) -> float:
        net = nn.Sequential(*[layer for _ in range(10) for layer in (nn.Linear(500, 500, bias=False), nn.ReLU())])
        init.initialise(net, 0, rule)
        x = torch.randn(256, 500, generator=torch.Generator().manual_seed(0))
        return net(x).square().mean().item()

    assert 0.5 < mean_square("kaiming") < 2
    assert mean_square("small_gaussian") < 1e-10


def test_a_layers_numbers_depend_on_its_name_and_the_seed_alone() -> None:
    first, longer, other = two_layers(), two_layers().append(nn.Linear(300, 5)), two_layers()
    init.kaiming(first, 1)
    torch.randn(10)
    init.kaiming(longer, 1)
    init.kaiming(other, 2)
    assert torch.equal(first[4].weight, longer[4].weight)
    assert not torch.equal(first[4].weight, other[4].weight)


def test_seeded_repeats_inside_and_changes_nothing_outside() -> None:
    def draws() -> tuple[float, float, float]:
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with init.seeded(0, "test"):
        inside = draws()
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()
    torch.rand(3)
    with init.seeded(0, "test"):
        assert draws() == inside
    with init.seeded(1, "test"):
        assert draws() != inside


def test_unknown_rules_are_the_users_mistake() -> None:
    with pytest.raises(UserError, match="did you mean 'kaiming'"):
        init.initialise(two_layers(), 0, "kaimin")
    with pytest.raises(UserError, match="only small_gaussian takes a number"):
        init.initialise(two_layers(), 0, "kaiming=2")
    with pytest.raises(UserError, match="is a number, got 'wide'"):
        init.initialise(two_layers(), 0, "small_gaussian=wide")
    with pytest.raises(UserError, match=r"at least 0, got -1\.0"):
        init.initialise(two_layers(), 0, "small_gaussian=-1")
    with pytest.raises(UserError, match="form is 'fan_in' or 'average'"):
        init.xavier(two_layers(), 0, form="both")

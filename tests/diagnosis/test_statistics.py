"""The tables I1-I6 of the courses, and what the tool promises of any network."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

import wellfit
from wellfit.diagnosis.statistics import ActivationStatistics, activation_statistics
from wellfit.errors import UserError
from wellfit.models.stack import stack


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ten_layers(activation: str, rule: str, seed: int) -> ActivationStatistics:
    """10 layers of 500 units on unit Gaussian inputs; the loss is a random projection, so every output pulls alike."""
    net = stack((500,) * 11, activation, initialisation=rule, bias=False, seed=seed)
    pull = normal(400, 500, seed=9)
    return activation_statistics(net, normal(400, 500, seed=seed), loss=lambda outputs: (outputs * pull).sum())


def column(statistics: ActivationStatistics, name: str) -> np.ndarray:
    return np.array([getattr(row, name) for row in statistics.layers], float)


@pytest.mark.parametrize("seed", [0, 1])
def test_i1_small_weights_collapse_and_the_gradient_with_them(seed: int) -> None:
    found = ten_layers("tanh", "small_gaussian=0.01", seed)
    std = column(found, "std")
    assert std[:5] == pytest.approx([0.213, 0.0476, 0.0106, 0.00238, 0.000532], rel=0.05)
    assert std[9] == pytest.approx(3e-7, rel=0.15)
    # Backwards each layer multiplies by 0.01·√500 = 0.224 as well.
    slope = column(found, "gradient_std")
    assert slope[:-1] / slope[1:] == pytest.approx([0.2236] * 9, rel=0.05)


@pytest.mark.parametrize("seed", [0, 1])
def test_i2_large_weights_saturate(seed: int) -> None:
    found = ten_layers("tanh", "small_gaussian=1.0", seed)
    assert column(found, "std") == pytest.approx([0.982] * 10, abs=0.003)
    assert np.abs(column(found, "mean")).max() < 0.02
    assert column(found, "saturated").min() > 0.9
    share_at_the_ends = [(row.counts[0] + row.counts[-1]) / row.counts.sum() for row in found.layers]
    assert min(share_at_the_ends) > 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_i3_xavier_keeps_tanh_alive(seed: int) -> None:
    found = ten_layers("tanh", "xavier", seed)
    taught = [0.628, 0.486, 0.408, 0.357, 0.321, 0.292, 0.273, 0.255, 0.239, 0.228]
    assert column(found, "std") == pytest.approx(taught, rel=0.04)
    slope = column(found, "gradient_std")
    assert slope.max() / slope.min() < 4  # neither vanishes nor explodes


@pytest.mark.parametrize("seed", [0, 1])
def test_i4_xavier_under_relu_halves_the_variance_at_each_layer(seed: int) -> None:
    found = ten_layers("relu", "xavier", seed)
    mean = [0.399, 0.272, 0.186, 0.136, 0.0996, 0.0722, 0.0498, 0.0351, 0.0254, 0.0184]
    std = [0.582, 0.404, 0.277, 0.199, 0.140, 0.103, 0.0727, 0.0516, 0.0386, 0.0261]
    assert column(found, "mean")[0] == pytest.approx(0.399, rel=0.02)
    assert column(found, "std")[0] == pytest.approx(0.584, rel=0.02)
    assert column(found, "mean") == pytest.approx(mean, rel=0.35)
    assert column(found, "std") == pytest.approx(std, rel=0.35)
    per_layer = (column(found, "std")[9] / column(found, "std")[0]) ** (1 / 9)
    assert per_layer == pytest.approx(math.sqrt(0.5), rel=0.05)


@pytest.mark.parametrize("seed", [0, 1])
def test_i5_kaiming_keeps_relu_level(seed: int) -> None:
    found = ten_layers("relu", "kaiming", seed)
    assert column(found, "mean")[0] == pytest.approx(math.sqrt(1 / math.pi), rel=0.02)  # 0.564
    assert column(found, "std")[0] == pytest.approx(math.sqrt(1 - 1 / math.pi), rel=0.02)  # 0.826
    assert column(found, "mean") == pytest.approx([0.56] * 10, rel=0.3)
    assert column(found, "std") == pytest.approx([0.83] * 10, rel=0.3)
    slope = column(found, "gradient_std")
    assert slope.max() / slope.min() < 1.5


def test_i6_wide_relu_layers_collapse_blow_up_or_stay_level() -> None:
    """6 layers of 4096, batch 16: each layer multiplies the size by std·√(4096/2)."""
    x = normal(16, 4096)
    layers: dict[str, np.ndarray] = {}
    net = stack((4096,) * 7, "relu", bias=False, seed=3)
    for rule, std in (("kaiming", math.sqrt(2 / 4096)), ("0.01", 0.01), ("0.05", 0.05)):
        for layer in net:
            if isinstance(layer, nn.Linear):  # the same draws, so that one net serves three times
                layer.weight.data *= std / layer.weight.data.std()
        found = activation_statistics(net, x)
        layers[rule] = column(found, "std")
    assert layers["kaiming"] == pytest.approx([0.826] * 6, rel=0.15)
    assert (np.diff(layers["0.01"]) < 0).all()
    assert layers["0.01"][5] / layers["0.01"][0] == pytest.approx((0.01 * math.sqrt(2048)) ** 5, rel=0.15)
    assert layers["0.01"][5] < 0.01
    assert layers["0.05"][5] / layers["0.05"][0] == pytest.approx((0.05 * math.sqrt(2048)) ** 5, rel=0.15)
    assert layers["0.05"][5] > 50


def test_every_figure_equals_the_one_taken_by_hand() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Sigmoid())
    x, targets = normal(6, 3), normal(6, 2, seed=1)
    found = activation_statistics(net, x, targets, lambda outputs, y: ((outputs - y) ** 2).sum())
    hidden = net[1](net[0](x)).detach().requires_grad_()
    outputs = net[3](net[2](hidden))
    outputs.retain_grad()
    loss = ((outputs - targets) ** 2).sum()
    loss.backward()
    assert found.loss == pytest.approx(loss.item())
    assert found.images == 6
    assert [(row.name, row.kind) for row in found.layers] == [("1", "relu"), ("3", "bounded")]
    for row, values in zip(found.layers, (hidden, outputs), strict=True):
        y, slope = values.detach().numpy(), values.grad.numpy()
        assert (row.mean, row.std) == pytest.approx((y.mean(), y.std()), rel=1e-5)
        expected = (slope.mean(), slope.std(), np.linalg.norm(slope))
        assert (row.gradient_mean, row.gradient_std, row.gradient_norm) == pytest.approx(expected, rel=1e-4)
        counts, _ = np.histogram(np.clip(y, row.low, row.high), bins=40, range=(row.low, row.high))
        assert row.counts.tolist() == counts.tolist()
    assert found.layers[0].dead == (hidden.detach().numpy().max(0) <= 0).mean()
    assert (found.layers[1].low, found.layers[1].high) == (0.0, 1.0)


def test_dead_means_inactive_on_all_of_the_batch() -> None:
    """Unit 0 fires on one image of four, unit 1 on none: one of two is dead, though three quarters of unit 0 are 0."""
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [1.0]]))
        net[0].bias.copy_(torch.tensor([-3.5, -9.0]))
    batch = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    assert activation_statistics(net, batch).layers[0].dead == 0.5
    assert activation_statistics(net, batch[:3]).layers[0].dead == 1.0


def test_a_sigmoid_is_saturated_near_its_own_ends() -> None:
    x = torch.tensor([[-20.0, 0.0, 20.0, 1.0]])
    row = activation_statistics(nn.Sequential(nn.Identity(), nn.Sigmoid()), x).layers[0]
    assert row.saturated == 0.5


def test_the_network_is_left_as_it_was() -> None:
    net = resnet18(num_classes=5).train()
    net.layer1.add_module("extra", nn.Dropout(0.5))
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    found = wellfit.activation_statistics(net, normal(4, 3, 32, 32), torch.arange(4))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert all(p.grad is None for name, p in net.named_parameters() if name != "fc.weight")
    assert torch.equal(net.fc.weight.grad, torch.ones_like(net.fc.weight))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    # 17 ReLUs in the order of the pass; a block's one module is called twice.
    assert [row.name for row in found.layers[:3]] == ["relu", "layer1.0.relu", "layer1.0.relu:2"]
    assert len(found.layers) == 17
    assert all(row.gradient_norm > 0 for row in found.layers)


def test_hooks_go_even_when_the_network_fails() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(UserError, match="does not take"):
        activation_statistics(net, torch.ones(2, 3))
    assert not net[1]._forward_hooks


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv2(functional.relu(self.conv1(x))))
        return self.fc(x.flatten(1))


def test_a_network_without_activation_modules_is_read_at_its_weight_layers() -> None:
    net, x = Functional(), normal(5, 3, 6, 6)
    found = activation_statistics(net, x, torch.tensor([0, 1, 0, 1, 0]))
    assert [row.name for row in found.layers] == ["input of conv2", "input of fc"]
    hidden = functional.relu(net.conv1(x))
    assert found.layers[0].mean == pytest.approx(hidden.mean().item(), rel=1e-5)
    assert all(row.gradient_norm is not None and row.gradient_norm > 0 for row in found.layers)


def test_frozen_weights_still_show_gradients_and_values_that_are_no_number_do_not_stop_it() -> None:
    net = stack((5, 4, 4), "relu", classes=3).requires_grad_(False)
    found = activation_statistics(net, normal(6, 5), torch.arange(6) % 3)
    assert found.layers[0].gradient_norm is not None
    net.linear2.weight.fill_(math.nan)
    broken = activation_statistics(net, normal(6, 5)).layers[1]
    assert math.isnan(broken.mean)
    assert broken.counts.sum() == 0


def test_the_table_holds_a_line_a_layer_and_the_gradients_only_where_taken() -> None:
    net = stack((5, 4, 4), "tanh", classes=3)
    lines = activation_statistics(net, normal(6, 5), torch.arange(6) % 3).table().splitlines()
    assert [line.split()[0] for line in lines] == ["layer", "activation1", "activation2"]
    assert lines[0].endswith("gradient norm")
    assert "gradient" not in activation_statistics(net, normal(6, 5)).table()


def test_what_cannot_be_measured_is_the_users_mistake() -> None:
    net = stack((5, 4), "relu", classes=3)
    with pytest.raises(UserError, match="one batch, a tensor of N×… inputs, got shape \\(0, 5\\)"):
        activation_statistics(net, torch.ones(0, 5))
    with pytest.raises(UserError, match="showed none"):
        activation_statistics(nn.Linear(5, 2), torch.ones(1, 5))
    with pytest.raises(UserError, match="a loss is one number, got shape \\(6, 3\\)"):
        activation_statistics(net, normal(6, 5), loss=lambda outputs: outputs)
    with pytest.raises(UserError, match="does not depend"):
        activation_statistics(net, normal(6, 5), loss=lambda outputs: torch.tensor(1.0))
    with pytest.raises(UserError, match="limits of a histogram rise"):
        activation_statistics(net, normal(6, 5), limits=(1.0, 1.0))


def test_printed_it_is_the_table() -> None:
    found = activation_statistics(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.ones(2, 3))
    assert str(found) == found.table()
    assert found.table().splitlines()[0].split()[:4] == ["layer", "kind", "mean", "std"]

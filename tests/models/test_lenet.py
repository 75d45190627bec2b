from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wellfit.errors import UserError
from wellfit.models.lenet import LeNet5, lenet5


def test_layer_table_of_1998() -> None:
    net = LeNet5(10, image_size=32, channels=1)
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    assert sizes["conv1.weight"] + sizes["conv1.bias"] == 156
    assert sizes["fc1.weight"] + sizes["fc1.bias"] == 48_120
    assert sizes["fc2.weight"] + sizes["fc2.bias"] == 10_164
    assert sum(sizes.values()) == 156 + (16 * 6 * 25 + 16) + 48_120 + 10_164 + 850


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("pooling", ["max", "average"])
def test_equals_the_same_net_written_with_functions(activation: str, pooling: str) -> None:
    net = lenet5(7, image_size=28, seed=0, channels=1, activation=activation, pooling=pooling)
    act = torch.relu if activation == "relu" else torch.tanh
    pool = F.max_pool2d if pooling == "max" else F.avg_pool2d
    x = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = pool(act(F.conv2d(x, net.conv1.weight, net.conv1.bias)), 2)
    y = pool(act(F.conv2d(y, net.conv2.weight, net.conv2.bias)), 2).flatten(1)
    y = act(y @ net.fc1.weight.T + net.fc1.bias)
    y = act(y @ net.fc2.weight.T + net.fc2.bias)
    torch.testing.assert_close(net(x), y @ net.fc3.weight.T + net.fc3.bias)


@pytest.mark.parametrize("size", [16, 17, 28, 33, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_takes_every_size_from_16(size: int, channels: int) -> None:
    net = lenet5(4, image_size=size, seed=0, channels=channels)
    assert net(torch.zeros(2, channels, size, size)).shape == (2, 4)


def test_tanh_starts_with_xavier() -> None:
    relu, tanh = (lenet5(10, image_size=32, seed=0, activation=a).fc1.weight for a in ("relu", "tanh"))
    torch.testing.assert_close(relu, tanh * 2**0.5)
    assert isinstance(lenet5(10, image_size=32, seed=0).pool, nn.MaxPool2d)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"image_size": 15}, "lenet5 takes images of at least 16 pixels, got 15"),
        ({"activation": "tanhh"}, "did you mean 'tanh'"),
        ({"pooling": "maxx"}, "did you mean 'max'"),
        ({"normalization": "batchnorm"}, "did you mean 'batch'"),
        ({"dropout_form": "vanila"}, "did you mean 'vanilla'"),
        ({"dropout": 1.0}, "dropout is the probability to drop.*got 1.0"),
        ({"drop_connect": "half"}, "drop_connect is the probability to drop.*got 'half'"),
        ({"pooling": "fractional", "pooling_ratio": 1.0}, "ratio above 1, and a ratio of 1.0"),
        ({"pooling": "max", "pooling_ratio": 1.5}, "for fractional pooling, got 1.5 with 'max'"),
    ],
)
def test_wrong_options_are_one_sentence(wrong: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        lenet5(10, seed=0, **{"image_size": 32, **wrong})


def test_fractional_pooling_shrinks_by_its_ratio_instead_of_halving() -> None:
    net = lenet5(10, image_size=32, seed=0, pooling="fractional")
    assert net.fc1.in_features == 16 * 10 * 10, "28 px become 19, 15 become 10"
    assert lenet5(10, image_size=32, seed=0, pooling="fractional", pooling_ratio=2).fc1.in_features == 16 * 5 * 5

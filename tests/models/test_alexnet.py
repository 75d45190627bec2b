from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from wellfit.errors import UserError
from wellfit.models.alexnet import HISTORICAL_CHOICES, PAPER, SMALLEST, AlexNet2012
from wellfit.models.catalogue import hollow_net
from wellfit.models.complexity import complexity
from wellfit.models.zoo import build

# SPEC A1, with the input of 227×227×3.
A1 = [
    ("Conv2d", [96, 55, 55]), ("MaxPool2d", [96, 27, 27]), ("LocalResponseNorm", [96, 27, 27]),
    ("Conv2d", [256, 27, 27]), ("MaxPool2d", [256, 13, 13]), ("LocalResponseNorm", [256, 13, 13]),
    ("Conv2d", [384, 13, 13]), ("Conv2d", [384, 13, 13]), ("Conv2d", [256, 13, 13]), ("MaxPool2d", [256, 6, 6]),
    ("Linear", [4096]), ("Linear", [4096]), ("Linear", [1000]),
]  # fmt: skip


@pytest.mark.parametrize("towers", [1, 2])
def test_a1_layer_by_layer(towers: int) -> None:
    table = complexity(hollow_net("alexnet2012", image_size=227, towers=towers), 227)
    layers = [layer for layer in table.layers if layer.type not in ("Input", "ReLU", "Dropout")]
    assert [(layer.type, layer.output_shape) for layer in layers] == A1


def test_parameters_by_hand() -> None:
    one, two = (complexity(hollow_net("alexnet2012", image_size=227, towers=t), 227) for t in (1, 2))
    convolutions = [96 * 363, 256 * 96 * 25, 384 * 256 * 9, 384 * 384 * 9, 256 * 384 * 9]
    dense = [4096 * 9216, 4096 * 4096, 1000 * 4096]
    biases = 96 + 256 + 384 + 384 + 256 + 4096 + 4096 + 1000
    assert one.parameters == sum(convolutions) + sum(dense) + biases == 62_378_344
    halves = [1, 2, 1, 2, 2]
    assert two.weights == sum(n // half for n, half in zip(convolutions, halves, strict=True)) + sum(dense)


def test_towers_do_not_see_each_other_but_in_the_third_convolution() -> None:
    net = AlexNet2012(5, image_size=67, towers=2).eval()
    maps = torch.randn(1, 96, 7, 7, generator=torch.Generator().manual_seed(0))
    changed = maps.clone()
    changed[:, 48:] += 1
    with torch.no_grad():
        same = (net.conv2(maps) == net.conv2(changed)).all((0, 2, 3))
    assert same[:128].all()
    assert not same[128:].any()
    assert net.conv3.groups == 1


def test_response_normalisation_is_the_papers() -> None:
    x = torch.randn(2, 96, 3, 3, generator=torch.Generator().manual_seed(0)) * 20
    squares = F.pad(x**2, (0, 0, 0, 0, 2, 2))
    expected = x / (2 + 1e-4 * sum(squares[:, i : i + 96] for i in range(5))) ** 0.75
    torch.testing.assert_close(PAPER.norm(96)(x), expected)


@pytest.mark.parametrize("size", [SMALLEST, 96, 224])
def test_other_sizes(size: int) -> None:
    net = hollow_net("alexnet2012", image_size=size, classes=7)
    assert complexity(net, size).layers[-1].output_shape == [7]


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"at least 67 pixels, got 66"):
        build("alexnet2012", 10, image_size=66)
    with pytest.raises(UserError, match="1 or 2 towers, got 3"):
        build("alexnet2012", 10, image_size=67, towers=3)
    with pytest.raises(UserError, match="did you mean 'towers'"):
        build("alexnet2012", 10, image_size=67, tower=2)


def test_names_beside_each_other() -> None:
    ours, theirs = (hollow_net(name, image_size=227) for name in ("alexnet2012", "alexnet"))
    assert ours.conv1.out_channels == 96
    assert theirs.features[0].out_channels == 64


@pytest.mark.parametrize("options", [{}, {"activation": "maxout", "normalization": "batch", "drop_connect": 0.5}])
def test_starts_at_log_c_and_follows_its_options(options: dict) -> None:
    net = build("alexnet2012", 10, image_size=67, channels=1, **options).module
    x = torch.randn(8, 1, 67, 67, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = F.cross_entropy(net.eval()(x), torch.arange(8))
    assert loss.item() == pytest.approx(2.3026, abs=0.15)
    F.cross_entropy(net.train()(x), torch.arange(8)).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_each_historical_choice_says_whether_it_holds_and_why() -> None:
    parts = {choice.part: choice for choice in HISTORICAL_CHOICES}
    for part in ("local response normalisation", "overlapping pooling", "two FC layers of 4096"):
        assert not parts[part].advised
    assert parts["ReLU"].advised
    for choice in HISTORICAL_CHOICES:
        assert choice.now.startswith("Use ") is not choice.advised

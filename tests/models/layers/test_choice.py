"""Our nets made of chosen layers: they run, start well, and keep their tensors' names."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torchvision
from torch import nn

from wellfit.errors import UserError
from wellfit.models import resnet
from wellfit.models.layers.activations import ACTIVATIONS, build_activation
from wellfit.models.layers.choice import LayerChoice
from wellfit.models.layers.normalization import NORMALIZATIONS
from wellfit.models.zoo import build

NOISE = {"dropout": 0.3, "drop_connect": 0.2}


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def starts_at_log_c_and_learns_everywhere(net: nn.Module, size: int) -> None:
    x, y = torch.randn(8, 3, size, size), torch.arange(8) % 4
    with torch.no_grad():
        assert float(nn.functional.cross_entropy(net.eval()(x), y)) == pytest.approx(math.log(4), rel=0.1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    reached = set()
    for _ in range(3):  # parts behind a zeroed scale get their first gradient once it has moved
        optimizer.zero_grad()
        nn.functional.cross_entropy(net.train()(x), y).backward()
        reached |= {name for name, p in net.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
        optimizer.step()
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())
    assert reached == {name for name, p in net.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["lenet5", "resnet20", "plain20", "whitened"])
def test_every_net_takes_every_activation(name: str, activation: str) -> None:
    options = {"widths": [8, 8, 8]} if name == "whitened" else {}
    net = build(name, 4, image_size=16, activation=activation, **options).module
    starts_at_log_c_and_learns_everywhere(net, 16)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_every_net_takes_every_normalisation_with_all_noise(name: str, normalization: str) -> None:
    skip = {"stochastic_depth": 0.2} if name == "resnet20" else {}
    starts_at_log_c_and_learns_everywhere(
        build(name, 4, image_size=16, normalization=normalization, **NOISE, **skip).module, 16
    )


def test_the_whitening_stem_with_maxout_gives_the_size_of_each_filters_response() -> None:
    net = build("whitened", 4, image_size=16, activation="maxout", widths=[8, 8, 8]).module
    x = torch.randn(4, 3, 16, 16)
    net.initialise_from_data(x)
    nn.init.zeros_(net.whiten.bias)
    torch.testing.assert_close(net.whiten_act(net.whiten(x)), net.whiten(x)[:, :12].abs())


@pytest.mark.parametrize("name", ["resnet50", "plain18"])
def test_photograph_nets_take_maxout_without_normalisation(name: str) -> None:
    with torch.device("meta"):
        block, depths = resnet.DEPTHS[50 if name == "resnet50" else 18]
        layers = LayerChoice("maxout", "none", 0.5, "vanilla", 0.5)
        net = resnet.ResNet(block, depths, 7, shortcut=name == "resnet50", layers=layers)
        assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    assert net.conv1.out_channels == 128
    assert net.conv1.bias is not None


@pytest.mark.parametrize("form", ["inverted", "vanilla"])
def test_noise_leaves_the_tensors_and_the_test_side_as_they_were(form: str) -> None:
    plain = build("resnet20", 10, image_size=32).module.eval()
    noisy = build("resnet20", 10, image_size=32, stochastic_depth=0.3, dropout_form=form, **NOISE).module.eval()
    assert list(plain.state_dict()) == list(noisy.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), noisy.state_dict().values(), strict=True))
    x = torch.randn(4, 3, 32, 32)
    factor = 1.0 if form == "inverted" else 0.7
    torch.testing.assert_close(noisy(x), factor * plain(x))
    noisy.train()
    assert not torch.equal(noisy(x), noisy(x))


def test_torchvisions_weights_load_into_a_net_with_noise() -> None:
    theirs = torchvision.models.resnet18(num_classes=5).eval()
    layers = LayerChoice(dropout=0.5, drop_connect=0.5, stochastic_depth=0.5)
    ours = resnet.ResNet(resnet.BasicBlock, (2, 2, 2, 2), 5, layers=layers).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 75, 75)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize(("activation", "normalization"), list(itertools.product(ACTIVATIONS, NORMALIZATIONS)))
def test_a_block_with_zero_weights_passes_its_input_to_the_last_activation(activation: str, normalization: str) -> None:
    layers = LayerChoice(activation, normalization, drop_connect=0.5, stochastic_depth=0.5)
    x = torch.rand(3, 8, 6, 6)
    after = nn.Identity() if activation == "maxout" else build_activation(activation)
    for make, training in itertools.product((resnet.BasicBlock, resnet.Bottleneck), (False, True)):
        block = make(8, 8 // make.expansion, 1, resnet.projection, layers, 0.5).train(training)
        layers.connect(block)
        for layer in block.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        torch.testing.assert_close(block(x), after(x), rtol=0, atol=0)
    if activation in ("relu", "leaky_relu", "prelu", "elu", "maxout"):
        assert torch.equal(after(x), x), "so on outputs of a ReLU it is the identity"


@pytest.mark.parametrize("normalization", ["none", "local_response", "group", "batch"])
def test_blocks_start_as_the_identity_whatever_the_normalisation(normalization: str) -> None:
    net = build("resnet20", 10, image_size=32, normalization=normalization).module.eval()
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(net.layer1(x), x)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"activation": "rellu"}, "did you mean 'relu'"),
        ({"normalization": "gruop"}, "did you mean 'group'"),
        ({"dropout_form": "inverted dropout"}, "did you mean 'inverted'"),
        ({"dropout": -1}, "dropout is the probability"),
        ({"drop_connect": 1}, "drop_connect is the probability"),
        ({"stochastic_depth": 1}, "stochastic_depth is the probability"),
    ],
)
def test_slips_are_one_sentence(wrong: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        LayerChoice(**wrong)

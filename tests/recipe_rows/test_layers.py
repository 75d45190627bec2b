"""SPEC N2 and N3: what the normalisation layers and dropout compute, against plain numpy."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

N, C, H, W, G = 6, 8, 5, 3, 4


def images(seed=0):
    return torch.randn(N, C, H, W, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 1


def normalised(x, axes, eps=1e-5):
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps), mean.shape


def in_groups(x):
    out, shape = normalised(x.reshape(N, G, C // G, H, W), (2, 3, 4))
    return out.reshape(x.shape), shape[:2]


@pytest.mark.parametrize(
    ("layer", "by_hand", "statistics"),
    [
        (nn.BatchNorm2d(C), lambda x: normalised(x, (0, 2, 3)), (1, C, 1, 1)),
        (nn.LayerNorm([C, H, W]), lambda x: normalised(x, (1, 2, 3)), (N, 1, 1, 1)),
        (nn.InstanceNorm2d(C), lambda x: normalised(x, (2, 3)), (N, C, 1, 1)),
        (nn.GroupNorm(G, C), in_groups, (N, G)),
    ],
)
def test_image_layers_take_their_statistics_over_these_axes(layer, by_hand, statistics):
    x = images()
    expected, shape = by_hand(x.numpy())
    assert shape == statistics
    np.testing.assert_allclose(layer.double()(x).detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_vector_layers_batchnorm_1_by_d_and_layernorm_n_by_1():
    x = images().reshape(N, -1)
    expected, shape = normalised(x.numpy(), (0,))
    assert shape == (1, x.shape[1])
    batch = nn.BatchNorm1d(x.shape[1]).double()
    np.testing.assert_allclose(batch(x).detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    assert batch.weight.shape == batch.bias.shape == batch.running_mean.shape == (x.shape[1],)
    expected, shape = normalised(x.numpy(), (1,))
    assert shape == (N, 1)
    layer = nn.LayerNorm(x.shape[1]).double()
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_group_norm_lies_between_layer_and_instance_norm():
    x = images()
    layer, instance = nn.LayerNorm([C, H, W]).double(), nn.InstanceNorm2d(C).double()
    torch.testing.assert_close(nn.GroupNorm(1, C).double()(x), layer(x))
    torch.testing.assert_close(nn.GroupNorm(C, C).double()(x), instance(x))


def test_batchnorm_recovers_the_identity_and_its_running_statistics_serve_at_test_time():
    x = images()
    layer = nn.BatchNorm2d(C, momentum=1.0).double()
    layer(x)
    torch.testing.assert_close(layer.running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(layer.running_var, x.var((0, 2, 3)), msg="running variance is the unbiased one")
    with torch.no_grad():
        layer.weight.copy_((x.var((0, 2, 3), unbiased=False) + layer.eps).sqrt())
        layer.bias.copy_(x.mean((0, 2, 3)))
    torch.testing.assert_close(layer.train()(x), x)


@pytest.mark.parametrize(
    ("layer", "differs"),
    [
        (nn.BatchNorm2d(C), True),
        (nn.LayerNorm([C, H, W]), False),
        (nn.InstanceNorm2d(C), False),
        (nn.GroupNorm(G, C), False),
        (nn.LocalResponseNorm(5), False),
    ],
)
def test_only_batchnorm_differs_between_training_and_test(layer, differs):
    layer, x = layer.double(), images()
    training = layer.train()(x)
    assert torch.allclose(training, layer.eval()(x)) is not differs
    alone = layer(x[:1])
    torch.testing.assert_close(alone, layer(x)[:1], msg="at test time an image does not depend on its batch")


def test_local_response_normalisation_of_alexnet():
    x = images().numpy()
    expected = np.empty_like(x)
    for channel in range(C):
        low, high = max(0, channel - 2), min(C, channel + 3)
        neighbours = (x[:, low:high] ** 2).sum(1)
        expected[:, channel] = x[:, channel] / (2.0 + 1e-4 * neighbours) ** 0.75
    # torch divides alpha by the size; the paper does not.
    layer = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
    np.testing.assert_allclose(layer(torch.tensor(x)).numpy(), expected, rtol=1e-10)


def final_loss(norm, scale, lr, steps=60):
    source = torch.Generator().manual_seed(0)
    layers = []
    for _ in range(6):
        linear = nn.Linear(32, 32, bias=False)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(32, 32, generator=source) * scale)
        layers += [linear, *([nn.BatchNorm1d(32)] if norm else []), nn.ReLU()]
    head = nn.Linear(32, 4)
    with torch.no_grad():
        head.weight.copy_(torch.randn(4, 32, generator=source) * 0.1)
        head.bias.zero_()
    net = nn.Sequential(*layers, head)
    x = torch.randn(128, 32, generator=source)
    y = x[:, :4].argmax(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize(("scale", "lr"), [(0.01, 0.1), (0.05, 0.1), (1.0, 0.5)])
def test_with_batchnorm_a_net_trains_where_without_it_it_does_not(scale, lr):
    assert final_loss(True, scale, lr) < 0.9 * math.log(4)
    without = final_loss(False, scale, lr)
    assert not without < 0.97 * math.log(4), "collapsed, or exploded into NaN"


def test_torchs_dropout_is_inverted_and_its_argument_the_drop_probability():
    layer, ones = nn.Dropout(0.2), torch.ones(100_000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = layer(ones)
    np.testing.assert_allclose(np.unique(out.numpy()), [0.0, 1.25])
    assert (out == 0).float().mean().item() == pytest.approx(0.2, abs=0.005)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(layer.eval()(ones), ones)


def test_a_4096_unit_layer_has_10_to_the_1233_masks():
    assert len(str(2**4096)) - 1 == 1233
    page = Path(__file__).parents[2] / "docs" / "gallery" / "regularisation" / "plot_dropout.py"
    assert "4,096 units has 2^4096, about 10^1233, masks" in page.read_text(encoding="utf-8")

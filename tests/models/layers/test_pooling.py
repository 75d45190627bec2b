from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.layers.pooling import FractionalMaxPool, build_pooling


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_max_and_average_of_the_taught_example() -> None:
    x = torch.tensor([[[[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]]])
    assert build_pooling("max", size=2, stride=2)(x)[0, 0].tolist() == [[6, 8], [3, 4]]
    assert build_pooling("average", size=2, stride=2)(x)[0, 0].tolist() == [[3.25, 5.25], [2, 2]]


def test_convolution_with_bias_and_fully_connected_by_hand() -> None:
    conv, fc = nn.Conv2d(1, 1, 2), nn.Linear(4, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[[1.0, -1], [2, 0.5]]]]))
        conv.bias.fill_(10)
        fc.weight.copy_(torch.tensor([[1.0, -1, 2, 0.5]]))
        fc.bias.fill_(10)
    x = torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])
    # Not flipped: 1·1 − 1·2 + 2·4 + 0.5·5 + 10 = 19.5, and 2.5 more for each step of one to the right.
    assert conv(x)[0, 0].tolist() == [[19.5, 22.0], [27.0, 29.5]]
    assert fc(x[0, 0, :2, :2].reshape(1, 4)).item() == 19.5


def starts(u: np.ndarray, side: int, out: int, width: int) -> np.ndarray:
    """Left ends of the regions for each random number, written from the rule: steps of (side − width)/(out − 1)."""
    alpha = (side - width) / (out - 1)
    i = np.arange(out - 1)
    left = np.floor((i + u[:, None]) * alpha) - np.floor(u[:, None] * alpha)
    return np.concatenate([left, np.full((len(u), 1), side - width)], 1).astype(int)


def exact_expectation(x: np.ndarray, out: int, width: int, grid: int = 120) -> np.ndarray:
    """Mean over a fine grid of both random numbers of the maxima over the regions."""
    u = (np.arange(grid) + 0.5) / grid
    windows = np.lib.stride_tricks.sliding_window_view(x, (width, width)).max((2, 3))
    left = starts(u, x.shape[0], out, width)
    return windows[left[:, None, :, None], left[None, :, None, :]].mean((0, 1))


@pytest.mark.parametrize("ratio", [1.25, math.sqrt(2), 1.7, 2.5])
def test_both_sides_tend_to_the_expectation_over_regions(ratio: float) -> None:
    side = 11
    x = torch.rand(side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pool = FractionalMaxPool(ratio, draws=3000)
    out = math.floor(side / ratio)
    expected = torch.from_numpy(exact_expectation(x.numpy(), out, pool.width))
    training = pool.train()(x.expand(1, 4000, side, side))[0]
    assert training.shape[1:] == (out, out)
    noise = 6 * training.std(0).clamp_min(0.01)
    assert float(training.std(0).max()) > 0.05, "regions are random in training"
    assert bool(((training.mean(0) - expected).abs() < noise / 4000**0.5 + 0.01).all())
    test_side = pool.eval()(x[None, None])[0, 0]
    assert bool(((test_side - expected).abs() < noise / 3000**0.5 + 0.01).all())


def test_more_draws_come_nearer() -> None:
    x = torch.rand(1, 1, 15, 15, generator=torch.Generator().manual_seed(0))
    far = FractionalMaxPool(draws=20_000, seed=9).eval()(x)
    errors = []
    for draws in (1, 16, 256):
        layers = [FractionalMaxPool(draws=draws, seed=seed).eval() for seed in range(12)]
        errors.append(np.mean([float((layer(x) - far).square().mean()) for layer in layers]))
    assert errors[0] > 6 * errors[1] > 36 * errors[2]


def test_the_test_side_is_a_function_of_image_and_seed_alone() -> None:
    x = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    layer = FractionalMaxPool(seed=3).eval()
    before = torch.random.get_rng_state()
    first = layer(x)
    assert torch.equal(before, torch.random.get_rng_state()), "no draw from torch's generator"
    torch.manual_seed(99)
    assert torch.equal(layer(x), first)
    assert torch.equal(FractionalMaxPool(seed=3).eval()(x), first)
    torch.testing.assert_close(layer(x[2:3]), first[2:3])
    assert not torch.equal(FractionalMaxPool(seed=4).eval()(x), first)
    other = FractionalMaxPool(seed=4).eval()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), first), "the regions are saved with the weights"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_keeps_the_type_and_passes_gradients(dtype: torch.dtype, training: bool) -> None:
    x = torch.rand(2, 3, 10, 8).to(dtype).requires_grad_()
    y = FractionalMaxPool(1.5).train(training)(x)
    assert y.shape == (2, 3, 6, 5)
    assert y.dtype == dtype
    y.float().sum().backward()
    # Each output passes on a gradient of 1, to one input or shared among the draws.
    assert float(x.grad.float().sum()) == pytest.approx(y.numel(), rel=0.02)


def test_under_autocast_both_sides_have_one_type() -> None:
    layer = FractionalMaxPool()
    with torch.autocast("cpu", torch.bfloat16):
        x = torch.rand(1, 2, 9, 9).bfloat16()
        assert layer.train()(x).dtype == layer.eval()(x).dtype


@pytest.mark.parametrize("side", range(2, 40))
@pytest.mark.parametrize("ratio", [1.01, 1.5, 2.0, 2.9, 4.0])
def test_every_map_of_one_region_or_more_is_pooled(side: int, ratio: float) -> None:
    layer = FractionalMaxPool(ratio, draws=2)
    if side < layer.width:
        with pytest.raises(UserError, match=f"at least {layer.width} pixels, got {side}"):
            layer(torch.zeros(1, 1, side, side))
        return
    out = max(1, math.floor(side / ratio))
    for training in (True, False):
        assert layer.train(training)(torch.zeros(1, 1, side, side)).shape == (1, 1, out, out)


@pytest.mark.parametrize("ratio", [1, 1.0, 0.5, -2, float("nan"), float("inf"), "two", True])
def test_a_ratio_of_1_or_less_is_one_sentence(ratio: object) -> None:
    with pytest.raises(UserError, match="fractional pooling shrinks maps by a ratio above 1"):
        build_pooling("fractional", ratio=ratio)


def test_other_slips_are_one_sentence() -> None:
    with pytest.raises(UserError, match="did you mean 'fractional'"):
        build_pooling("fractionl")
    with pytest.raises(UserError, match=r"for fractional pooling, got 1\.5 with 'average'"):
        build_pooling("average", ratio=1.5)
    with pytest.raises(UserError, match="at least 1 draw at test, got 0"):
        build_pooling("fractional", draws=0)

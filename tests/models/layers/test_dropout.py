from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.layers.dropout import VanillaDropout, build_dropout, connect_net, drop_connect


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


MASKS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)), dtype=torch.float64)
W, X = torch.tensor([0.7, -1.3], dtype=torch.float64), torch.tensor([2.0, 0.4], dtype=torch.float64)


def seen_of(layer: nn.Module, passes: int = 200) -> list[float]:
    """Distinct outputs of the two-input neuron over many training passes."""
    with torch.no_grad():
        return sorted({round(float(layer(X)), 9) for _ in range(passes)})


def rounded(values: torch.Tensor) -> list[float]:
    return sorted({round(float(value), 9) for value in values})


class Neuron(nn.Module):
    def __init__(self, dropout: nn.Module) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (W * self.dropout(x)).sum()


@pytest.mark.parametrize("form", ["vanilla", "inverted"])
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_the_two_input_neuron_shows_its_four_masks_and_their_average_at_test(form: str, p: float) -> None:
    neuron, keep = Neuron(build_dropout(p, form)), 1 - p
    scale = 1.0 if form == "vanilla" else 1 / keep
    outputs = (MASKS * W * X).sum(1) * scale
    assert seen_of(neuron) == rounded(outputs)
    chance = torch.where(MASKS == 1, keep, p).prod(1)
    expectation = float((chance * outputs).sum())
    assert float(neuron.eval()(X)) == pytest.approx(expectation), "the test side is the training side's expectation"
    assert expectation == pytest.approx(keep * scale * float(W @ X))


def test_half_dropped_averages_to_half_the_weighted_sum() -> None:
    neuron = Neuron(VanillaDropout(0.5))
    four = seen_of(neuron)
    assert len(four) == 4
    assert sum(four) / 4 == pytest.approx(0.5 * float(W @ X))
    assert float(neuron.eval()(X)) == pytest.approx(0.5 * float(W @ X)), "and so is the test side"


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_both_forms_agree_but_for_the_keep_probability(p: float) -> None:
    x = torch.rand(200_000, dtype=torch.float64) + 1
    vanilla, inverted = VanillaDropout(p), nn.Dropout(p)
    tolerance = 6 * float(x.std() + x.mean()) / (1 - p) / len(x) ** 0.5
    assert float(vanilla(x).mean()) == pytest.approx((1 - p) * float(inverted(x).mean()), abs=2 * tolerance)
    assert float(vanilla(x).mean()) == pytest.approx(float(vanilla.eval()(x).mean()), abs=tolerance)
    assert float(inverted(x).mean()) == pytest.approx(float(inverted.eval()(x).mean()), abs=tolerance)
    torch.testing.assert_close(vanilla.eval()(x), (1 - p) * inverted.eval()(x))


def test_vanilla_keeps_values_as_they_are_and_passes_gradients_where_it_does() -> None:
    x = torch.ones(10_000, requires_grad=True)
    y = VanillaDropout(0.3)(x)
    y.sum().backward()
    assert set(y.tolist()) == {0.0, 1.0}
    assert torch.equal(x.grad, y.detach())
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=0.02)


def test_drop_connects_neuron_drops_weights_and_never_the_bias() -> None:
    layer = nn.Linear(2, 1).double()
    with torch.no_grad():
        layer.weight.copy_(W[None])
        layer.bias.fill_(5.0)
    dropped = drop_connect(layer, 0.5)
    outputs = (MASKS * W * X).sum(1) * 2 + 5
    assert seen_of(dropped) == rounded(outputs)
    assert dropped.eval()(X).item() == pytest.approx(float(outputs.mean())) == pytest.approx(layer(X).item())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), (3, 6)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7, 7)),
        (nn.Conv2d(2, 3, 3, dilation=2, padding=2, padding_mode="reflect", bias=False), (2, 2, 6, 6)),
    ],
)
def test_the_test_side_of_drop_connect_is_the_mean_of_its_training_side(layer: nn.Module, shape: tuple) -> None:
    layer = layer.double()
    dropped, x = drop_connect(layer, 0.3), torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        passes = torch.stack([dropped(x) for _ in range(4000)])
        test_side = dropped.eval()(x)
    assert torch.equal(test_side, layer(x))
    spread = passes.std(0)
    assert bool((spread > 0).all())
    assert bool(((passes.mean(0) - test_side).abs() < 6 * spread / len(passes) ** 0.5).all())


def test_one_mask_serves_the_batch() -> None:
    dropped = drop_connect(nn.Linear(50, 20), 0.5)
    x = torch.randn(1, 50).expand(8, 50)
    y = dropped(x)
    torch.testing.assert_close(y, y[:1].expand(8, 20))
    assert not torch.equal(y, dropped(x))


def test_drop_connect_shares_the_parameters_and_their_names() -> None:
    layer = nn.Conv2d(3, 4, 3)
    dropped = drop_connect(layer, 0.5)
    assert dropped.weight is layer.weight
    assert dropped.bias is layer.bias
    assert list(dropped.state_dict()) == list(layer.state_dict())
    dropped(torch.randn(1, 3, 5, 5)).sum().backward()
    zero = (layer.weight.grad == 0).double().mean()
    assert 0.2 < float(zero) < 0.8, "dropped weights get no gradient"


def test_a_net_keeps_its_first_and_its_last_layer() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()), nn.Flatten(), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    connect_net(net, 0.25)
    assert [type(m).__name__ for m in net.modules() if hasattr(m, "weight")] == [
        "Conv2d",
        "DropConnectConv2d",
        "Linear",
    ]
    assert net[1][0].drop == 0.25
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("p", [-0.1, 1.0, 2, True, "half", float("nan")])
def test_probabilities_out_of_range_are_one_sentence(p: object) -> None:
    with pytest.raises(UserError, match="probability to drop"):
        build_dropout(p)
    with pytest.raises(UserError, match="probability to drop"):
        drop_connect(nn.Linear(2, 2), p)


def test_unknown_forms_and_layers_are_one_sentence() -> None:
    with pytest.raises(UserError, match="did you mean 'vanilla'"):
        build_dropout(0.5, "vannila")
    with pytest.raises(UserError, match="got LSTM"):
        drop_connect(nn.LSTM(2, 2), 0.5)

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.init import initialise
from wellfit.models.layers.activations import ACTIVATIONS, Maxout, activation_facts, build_activation

# Value and gradient at -10, 0 and 10, worked out by hand from the formulas; e⁻¹⁰ = 4.5399930e-5. At the kink of
# a ReLU-like function torch's gradient is that of the lower side.
BY_HAND = {
    "relu": ((0, 0, 10), (0, 0, 1)),
    "leaky_relu": ((-0.1, 0, 10), (0.01, 0.01, 1)),
    "leaky_relu_0.1": ((-1, 0, 10), (0.1, 0.1, 1)),
    "prelu": ((-2.5, 0, 10), (0.25, 0.25, 1)),
    "elu": ((-0.99995460, 0, 10), (4.53999e-5, 1, 1)),
    "gelu": ((0, 0, 10), (0, 0.5, 1)),
    "selu": ((-1.75801952, 0, 10.50700987), (7.98176e-5, 1.75809934, 1.05070099)),
    "silu": ((-4.53978687e-4, 0, 9.99954602), (-4.08560e-4, 0.5, 1.00040856)),
    "mish": ((-4.53988900e-4, 0, 9.99999996), (-4.08580e-4, 0.6, 1.00000008)),
    "tanh": ((-1 + 4.1223e-9, 0, 1 - 4.1223e-9), (8.2446e-9, 1, 8.2446e-9)),
    "sigmoid": ((4.53978687e-5, 0.5, 0.99995460), (4.53958e-5, 0.25, 4.53958e-5)),
}


def gradient(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(layer(x).sum(), x)[0]


def one_layer(name: str) -> nn.Module:
    return build_activation(name).double()


def test_every_name_is_worked_out_by_hand() -> None:
    assert {*BY_HAND, "maxout"} == set(ACTIVATIONS)


@pytest.mark.parametrize("name", BY_HAND)
def test_value_and_gradient_at_minus_10_0_and_10(name: str) -> None:
    x = torch.tensor([[-10.0, 0.0, 10.0]], dtype=torch.float64)
    values, gradients = BY_HAND[name]
    torch.testing.assert_close(one_layer(name)(x)[0], torch.tensor(values, dtype=x.dtype), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(
        gradient(one_layer(name), x)[0], torch.tensor(gradients, dtype=x.dtype), rtol=1e-5, atol=1e-8
    )


def test_maxout_is_the_larger_of_two_linear_functions_at_minus_10_0_and_10() -> None:
    linear = nn.Linear(1, 2).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0], [0.5]]))
        linear.bias.copy_(torch.tensor([0.0, 1.0]))
    net = nn.Sequential(linear, Maxout())
    x = torch.tensor([[-10.0], [0.0], [10.0]], dtype=torch.float64)
    assert net(x).flatten().tolist() == [-4, 1, 10]
    assert gradient(net, x).flatten().tolist() == [0.5, 0.5, 1]


def test_maxout_takes_2c_maps_to_c_piece_by_piece() -> None:
    x = torch.randn(3, 10, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Maxout()(x), torch.maximum(x[:, :5], x[:, 5:]))
    assert torch.equal(Maxout(5)(x), x.view(3, 5, 2, 4, 5).max(1).values)
    plain, wide = nn.Linear(7, 5), nn.Linear(7, 5 * activation_facts("maxout").pieces)
    assert sum(p.numel() for p in wide.parameters()) == 2 * sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "maxout"])
def test_what_is_said_of_saturation_and_death_is_true(name: str) -> None:
    below, above = (abs(gradient(one_layer(name), torch.full((1, 1), x).double()).item()) for x in (-30.0, 30.0))
    said = ACTIVATIONS[name].saturates
    assert said == ("both sides" if max(below, above) < 1e-9 else "below" if below < 1e-9 else "no")
    assert above > 0.9 or said == "both sides"
    lower_side = gradient(one_layer(name), -torch.logspace(-3, 0, 50, dtype=torch.float64)[None])
    assert bool((lower_side == 0).all()) is ACTIVATIONS[name].dies


def test_gradients_through_stacked_sigmoids_shrink_to_a_quarter_a_layer_or_less() -> None:
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)[None]
    layers: list[nn.Module] = []
    before = torch.ones_like(x)
    for depth in range(1, 9):
        layers.append(build_activation("sigmoid"))
        after = gradient(nn.Sequential(*layers), x)
        assert bool((after <= before / 4 + 1e-18).all())
        assert after.max() > 0.15 * before.max(), "the bound is nearly reached, so it is the sigmoid's own"
        before = after
        assert before.max() <= 4.0**-depth


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "maxout", "selu"])
def test_the_initialisation_of_its_entry_keeps_the_mean_square_through_twenty_layers(name: str) -> None:
    facts, width = activation_facts(name), 200
    layers = [
        layer
        for _ in range(20)
        for layer in (nn.Linear(width, width * facts.pieces, bias=False), build_activation(name))
    ]
    net = nn.Sequential(*layers)
    initialise(net, 0, facts.initialisation)
    x = torch.randn(100, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert 0.4 < net(x).square().mean() / x.square().mean() < 2.5


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_in_place_computes_the_same_and_its_gradient(name: str) -> None:
    x = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    results = []
    for inplace in (False, True):
        y = build_activation(name, inplace=inplace).double()(x * scale)
        results.append((y, torch.autograd.grad(y.square().sum(), scale)[0]))
    torch.testing.assert_close(results[0], results[1])
    overwrites = getattr(build_activation(name, inplace=True), "inplace", False)
    assert overwrites is ACTIVATIONS[name].overwrites


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("maxuot", r"unknown activation 'maxuot' \(did you mean 'maxout'\?\); known: elu, gelu"),
        ("torch.nn:Relu", "has no 'Relu'"),
        ("math:sqrt", "calling it without arguments, but 'math:sqrt' fails then"),
        ("builtins:list", "an activation is a torch.nn.Module, but 'builtins:list' made a list"),
    ],
)
def test_unknown_names_are_one_sentence(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_activation(name)


def test_a_users_own_activation_by_path() -> None:
    assert isinstance(build_activation("torch.nn:Softplus"), nn.Softplus)
    assert activation_facts("torch.nn:Softplus").pieces == 1


def test_maxout_says_what_it_needs() -> None:
    with pytest.raises(UserError, match=r"multiple of 2, got \(1, 3\)"):
        Maxout()(torch.zeros(1, 3))
    with pytest.raises(UserError, match="at least 2 pieces, got 1"):
        Maxout(1)


def test_every_entry_has_its_words() -> None:
    for facts in ACTIVATIONS.values():
        assert facts.formula
        assert facts.advice.endswith(".")
    assert "first choice" in ACTIVATIONS["relu"].advice
    assert "Seldom" in ACTIVATIONS["tanh"].advice
    assert "Not in hidden layers" in ACTIVATIONS["sigmoid"].advice
    assert math.isclose(0.25, gradient(one_layer("sigmoid"), torch.zeros(1, 1).double()).item())

"""Lower rates for earlier layers, and what counts as the top (SPEC T3)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wellfit.models.freezing import stages
from wellfit.models.probe_net import ProbeNet
from wellfit.models.zoo import build
from wellfit.training.optimizers import build_optimizer
from wellfit.transfer.rates import freeze_below_top, rate_groups


def net() -> ProbeNet:
    return ProbeNet(build("resnet20", 4, image_size=32, seed=0).module, 4, 32)


def rates_by_name(module: nn.Module, groups: list[dict]) -> dict[str, float]:
    return {name: group["lr"] for group in groups for name, _ in group["params"]}


def test_rates_fall_by_one_factor_from_the_classifier_to_the_input() -> None:
    module = net()
    rates = rates_by_name(module, rate_groups(module, 1.0, lowest=0.1))
    factor = 0.1 ** (1 / 4)
    assert rates["fc.weight"] == 1.0
    assert rates["backbone.layer3.0.conv1.weight"] == pytest.approx(factor)
    assert rates["backbone.layer1.2.conv2.weight"] == pytest.approx(factor**3)
    assert rates["backbone.conv1.weight"] == rates["backbone.bn1.weight"] == pytest.approx(0.1)
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert rates.keys() == trained


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "whitened"])
def test_every_parameter_is_in_one_group(name: str) -> None:
    module = build(name, 4, image_size=64, seed=0).module
    groups = rate_groups(module, 1e-3, lowest=0.1, image_size=64)
    names = [parameter for group in groups for parameter, _ in group["params"]]
    assert sorted(names) == sorted(n for n, p in module.named_parameters() if p.requires_grad)
    assert groups[0]["lr"] == 1e-3
    assert min(group["lr"] for group in groups) == pytest.approx(1e-4)


def test_an_optimizer_takes_a_smaller_step_below() -> None:
    module = net().train()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = build_optimizer("adamw", rate_groups(module, 1e-2, lowest=0.1), lr=1e-2)
    module(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    optimizer.step()
    # Adam's first step is the rate itself, whatever the gradient.
    moved = {name: float((value.detach() - before[name]).abs().max()) for name, value in module.named_parameters()}
    assert moved["fc.weight"] == pytest.approx(1e-2, rel=0.05)
    assert moved["backbone.conv1.weight"] == pytest.approx(1e-3, rel=0.05)


@pytest.mark.parametrize(("name", "trained"), [("resnet20", 1), ("squeezenet1_1", 2), ("resnet18", 1)])
def test_the_top_is_the_last_quarter_of_the_stages(name: str, trained: int) -> None:
    module = ProbeNet(build(name, 4, image_size=64, seed=0).module, 4, 64)
    found = stages(module, 64)
    freeze_below_top(module, 64)
    free = [any(p.requires_grad for _, part in stage for p in part.parameters()) for stage in found]
    assert free == [False] * (len(found) - trained) + [True] * trained
    assert module.fc.weight.requires_grad

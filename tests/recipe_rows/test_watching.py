"""SPEC C7 and C8 through the monitor that a user holds: what a step did to each weight, and which units are dead."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import wellfit


def test_c8_update_to_weight_ratio_is_the_norm_of_the_step_over_that_of_the_weights() -> None:
    """By hand: (3, 4) less 0.1·(0.3, 0.4) moves by 0.05 on a norm of 5: 0.01. The fresh bias has no ratio."""
    net = nn.Linear(2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[3.0, 4.0]]))
        net.bias.zero_()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with wellfit.Monitor(net, optimizer, every=1) as monitor:
        loss = net(torch.tensor([[0.3, 0.4]])).sum()
        loss.backward()
        optimizer.step()
        monitor.step(loss)
        ratios = monitor.statistics["update_ratio"]
    assert ratios["weight"] == pytest.approx(0.1 * 0.5 / 5.0)
    assert ratios.get("bias") is None or math.isnan(ratios["bias"])


@pytest.mark.parametrize(("lr", "band"), [(1e-2, (1e-4, 1e-2)), (1e-6, (1e-8, 1e-6))])
def test_c8_the_ratio_tells_a_rate_that_teaches_from_one_that_does_not(lr: float, band: tuple[float, float]) -> None:
    draw = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 5))
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=draw) * 0.2
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    x, y = torch.randn(64, 20, generator=draw), torch.randint(5, (64,), generator=draw)
    with wellfit.Monitor(net, optimizer, every=1) as monitor:
        for _ in range(5):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            monitor.step(loss)
        ratios = monitor.statistics["update_ratio"]
    assert band[0] < ratios["0.weight"] < band[1]
    assert band[0] < ratios["2.weight"] < band[1]


def test_c7_a_unit_is_dead_when_it_is_inactive_on_all_data_and_not_when_x_is_once_below_zero() -> None:
    """Of 4 units one never fires; the others are silent on some images each."""
    net = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-1.0], [1.0], [1.0]]))
        net[0].bias.copy_(torch.tensor([0.0, 0.0, -1.5, -9.0]))
    x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    silent_somewhere = (net[1](net[0](x)) <= 0).any(0)
    assert silent_somewhere.all()
    (row,) = wellfit.activation_statistics(net, x).layers
    assert row.dead == 0.25
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    with wellfit.Monitor(net, optimizer, every=1) as monitor:
        for _ in range(6):
            loss = net(x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            monitor.step(loss)
        assert monitor.statistics["layers"]["1"]["dead"] == 0.25

"""Packed networks come to the weights of separate ones."""

from __future__ import annotations

import pytest
import torch
from packing import NETS, in_turn, packed


@pytest.mark.parametrize("name", list(NETS))
def test_packed_networks_come_to_the_weights_of_separate_ones(name: str) -> None:
    side, make = NETS[name]
    draw = torch.Generator().manual_seed(1)
    batches = [
        (torch.rand(8, 3, side, side, generator=draw), torch.randint(0, 10, (8,), generator=draw)) for _ in range(3)
    ]
    rates, decays = [0.003, 0.03, 0.01], [0.0, 1e-2, 1e-3]
    start = [{key: value.detach().clone() for key, value in make(seed).named_parameters()} for seed in range(3)]
    one = in_turn([make(seed) for seed in range(3)], batches, rates, decays)
    other = packed([make(seed) for seed in range(3)], batches, rates, decays)
    for before, a, b in zip(start, one, other, strict=True):
        for key in a:
            assert torch.allclose(a[key], b[key], rtol=1e-4, atol=1e-6)
            assert not torch.equal(before[key], b[key])

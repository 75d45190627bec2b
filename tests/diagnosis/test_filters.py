from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from wellfit.diagnosis.filters import first_filters


def test_the_first_convolutions_weights_are_given_as_they_are() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 4, 3))
    found = first_filters(net)
    assert found is not None
    assert found.dtype == np.float32
    assert np.array_equal(found, net[0].weight.detach().numpy())
    many = first_filters(nn.Conv2d(1, 300, 3))
    assert many is not None
    assert len(many) == 256


@pytest.mark.parametrize(
    "net",
    [
        nn.Linear(3, 4),
        nn.Conv2d(4, 8, 3),  # neither grey nor RGB
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(3, 6, 3, groups=3),
        nn.Conv2d(3, 2, 64, stride=64),
    ],
)
def test_what_says_nothing_to_the_eye_is_left_out(net: nn.Module) -> None:
    assert first_filters(net) is None


def test_weights_that_are_no_numbers_are_left_out() -> None:
    net = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        net.weight[0, 0, 0, 0] = math.nan
    assert first_filters(net) is None

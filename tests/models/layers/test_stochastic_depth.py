from __future__ import annotations

import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models import resnet
from wellfit.models.layers.choice import LayerChoice
from wellfit.models.layers.stochastic_depth import drop_rates, skipping
from wellfit.models.zoo import build


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_the_linear_decay_rule() -> None:
    assert drop_rates(0.4, 4) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    net = build("resnet20", 10, image_size=32, stochastic_depth=0.45).module
    rates = [block.branch.p for block in net.modules() if isinstance(block, resnet.Block)]
    assert rates == pytest.approx([0.05 * number for number in range(1, 10)])


def test_the_test_side_of_a_block_is_the_mean_of_its_training_side() -> None:
    """With maxout nothing follows the sum, so the expectation passes through the whole block."""
    block = resnet.BasicBlock(4, 4, 1, resnet.PadShortcut, LayerChoice("maxout", "group"), skip=0.3).double()
    image = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        training = block.train()(image.expand(6000, -1, -1, -1))
        test_side = block.eval()(image)
        branch = block.residual(image)
    torch.testing.assert_close(test_side, image + branch)
    skipped = (training == image).flatten(1).all(1)
    assert float(skipped.double().mean()) == pytest.approx(0.3, abs=0.03), "for each image by itself"
    kept = training[~skipped]
    torch.testing.assert_close(kept, (image + branch / 0.7).expand_as(kept))
    spread = training.std(0)
    assert bool(((training.mean(0) - test_side[0]).abs() < 6 * spread / 6000**0.5).all())


def test_nothing_is_skipped_at_probability_0() -> None:
    assert isinstance(skipping(0.0), nn.Identity)
    assert isinstance(skipping(0), nn.Identity)


def test_plain_nets_have_nothing_to_skip_by() -> None:
    with pytest.raises(UserError, match=r"residual branches, got 0\.2 for a plain net"):
        build("plain20", 10, image_size=32, stochastic_depth=0.2)
    with pytest.raises(UserError, match="stochastic_depth is the probability to drop"):
        build("resnet20", 10, image_size=32, stochastic_depth=1.5)

"""Several pretrained networks are ranked by linear classifiers on some of the images (SPEC T4)."""

from __future__ import annotations

import pytest
import torch

from wellfit.config import Config
from wellfit.models.zoo import Built, build
from wellfit.recipe import model_choice
from wellfit.recipe.candidates import rank
from wellfit.recipe.prepare import Prepared


def candidate(name: str, *, blind: bool = False) -> Built:
    built = build(name, 10, image_size=16, seed=3)
    built.image_size, built.crop_pct = 16, 1.0
    if blind:  # every image looks the same to it
        with torch.no_grad():
            for parameter in built.module.parameters():
                parameter.zero_()
    return built


@pytest.fixture
def config() -> Config:
    return Config().replace(**{"engine.device": "cpu", "engine.threads": 1})


def test_a_network_that_sees_nothing_ranks_last(digits: Prepared, config: Config) -> None:
    seeing, blind = candidate("resnet20"), candidate("plain20", blind=True)
    for order in ([seeing, blind], [blind, seeing]):
        ranked = rank(order, digits, config)
        assert [one.built for one in ranked] == [seeing, blind]
        assert ranked[0].score > 0.6  # even random filters tell digits apart
        assert ranked[1].score < 0.2
    assert [one.score for one in rank([seeing, blind], digits, config)] == [one.score for one in ranked]


def test_the_plan_says_how_they_ranked(digits: Prepared, config: Config) -> None:
    best = model_choice._best_of([candidate("plain20", blind=True), candidate("resnet20")], digits, config)
    assert best.name == "resnet20"
    assert "rank: resnet20 " in best.notes[-1]
    assert best.notes[-1].index("resnet20") < best.notes[-1].index("plain20")

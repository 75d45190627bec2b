"""The list of published weights: from tables alone, nothing fetched (SPEC T1)."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
import torch
import torchvision

from wellfit.errors import UserError
from wellfit.models import published
from wellfit.models.pretrained_list import pretrained_listing
from wellfit.models.zoo import build


@pytest.fixture(autouse=True)
def nothing_is_fetched(no_network: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def fail(*arguments: object, **more: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    return no_network


def test_every_set_of_torchvisions_weights_is_listed_with_what_its_tables_say() -> None:
    entries = {(entry.name, entry.weights): entry for entry in pretrained_listing().entries}
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            entry = entries[name, str(weights)]
            assert entry.parameters == weights.meta["num_params"]
            assert (entry.classes, entry.source) == (1000, weights.url)
            assert entry.licence


@pytest.mark.parametrize("name", list(published.CIFAR_WEIGHTS))
def test_the_small_residual_nets_say_how_many_parameters_they_have(name: str) -> None:
    (entry,) = (entry for entry in pretrained_listing().entries if entry.name == name)
    module = build(name, entry.classes, image_size=entry.input_size).module
    assert entry.parameters == sum(p.numel() for p in module.parameters())
    assert (entry.dataset, entry.licence, entry.file) == ("CIFAR-10", "BSD-2-Clause", None)


def test_a_file_on_this_machine_is_named(nothing_is_fetched: Path) -> None:
    place = nothing_is_fetched / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    place.parent.mkdir(parents=True)
    torch.save({}, place)
    assert [entry.file for entry in pretrained_listing("squeezenet1_?").entries] == [None, str(place)]


def test_timms_tags_are_found_by_a_pattern_and_counted_where_they_are_few() -> None:
    few = pretrained_listing("test_resnet*")
    (entry,) = few.entries
    assert (entry.name, entry.dataset, entry.classes) == ("timm:test_resnet.r160_in1k", "ImageNet-1K", 1000)
    assert entry.parameters == sum(p.numel() for p in build("test_resnet", 1000, image_size=160).module.parameters())
    many = pretrained_listing("*vit_*")
    assert "were not counted" in many.notes[0]
    assert {entry.parameters for entry in many.entries if entry.name.startswith("timm:")} == {None}


def test_a_name_without_weights_is_said_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'resnet"):
        pretrained_listing("resnte20")

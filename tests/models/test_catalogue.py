"""The kept figures against what is measured, what torchvision says, and what `zoo` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torchvision
from torch.nn import functional as F

from wellfit.errors import UserError
from wellfit.models import foreign, zoo
from wellfit.models.catalogue import UNLISTED, WINNERS, Entry, hollow_net, kept, measure
from wellfit.models.listing import SORTS, listing
from wellfit.models.zoo import build

TABLE = {entry.name: entry for entry in kept()}


def test_every_net_of_ours_and_torchvisions_is_listed_once() -> None:
    """Where this fails after a net was added: run scripts/catalogue.py."""
    own = [name for name in zoo.OWN if name not in UNLISTED]
    assert list(TABLE) == [*own, *(name for name in foreign.torchvision_names() if name not in zoo.OWN)]


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "alexnet2012", "vgg16", "plain34", "mobilenet_v2", "vit_b_32"])
def test_kept_figures_are_what_is_measured(name: str) -> None:
    assert measure(name)[0] == TABLE[name]


def test_figures_agree_with_those_that_torchvision_publishes() -> None:
    compared = 0
    for name in foreign.torchvision_names():
        weights = torchvision.models.get_model_weights(name).DEFAULT
        entry = TABLE[name]
        assert entry.accuracy == pytest.approx(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100)
        assert entry.input_size == weights.transforms().crop_size[0]
        assert entry.licence
        if name not in ("googlenet", "inception_v3"):  # ours have no auxiliary heads
            assert entry.parameters == weights.meta["num_params"]
        assert entry.flops is not None
        # Published in billions of multiply-adds, to three digits; some were counted with other rules for attention.
        compared += abs(entry.flops / 2e9 - weights.meta["_ops"]) < max(0.001, 0.001 * weights.meta["_ops"])
    assert compared >= 60


def test_listing_needs_no_torch() -> None:
    code = "import sys; from wellfit.models.listing import listing; assert len(listing().entries) > 90; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("sort", SORTS)
def test_order(sort: str) -> None:
    found = listing(sort=sort).entries
    assert {entry.name for entry in found} == set(TABLE)
    if sort in ("parameters", "flops", "activations"):
        values = [getattr(entry, sort) for entry in found]
        assert values == sorted(values)
    if sort == "accuracy":
        best = [entry.accuracy or 0 for entry in found if entry.dataset == "ImageNet-1K"]
        assert best == sorted(best, reverse=True)
        assert found[-1].accuracy is None


def test_filter_takes_parts_patterns_and_timms_names() -> None:
    names = [entry.name for entry in listing(wanted="VGG1?_bn").entries]
    assert names[:4] == ["vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]
    assert names[4:] == [f"timm:{name}" for name in names[:4]]
    measured = listing(wanted="timm:test_vit*")
    assert measured.not_computed == []
    assert all(entry.parameters for entry in measured.entries)


def test_what_was_not_computed_is_said() -> None:
    found = listing(wanted="convnext")
    assert len(found.not_computed) > 12
    assert all(entry.parameters is None for entry in found.entries if entry.name in found.not_computed)
    assert "were not computed" in found.notes[0]
    assert len(listing(with_timm=True).not_computed) == len(foreign.timm_names())


def test_mistakes_name_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'flops'"):
        listing(sort="flop")
    with pytest.raises(UserError, match="did you mean 'resnet"):
        listing(wanted="resnte18")
    with pytest.raises(UserError, match="did you mean 'vgg1"):
        measure("vgg15")


def test_winners_get_better_and_their_nets_can_be_had() -> None:
    assert [winner.year for winner in WINNERS] == sorted(winner.year for winner in WINNERS)
    errors = [winner.top5_error for winner in WINNERS]
    assert errors == sorted(errors, reverse=True)
    told = {winner.name: winner.top5_error for winner in WINNERS}
    assert (told["ZFNet"], told["VGG"], told["ResNet-152"]) == (11.7, 7.3, 3.57)
    for winner in WINNERS:
        if winner.here:
            assert zoo.resolve(winner.here)[0] in ("own", "torchvision", "timm")


def test_hollow_nets_hold_no_values_and_ordinary_ones_do() -> None:
    assert all(p.is_meta for p in hollow_net("resnet152", image_size=224).parameters())
    assert not any(p.is_meta for p in torch.nn.Linear(2, 2).parameters())


def test_entries_are_json() -> None:
    assert Entry("x", 32).as_dict()["flops"] is None


@pytest.mark.parametrize(("name", "size"), [("googlenet", 32), ("timm:inception_v4", 75)])
def test_inception_nets_start_at_log_c(name: str, size: int) -> None:
    module = build(name, 10, image_size=size).module.eval()
    x = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = F.cross_entropy(module(x), torch.arange(8))
    assert loss.item() == pytest.approx(2.3026, abs=0.1)

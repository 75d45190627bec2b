from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from wellfit.errors import UserError
from wellfit.models.catalogue import hollow_net
from wellfit.models.layers.choice import LayerChoice
from wellfit.models.vgg import VGG, VGG_NETS
from wellfit.models.zoo import build, resolve


@pytest.mark.parametrize("name", VGG_NETS)
def test_tensors_are_torchvisions_by_name_and_shape(name: str) -> None:
    ours = hollow_net(name, image_size=224)
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)()
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [
        (key, value.shape) for key, value in theirs.state_dict().items()
    ]


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_computes_what_torchvisions_net_computes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A head of 64 units instead of 4096: the same computation with a fraction of the memory.
    monkeypatch.setattr("wellfit.models.vgg.HIDDEN", 64)
    ours = VGG(11, 5, layers=LayerChoice(normalization="batch" if "_bn" in name else "none", dropout=0.5)).eval()
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(num_classes=5)
    theirs.classifier[0], theirs.classifier[3] = nn.Linear(25088, 64), nn.Linear(64, 64)
    theirs.classifier[6] = nn.Linear(64, 5)
    theirs = theirs.eval()
    theirs.load_state_dict(ours.state_dict(), assign=True)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_depth_counts_the_layers_with_weights() -> None:
    for name in VGG_NETS:
        net = hollow_net(name, image_size=32)
        layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == int(name.removeprefix("vgg").removesuffix("_bn"))


def test_small_images_get_a_small_head_and_a_note() -> None:
    small = build("vgg11", 10, image_size=32)
    assert small.options["small_head"] is True
    assert "small_head" in small.notes[0]
    assert sum(p.numel() for p in small.module.parameters()) < 10e6
    assert hollow_net("vgg11", image_size=65).classifier[0].in_features == 25088
    assert hollow_net("vgg11", image_size=32, small_head=False).classifier[0].in_features == 25088


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "maxout"},
        {"activation": "elu", "normalization": "group", "dropout": 0.0, "drop_connect": 0.3},
    ],
)
def test_starts_at_log_c_and_follows_its_options(options: dict) -> None:
    net = build("vgg11_bn", 10, image_size=32, channels=1, **options).module
    x = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = F.cross_entropy(net.eval()(x), torch.arange(8))
    assert loss.item() == pytest.approx(2.3026, abs=0.15)
    norm = nn.GroupNorm if options.get("normalization") == "group" else nn.BatchNorm2d
    assert sum(isinstance(m, norm) for m in net.modules()) == 8
    assert any(isinstance(m, nn.Dropout) for m in net.modules()) is (options.get("dropout", 0.5) > 0)


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(UserError, match="smallest above that it takes is 32 px"):
        build("vgg11", 10, image_size=31)
    for wrong, right in (("vgg15", "vgg1"), ("vgg16_bm", "vgg16_bn"), ("vgg16-bn", "vgg16_bn")):
        with pytest.raises(UserError, match=f"did you mean '{right}"):
            resolve(wrong)
    with pytest.raises(UserError, match="did you mean 'batch'"):
        build("vgg11", 10, image_size=32, normalization="bacth")
    with pytest.raises(UserError, match="did you mean 'small_head'"):
        build("vgg11", 10, image_size=32, small_stem=True)


def test_published_weights_are_torchvisions() -> None:
    from wellfit.models.pretrained import candidates

    assert [w.files for w in candidates("own", "vgg16")] == [w.files for w in candidates("torchvision", "vgg16")]

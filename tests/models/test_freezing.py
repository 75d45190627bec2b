"""Frozen stages stay as they are, whatever is done to the network around them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.freezing import freeze, stages
from wellfit.models.probe_net import ProbeNet
from wellfit.models.zoo import build


@pytest.mark.parametrize(
    ("name", "size", "first", "count"),
    [
        ("lenet5", 28, ["conv1"], 4),
        ("whitened", 32, ["whiten"], 4),
        ("resnet18", 64, ["conv1", "bn1"], 5),
        ("vgg16", 64, ["features.0"], 13),
        ("torchvision:squeezenet1_1", 64, ["features.0"], 9),
        ("torchvision:mobilenet_v3_small", 64, ["features.0"], 13),
    ],
)
def test_stages_go_from_the_input_to_the_classifier(name: str, size: int, first: list[str], count: int) -> None:
    module = build(name, 3, image_size=size).module
    found = stages(module, size)
    assert [part for part, _ in found[0]] == first
    assert len(found) == count
    # Each parameter before the part with the classifier is in one stage; a residual net's classifier is `fc` alone.
    own = [id(p) for stage in found for _, part in stage for p in part.parameters()]
    assert len(set(own)) == len(own)
    if name == "resnet18":
        assert set(own) == {id(p) for n, p in module.named_parameters() if not n.startswith("fc.")}


def test_a_transformers_blocks_are_stages() -> None:
    found = stages(build("timm:vit_tiny_patch16_224", 3, image_size=64, img_size=64).module, 64)
    assert [part for stage in found for part, _ in stage] == [
        "patch_embed",
        *(f"blocks.{i}" for i in range(12)),
        "norm",
    ]


def test_a_probes_backbone_has_the_stages() -> None:
    net = ProbeNet(build("resnet18", 10, image_size=32).module, 3, 32)
    assert freeze(net, 2, 32) == ["backbone.conv1", "backbone.bn1", "backbone.layer1"]
    assert net.fc.weight.requires_grad


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_training_leaves_frozen_stages_bit_for_bit(depth: int) -> None:
    module = build("resnet18", 3, image_size=32, seed=1).module
    names = freeze(module, depth, 32)
    assert len(names) == {0: 0, 1: 2, 3: 4}[depth]
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module.train()
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        nn.functional.cross_entropy(module(images), torch.arange(8) % 3).backward()
        optimizer.step()
    frozen = tuple(f"{name}." for name in names)
    for key, value in module.state_dict().items():  # running statistics too
        assert torch.equal(value, before[key]) == (bool(frozen) and key.startswith(frozen)), key


def test_more_stages_than_there_are() -> None:
    with pytest.raises(UserError, match="has 4 before its classifier, got 5; take 0 to 4"):
        freeze(build("lenet5", 3, image_size=28).module, 5, 28)

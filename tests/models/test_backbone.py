"""Backbones: the maps are the network's own, at the resolutions promised, for every make of network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

from wellfit.errors import UserError
from wellfit.models.backbone import backbone
from wellfit.models.probe_net import ProbeNet
from wellfit.models.zoo import build

MAKES = [
    ("resnet18", 64, (2, 3, 4, 5), {"small_stem": False}),
    ("resnet20", 32, (0, 1, 2), {}),
    ("whitened", 32, (1, 2, 3), {"widths": [8, 16, 16]}),
    ("vgg11", 64, (2, 3, 4), {"small_head": True}),
    ("lenet5", 28, (0, 1), {}),
    ("torchvision:squeezenet1_1", 96, (2, 3, 4), {}),
    ("torchvision:mobilenet_v3_small", 64, (2, 3, 4, 5), {}),
    ("torchvision:shufflenet_v2_x0_5", 64, (2, 3, 4, 5), {}),
    ("timm:resnet10t", 64, (2, 3, 4, 5), {}),
    ("timm:mobilenetv3_small_050", 64, (2, 3, 4, 5), {}),
]
NETS = """
import torch
from torch import nn

class Branching(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, num_classes)

    def forward(self, x):
        x = self.body(x)
        if x.sum() > 0:
            x = x * 2
        return self.fc(x.mean((2, 3)))
"""


@pytest.mark.parametrize(("name", "size", "levels", "options"), MAKES, ids=lambda value: str(value)[:30])
def test_maps_have_the_resolutions_and_channels_promised(
    name: str, size: int, levels: tuple[int, ...], options: dict[str, object]
) -> None:
    made = backbone(build(name, 3, image_size=size, **options).module, name, size, levels)
    assert made.levels == levels
    assert made.strides == tuple(2**level for level in levels)
    maps = made(torch.randn(2, 3, size, size))
    assert list(maps) == [str(level) for level in levels]
    for value, channels, stride in zip(maps.values(), made.channels, made.strides, strict=True):
        assert value.shape[:2] == (2, channels)
        assert abs(value.shape[2] - size / stride) <= 0.35 * size / stride
    finest = next(iter(maps.values()))
    finest.sum().backward()
    assert any(parameter.grad is not None for parameter in made.parameters())


def test_maps_are_those_of_the_classifier_and_the_classifier_is_gone() -> None:
    net = build("resnet18", 7, image_size=64, small_stem=False).module.eval()
    made = backbone(net, "resnet18", 64)
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        stem = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        second = net.layer1(stem)
        maps = made(x)
    assert torch.equal(maps["2"], second)
    assert [tuple(value.shape[2:]) for value in maps.values()] == [(24, 16), (12, 8), (6, 4), (3, 2)]
    assert made.channels == (64, 128, 256, 512)
    assert not any(name.endswith("fc.weight") for name, _ in made.named_parameters())
    next(made.parameters()).data.zero_()
    assert next(net.parameters()).abs().sum() > 0, "the classifier's own weights are left alone"


def test_a_batch_norm_trains_in_training_mode() -> None:
    made = backbone(build("resnet20", 3, image_size=32).module, "resnet20", 32, (2,))
    before = {name: value.clone() for name, value in made.named_buffers() if name.endswith("running_mean")}
    made.train()(torch.randn(4, 3, 32, 32))
    assert all(not torch.equal(value, dict(made.named_buffers())[name]) for name, value in before.items())


def test_the_network_inside_a_probe_is_the_body() -> None:
    net = build("resnet20", 3, image_size=32).module
    probe = ProbeNet(net, 5, 32)
    made = backbone(probe, "probe_net", 32, (1, 2))
    assert made.channels == (32, 64)


def test_levels_that_are_not_there_name_those_that_are() -> None:
    net = build("resnet20", 3, image_size=32).module
    with pytest.raises(
        UserError, match=r"'resnet20' at 32 pixels has feature maps at levels 0, 1, 2 .*level 3 was asked"
    ):
        backbone(net, "resnet20", 32)


@pytest.mark.parametrize("levels", [(), (3, 2), (2, 2), (-1,), (1.5,), (True,)])
def test_levels_are_rising_whole_numbers(levels: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="each once and rising"):
        backbone(nn.Identity(), "x", 32, levels)


def test_a_network_without_maps_is_said() -> None:
    with pytest.raises(UserError, match="'mlp' has none of more than one place"):
        backbone(build("mlp", 3, image_size=8).module, "mlp", 8)


def test_a_network_that_torch_fx_cannot_follow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "branch_nets.py").write_text(NETS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    net = build("branch_nets:Branching", 3, image_size=16).module
    with pytest.raises(UserError, match=r"'branch_nets:Branching' cannot be taken apart: torch\.fx cannot follow"):
        backbone(net, "branch_nets:Branching", 16, (1,))


class Pyramid(nn.Module):
    """Maps of one width for a detector's heads."""

    def __init__(self, body: nn.Module, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.body, self.fpn, self.out_channels = body, FeaturePyramidNetwork(list(channels), width), width

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.fpn(self.body(x))


def test_one_step_of_a_detector_moves_the_backbone() -> None:
    torch.manual_seed(0)
    made = backbone(build("resnet20", 3, image_size=32).module, "resnet20", 32, (1, 2))
    sizes = tuple((2.0 * stride,) for stride in made.strides)
    anchors = AnchorGenerator(sizes, ((1.0,),) * len(sizes))
    detector = RetinaNet(
        Pyramid(made, made.channels, 16), 3, anchor_generator=anchors, min_size=32, max_size=48, detections_per_img=5
    ).train()
    before = [parameter.detach().clone() for parameter in made.parameters()]
    targets = [{"boxes": torch.tensor([[4.0, 4.0, 20.0, 20.0]]), "labels": torch.tensor([1])}] * 2
    losses = detector([torch.rand(3, 32, 40), torch.rand(3, 32, 32)], targets)
    assert set(losses) == {"classification", "bbox_regression"}
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.01)
    sum(losses.values()).backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
    found = detector.eval()([torch.rand(3, 32, 32)])
    assert set(found[0]) == {"boxes", "scores", "labels"}

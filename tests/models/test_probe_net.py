"""The probe's features: mean and maximum of the last feature map, whatever the architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.probe_net import ProbeNet, last_feature_map
from wellfit.models.zoo import build

# name, image size, the layer whose output is the last map of more than one place, channels there
BACKBONES = [
    ("resnet18", 64, "layer4", 512),
    ("torchvision:squeezenet1_1", 64, "features", 512),
    ("torchvision:mobilenet_v3_small", 96, "features", 576),
    ("torchvision:vgg11", 64, "avgpool", 512),
    ("torchvision:densenet121", 64, "features", 1024),
    ("timm:mobilenetv3_small_050", 96, "blocks", 288),
    ("resnet20", 32, "layer3", 64),
]


@pytest.mark.parametrize(("name", "size", "layer", "channels"), BACKBONES)
def test_features_are_the_mean_and_maximum_of_the_last_map(name: str, size: int, layer: str, channels: int) -> None:
    backbone = build(name, 5, image_size=size, seed=0).module.eval()
    net = ProbeNet(backbone, 3, size).eval()
    assert net.layer == layer
    caught: list[torch.Tensor] = []
    handle = dict(backbone.named_modules())[layer].register_forward_hook(lambda m, i, o: caught.append(o))
    inputs = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = net.features(inputs)
        outputs = net(inputs)
    handle.remove()
    expected = torch.cat([caught[0].flatten(2).mean(2), caught[0].flatten(2).amax(2)], dim=1)
    assert features.shape == (2, 2 * channels)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(outputs, features @ net.fc.weight.T + net.fc.bias)
    assert outputs.shape == (2, 3)


def test_looking_for_the_map_changes_nothing() -> None:
    backbone = build("resnet20", 5, image_size=32, seed=0).module.train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    last_feature_map(backbone, 32)
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not any(layer._forward_hooks for layer in backbone.modules())


def test_gradients_reach_the_backbone() -> None:
    net = ProbeNet(build("resnet20", 5, image_size=32, seed=0).module, 3, 32).train()
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert net.backbone.conv1.weight.grad.abs().sum() > 0


def test_it_is_rebuilt_by_name_with_the_same_tensors() -> None:
    built = build("probe_net", 4, image_size=32, seed=0, backbone="resnet20")
    assert isinstance(built.module, ProbeNet)
    again = build("probe_net", 4, image_size=32, seed=1, backbone="resnet20").module
    again.load_state_dict(built.module.state_dict())
    inputs = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again.eval()(inputs), built.module.eval()(inputs))


def test_a_network_without_feature_maps_is_said() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    with pytest.raises(UserError, match="a linear probe needs a network with feature maps"):
        ProbeNet(flat, 2, 16)

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wellfit.errors import UserError
from wellfit.models.head import classifier_of, classifiers_of, input_channels_of, replace_classifier, scale_classifier
from wellfit.models.zoo import build

ZOO = [
    ("lenet5", 28), ("resnet18", 32), ("resnet50", 32), ("resnet20", 32), ("plain20", 32),
    ("torchvision:resnet18", 48), ("squeezenet1_1", 48), ("mobilenet_v2", 32), ("mobilenet_v3_small", 32),
    ("efficientnet_b0", 32), ("mnasnet0_5", 32), ("densenet121", 32), ("vgg11", 32), ("alexnet", 64),
    ("shufflenet_v2_x0_5", 32), ("regnet_y_400mf", 32), ("convnext_tiny", 32), ("googlenet", 32), ("swin_t", 32),
    ("vgg11_bn", 32), ("timm:vit_tiny_patch16_224", 32), ("timm:test_resnet", 32), ("timm:test_nfnet", 32),
    ("timm:test_convnext", 32), ("timm:test_mambaout", 32), ("timm:test_byobnet", 32), ("timm:lcnet_050", 32),
    ("timm:mobilenetv4_conv_small", 32), ("timm:repvit_m0_9", 32), ("timm:deit_tiny_distilled_patch16_224", 32),
    ("timm:levit_128s", 224), ("timm:efficientvit_b0", 32), ("timm:mobilevit_xxs", 64),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size"), ZOO)
def test_an_untrained_net_starts_at_the_logarithm_of_the_class_count(name: str, size: int) -> None:
    classes = 10
    module = build(name, classes, image_size=size, seed=1).module.train()
    x = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(2))
    y = torch.arange(8) % classes
    with torch.no_grad():
        loss = F.cross_entropy(module(x), y).item()
    assert loss == pytest.approx(math.log(classes), rel=0.05)
    assert all(layer.weight.std() > 0 for _, layer in classifiers_of(module))


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("squeezenet1_1", 48, "classifier.1"),
        ("mobilenet_v3_small", 32, "classifier.3"),
        ("googlenet", 32, "fc"),
        ("swin_t", 32, "head"),
        ("timm:test_convnext", 32, "head.fc"),
        ("lenet5", 28, "fc3"),
        ("resnet20", 32, "linear"),
    ],
)
def test_the_classifier_is_found_and_replaced(name: str, size: int, expected: str) -> None:
    module = build(name, 10, image_size=size).module.eval()
    assert classifier_of(module)[0] == expected
    before = classifier_of(module)[1]
    assert replace_classifier(module, 3, seed=4) == [expected]
    after = classifier_of(module)[1]
    assert after is not before
    assert after.weight.shape == (3, *before.weight.shape[1:])
    assert module(torch.zeros(2, 3, size, size)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("timm:deit_tiny_distilled_patch16_224", 32, ["head", "head_dist"]),
        ("timm:repvit_m0_9", 32, ["head.head.l", "head.head_dist.l"]),
    ],
)
def test_nets_with_two_classifiers_get_both_replaced(name: str, size: int, expected: list[str]) -> None:
    module = build(name, 10, image_size=size).module.eval()
    assert replace_classifier(module, 4) == expected
    assert module(torch.zeros(2, 3, size, size)).shape == (2, 4)


class Misleading(nn.Module):
    """Registers its layers in another order than it runs them, and one that it never uses."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(8, 6)
        self.fc = nn.Linear(4, 8)
        self.body = nn.Conv2d(1, 4, 3)
        self.side = nn.Linear(6, 6)
        self.unused = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.output(F.relu(self.fc(self.body(x).mean((2, 3)))))
        self.side(logits)
        return logits


def test_in_a_foreign_net_it_is_the_last_layer_that_the_result_depends_on() -> None:
    net = Misleading().train()
    assert classifier_of(net)[0] == "output"
    assert net.training
    assert input_channels_of(net) == 1


def test_a_net_that_cannot_be_run_falls_back_on_its_last_layer() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(77, 20), nn.ReLU(), nn.Linear(20, 5))
    assert classifier_of(net)[0] == "3"


def test_no_classifier_at_all_is_said() -> None:
    with pytest.raises(UserError, match="at the end of the net"):
        classifier_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))


def test_under_a_final_relu_no_class_starts_silent() -> None:
    module = build("squeezenet1_1", 5, image_size=48, seed=0).module.eval()
    x = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert module(x).min() > 0


def test_scaling_is_repeatable_and_independent_of_global_state() -> None:
    first, second = nn.Linear(64, 10), nn.Linear(64, 10)
    scale_classifier(nn.Sequential(nn.Flatten(), first), seed=3)
    torch.rand(7)
    scale_classifier(nn.Sequential(nn.Flatten(), second), seed=3)
    assert torch.equal(first.weight, second.weight)
    assert first.bias.abs().max() == 0
    assert first.weight.std().item() == pytest.approx(0.03 / 8, rel=0.1)

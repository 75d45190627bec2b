"""Layer tables: against the lecture's figures, torch's own counter, and hand computation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import cast

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from wellfit.errors import UserError
from wellfit.models.catalogue import hollow_net
from wellfit.models.complexity import Complexity, Layer, complexity

# SPEC V1: weights of each layer without biases, and activations of each map.
VGG16_WEIGHTS = [
    *(1728, 36864, 73728, 147456, 294912, 589824, 589824, 1179648, 2359296, 2359296, 2359296, 2359296, 2359296),
    *(102760448, 16777216, 4096000),
]
VGG16_ACTIVATIONS = [
    *(150528, 3211264, 3211264, 802816, 1605632, 1605632, 401408, 802816, 802816, 802816, 200704),
    *(401408, 401408, 401408, 100352, 100352, 100352, 100352, 25088, 4096, 4096, 1000),
]


@pytest.fixture(scope="module")
def vgg16() -> Complexity:
    return complexity(hollow_net("vgg16", image_size=224), 224)


def by_name(table: Complexity, name: str) -> Layer:
    return next(layer for layer in table.layers if layer.name == name)


def test_v1_weights_layer_by_layer(vgg16: Complexity) -> None:
    assert [layer.weights for layer in vgg16.layers if layer.weights] == VGG16_WEIGHTS
    assert vgg16.weights == 138_344_128
    assert vgg16.parameters == 138_357_544
    assert vgg16.biases == 138_357_544 - 138_344_128


def test_v1_activations_and_their_true_sum(vgg16: Complexity) -> None:
    assert [layer.activations for layer in vgg16.layers if layer.activations] == VGG16_ACTIVATIONS
    assert vgg16.activations == sum(VGG16_ACTIVATIONS) == 15_237_608
    assert vgg16.bytes == {"parameters": 4 * 138_357_544, "activations": 60_950_432, "with_backward": 121_900_864}


def test_v1_operations_by_hand(vgg16: Complexity) -> None:
    first = by_name(vgg16, "features.0")
    assert first.output_shape == [64, 224, 224]
    assert first.flops == 2 * 3 * 3 * 3 * 64 * 224 * 224
    assert by_name(vgg16, "classifier.6").flops == 2 * 4096 * 1000
    assert by_name(vgg16, "features.1").flops == 0


def test_the_sentence_that_the_table_supports(vgg16: Complexity) -> None:
    assert vgg16.early_activations is not None
    assert vgg16.late_parameters is not None
    assert round(vgg16.early_activations, 2) == 0.72
    assert round(vgg16.late_parameters, 2) == 0.89
    text = " ".join(vgg16.sentences)
    for part in ("15,237,608", "61 MB", "72%", "89%", "features.9", "128×56×56"):
        assert part in text


def test_receptive_fields_of_vgg16(vgg16: Complexity) -> None:
    seen = [layer.receptive_field for layer in vgg16.layers if layer.type in ("Conv2d", "MaxPool2d")]
    assert seen == [3, 5, 6, 10, 14, 16, 24, 32, 40, 44, 60, 76, 92, 100, 132, 164, 196, 212]
    assert by_name(vgg16, "classifier.0").receptive_field is None


def test_three_3x3_convolutions_see_7x7_with_fewer_weights() -> None:
    width = 16
    stack = nn.Sequential(*(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(3)))
    single = nn.Sequential(nn.Conv2d(width, width, 7, padding=3, bias=False))
    small, large = (complexity(net, (width, 32, 32)) for net in (stack, single))
    assert small.receptive_field == large.receptive_field == 7
    assert small.parameters == 3 * 9 * width**2
    assert large.parameters == 49 * width**2


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("lenet5", 32), ("whitened", 32), ("resnet20", 32), ("plain20", 32), ("alexnet2012", 227), ("resnet18", 224),
        ("vgg19_bn", 224), ("googlenet", 224), ("densenet121", 224), ("mobilenet_v3_small", 224), ("swin_t", 224),
        ("vit_b_32", 224), ("squeezenet1_1", 224), ("shufflenet_v2_x0_5", 224), ("regnet_x_400mf", 224),
        ("timm:convnext_atto", 224), ("timm:test_vit", 160), ("timm:resnet26d", 224),
    ],
)  # fmt: skip
def test_counts_agree_with_torchs_counter_and_the_models_own_parameters(name: str, size: int) -> None:
    net = hollow_net(name, image_size=size)
    table = complexity(net, size)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.to("meta").eval()(torch.empty(1, 3, size, size))
    assert table.flops == counter.get_total_flops() > 0
    assert table.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert table.layers[0].name == "input"


def test_the_count_on_real_numbers_is_the_same() -> None:
    net = torchvision.models.mobilenet_v2(num_classes=7).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 64, 64))
    assert complexity(net, 64).flops == counter.get_total_flops()


def test_the_given_model_is_not_changed_and_its_hooks_stay_silent() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 2))
    called: list[nn.Module] = []
    handle = net[0].register_forward_hook(lambda part, _in, _out: called.append(part))
    net[0].register_forward_pre_hook(lambda part, _in: called.append(part))
    before, random_state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    complexity(net, 8)
    assert net.training
    assert not called
    assert handle.id in net[0]._forward_hooks
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(parameter.is_meta for parameter in net.parameters())
    assert torch.equal(random_state, torch.get_rng_state())


def test_a_net_on_the_meta_device_takes_no_values() -> None:
    with torch.device("meta"):
        net = torchvision.models.vgg19()
    assert complexity(net, 224).parameters == 143_667_240


class Functional(nn.Module):
    """Layers without modules, a tensor outside the buffers, a layer called twice, weights that are shared."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 3, 3, 3))
        self.shared = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.shared.weight
        self.never = nn.Linear(5, 5)
        self.constant = torch.ones(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.weight) * self.constant + torch.ones(4, 1, 1)
        x = F.max_pool2d(x, 2).mean((2, 3))
        return self.tied(self.shared(self.shared(x)))


def test_what_is_computed_outside_modules_is_counted_where_it_happens() -> None:
    table = complexity(Functional(), 8)
    own = by_name(table, "(the net itself)")
    assert (own.weights, own.flops) == (108, 2 * 27 * 4 * 36)
    assert own.activations == 4 * 36 + 4 * 9 + 4
    calls = [layer for layer in table.layers if layer.name == "shared"]
    assert [call.parameters for call in calls] == [20, 0]
    assert [call.flops for call in calls] == [32, 32]
    assert by_name(table, "tied").parameters == 4  # its weights are those of `shared`
    assert by_name(table, "never").output_shape is None
    assert table.parameters == sum(parameter.numel() for parameter in Functional().parameters())
    assert table.flops == sum(layer.flops for layer in table.layers)


def test_attention_counts_the_weights_that_it_uses_itself() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attention(x, x, x)[0]

    table = complexity(Net(), (5, 8))
    layer = by_name(table, "attention")
    assert layer.parameters == 4 * 8 * 8 + 4 * 8
    assert layer.flops == 2 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)
    assert layer.receptive_field is None
    assert not [row for row in table.layers if row.output_shape is None]


class Branches(nn.Module):
    def __init__(self, *branches: nn.Module, join: str) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.join = join
        self.last = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [branch(x) for branch in self.branches]
        return self.last(torch.cat(maps, 1) if self.join == "cat" else sum(maps[1:], maps[0]))


def field(net: nn.Module, size: int = 32) -> int | None:
    return complexity(net, (4, size, size)).layers[-1].receptive_field


@pytest.mark.parametrize("join", ["cat", "add"])
def test_where_branches_meet_the_larger_field_holds(join: str) -> None:
    small, large = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 5, padding=2, dilation=1)
    assert field(Branches(small, large, nn.Identity(), join=join)) == 5
    shifted = Branches(nn.Identity(), nn.ZeroPad2d((3, -3, 3, -3)), join=join)
    assert field(shifted) == 4  # one pixel here and the one three further: from end to end


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([nn.Conv2d(4, 4, (1, 7)), nn.Conv2d(4, 4, (7, 1))], 7),
        ([nn.Conv2d(4, 4, 3, dilation=2)], 5),
        ([nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)], 6),
        ([nn.AvgPool2d(3, 2, 1), nn.BatchNorm2d(4), nn.GELU(), nn.LocalResponseNorm(3), nn.Conv2d(4, 4, 3)], 7),
        ([nn.Conv2d(4, 4, 3, stride=4), nn.Conv2d(4, 4, 3)], 11),
        ([nn.AdaptiveAvgPool2d(8), nn.Conv2d(4, 4, 3)], 12),
        ([nn.ChannelShuffle(2), nn.Conv2d(4, 4, 3, groups=2), nn.Dropout(0.5)], 3),
        ([nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1)], None),
        ([nn.Flatten(), nn.Linear(4 * 32 * 32, 2)], None),
        ([nn.Conv2d(4, 4, 3), nn.Upsample(scale_factor=2)], None),
    ],
)
def test_receptive_fields_by_hand(layers: list[nn.Module], expected: int | None) -> None:
    assert field(nn.Sequential(*layers)) == expected


def test_channels_last_linear_layers_see_one_position() -> None:
    class Pointwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.linear = nn.Linear(4, 6)
            self.again = nn.Conv2d(6, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.linear(self.conv(x).permute(0, 2, 3, 1))
            return self.again(x.permute(0, 3, 1, 2))

    table = complexity(Pointwise(), (4, 16, 16))
    assert [layer.receptive_field for layer in table.layers if layer.weights] == [3, 3, 5]


@pytest.mark.parametrize("seed", range(6))
def test_receptive_fields_are_where_the_gradient_reaches(seed: int) -> None:
    """Independent of the rules: the inputs that the middle unit of a random chain depends on."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    layers: list[nn.Module] = []
    for _ in range(draw(2, 4)):
        kernel, stride, dilation = draw(1, 4), draw(1, 2), draw(1, 2)
        if draw(0, 2):
            layers.append(nn.Conv2d(1, 1, kernel, stride, padding=draw(0, 2), dilation=dilation, bias=False))
            nn.init.ones_(layers[-1].weight)
        else:
            layers.append(nn.AvgPool2d(kernel, stride))
    net, size = nn.Sequential(*layers), 160
    x = torch.zeros(1, 1, size, size, requires_grad=True)
    y = net(x)
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    assert x.grad is not None
    reached = x.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert complexity(net, (1, size, size)).layers[-1].receptive_field == int(reached[-1] - reached[0]) + 1


def test_a_size_that_does_not_fit_is_one_sentence() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 9))
    with pytest.raises(UserError, match="3×8×8") as caught:
        complexity(net, 8)
    assert "\n" not in str(caught.value)
    for wrong in (0, (3, 0, 8), (), "224"):
        with pytest.raises(UserError, match="input_size"):
            complexity(net, wrong)


class Peeks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum().item() > 0 else -x


def test_a_net_that_needs_values_is_one_sentence() -> None:
    for net in (Peeks(), nn.LazyConv2d(4, 3)):
        with pytest.raises(UserError, match="without values") as caught:
            complexity(net, (3, 8, 8))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_count_the_same(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert complexity(copy.deepcopy(net).to(dtype), 8) == complexity(net, 8)


def test_normalisation_holds_nothing_new() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), nn.LocalResponseNorm(3),
        nn.LayerNorm([4, 6, 6]), nn.RMSNorm(6),
    )  # fmt: skip
    table = complexity(net, 8)
    assert table.activations == 3 * 64 + 4 * 36
    assert {layer.receptive_field for layer in table.layers[1:]} == {3}


def test_vectors_have_a_table_too() -> None:
    table = complexity(nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 2)), (10,))
    assert (table.parameters, table.flops, table.activations) == (67, 120, 17)
    assert table.receptive_field is None
    assert table.early_activations is None


def test_as_dict_is_json(tmp_path: Path) -> None:
    import json

    values = json.loads(json.dumps(complexity(nn.Sequential(nn.Conv2d(3, 2, 3)), 8).as_dict()))
    assert {"parameters", "flops", "activations", "layers"} <= values.keys()
    shown = "name, type, output_shape, weights, biases, parameters, activations, flops, receptive_field"
    assert ", ".join(values["layers"][1]) == shown
    assert values["layers"][1]["output_shape"] == [2, 6, 6]


def test_biases_are_told_by_name_also_in_recurrent_layers() -> None:
    (_, layer) = complexity(nn.LSTM(5, 3), (7, 5)).layers
    assert (layer.weights, layer.biases) == (4 * 3 * (5 + 3), 2 * 4 * 3)


def test_a_name_is_no_network() -> None:
    with pytest.raises(UserError, match=r"takes a network, an nn\.Module, got str"):
        complexity(cast(nn.Module, "vgg19"), 224)

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from wellfit.errors import UserError
from wellfit.models import zoo
from wellfit.models.zoo import build, names, resolve

OWN_MODELS = """
import random
import numpy as np
import torch
from torch import nn

class Keyword(nn.Module):
    def __init__(self, width=4, *, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.out = nn.Linear(width, num_classes)
    def forward(self, x):
        return self.out(self.conv(x).mean((2, 3)))

class Positional(Keyword):
    def __init__(self, outputs):
        super().__init__(num_classes=outputs)
        self.scale = nn.Parameter(torch.tensor([random.random(), np.random.rand()]))

def fixed():
    return Keyword(num_classes=1000)

def ignores(classes):
    return Keyword(num_classes=7)

def pair(classes):
    class Two(Keyword):
        def forward(self, x):
            return super().forward(x), x
    return Two(num_classes=classes)

def broken(classes):
    raise KeyError("width")

def nothing(classes):
    return "net"

number = 3
finished = Keyword(num_classes=5)
"""


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(OWN_MODELS, encoding="utf-8")
    (package / "bad.py").write_text("import no_such_module_at_all", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in [n for n in sys.modules if n.startswith("my_package")]:
        monkeypatch.delitem(sys.modules, name)
    return "my_package.nets"


def bits(module: torch.nn.Module) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in module.state_dict().items()}


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "squeezenet1_1", "timm:test_vit"])
def test_a_random_start_depends_on_the_seed_alone_and_leaves_no_trace(name: str) -> None:
    torch.manual_seed(1)
    first = bits(build(name, 5, image_size=64, seed=7).module)
    torch.manual_seed(2)
    np.random.seed(2)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    second = bits(build(name, 5, image_size=64, seed=7).module)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()
    other = bits(build(name, 5, image_size=64, seed=8).module)
    assert first == second
    assert first != other


def test_names_resolve_own_first_then_torchvision_then_timm() -> None:
    assert resolve("resnet18") == ("own", "resnet18")
    assert resolve("torchvision:resnet18") == ("torchvision", "resnet18")
    assert resolve("timm:resnet18") == ("timm", "resnet18")
    assert resolve("densenet121") == ("torchvision", "densenet121")
    assert resolve("vit_tiny_patch16_224") == ("timm", "vit_tiny_patch16_224")
    assert resolve("resnet50.a1_in1k") == ("timm", "resnet50.a1_in1k")
    assert resolve("package.module:Name") == ("user", "package.module:Name")


def test_every_listed_name_resolves() -> None:
    listed = names()
    assert listed[0] == "lenet5"
    assert "torchvision:vgg16" in listed
    assert "timm:vit_tiny_patch16_224" in listed
    assert not any("segmentation" in n or "raft" in n or "rcnn" in n for n in listed)
    for name in [*zoo.OWN, *listed[-3:]]:
        assert resolve(name)[1] == name.removeprefix("timm:")


@pytest.mark.parametrize(
    ("wrong", "suggestion"),
    [
        ("resnet8", "resnet"),
        ("squeezenet1_2", "squeezenet1_"),
        ("vit_tiny_patch16_223", "vit_tiny_patch16_224"),
        ("timm:resnte18", "resnet18"),
        ("torchvision:alexnett", "alexnet"),
        ("lenet", "lenet5"),
    ],
)
def test_an_unknown_name_names_the_nearest(wrong: str, suggestion: str) -> None:
    with pytest.raises(UserError, match=rf"did you mean '{suggestion}"):
        build(wrong, 10, image_size=32)


def test_an_unknown_tag_of_weights_is_unknown() -> None:
    with pytest.raises(UserError, match="unknown model"):
        resolve("resnet50.no_such_tag")


def test_options_reach_the_constructor_and_unknown_ones_are_named() -> None:
    assert build("mobilenet_v2", 4, image_size=32, width_mult=0.35).module.features[0][0].out_channels == 16
    assert build("timm:test_resnet", 4, image_size=32, channels=1).module(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
    assert build("lenet5", 4, image_size=28, channels=1).module(torch.zeros(2, 1, 28, 28)).shape == (2, 4)
    with pytest.raises(UserError, match="did you mean 'pooling'"):
        build("lenet5", 4, image_size=28, poling="max")
    with pytest.raises(UserError, match="widht_mult"):
        build("mobilenet_v2", 4, image_size=32, widht_mult=0.35)
    with pytest.raises(UserError, match="3 channels"):
        build("mobilenet_v2", 4, image_size=32, channels=1)
    with pytest.raises(UserError, match="at least 2 classes"):
        build("lenet5", 1, image_size=28)


@pytest.mark.parametrize(
    ("name", "size", "smallest"), [("alexnet", 32, 63), ("inception_v3", 64, 75), ("lenet5", 12, 16)]
)
def test_an_image_too_small_is_told_the_smallest_size(name: str, size: int, smallest: int) -> None:
    with pytest.raises(UserError, match=rf"{smallest}"):
        build(name, 10, image_size=size)
    assert build(name, 10, image_size=smallest).module is not None


def test_nets_bound_to_a_size_are_built_for_the_images() -> None:
    module = build("timm:test_vit", 5, image_size=48).module
    assert module(torch.zeros(1, 3, 48, 48)).shape == (1, 5)
    with pytest.raises(UserError, match=r"cannot (take|be made)"):
        build("vit_b_32", 5, image_size=40)


def test_building_leaves_the_net_in_training_mode_with_fresh_statistics() -> None:
    module = build("resnet20", 5, image_size=32).module
    assert module.training
    assert module.bn1.num_batches_tracked == 0
    assert module.bn1.running_mean.abs().max() == 0


def test_a_users_net_is_told_the_classes_by_keyword_or_by_place(own_models: str) -> None:
    path = list(sys.path)
    for name in ("Keyword", "Positional"):
        assert build(f"{own_models}:{name}", 5, image_size=16).module(torch.zeros(2, 3, 16, 16)).shape == (2, 5)
    assert build(f"{own_models}:Keyword", 5, image_size=16, width=9).module.conv.out_channels == 9
    assert sys.path == path


def test_a_users_random_start_depends_on_the_seed_alone(own_models: str) -> None:
    first = bits(build(f"{own_models}:Positional", 5, image_size=16, seed=3).module)
    torch.rand(1), np.random.rand(), random.random()
    assert bits(build(f"{own_models}:Positional", 5, image_size=16, seed=3).module) == first


def test_a_users_net_of_fixed_classes_gets_a_new_classifier(own_models: str) -> None:
    built = build(f"{own_models}:fixed", 5, image_size=16)
    assert built.module.out.out_features == 5
    assert "made anew" in built.notes[0]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_package.nets:Missing", "has no 'Missing'; it has: .*Keyword"),
        ("my_package.absent:Net", r"cannot be imported \(ModuleNotFoundError"),
        ("my_package.bad:Net", "no_such_module_at_all"),
        ("my_package.nets:number", "must be a function or a class"),
        ("my_package.nets:finished", "is a finished Keyword"),
        ("my_package.nets:nothing", "made a str"),
        ("my_package.nets:broken", "KeyError"),
        ("my_package.nets:ignores", r"shape \(1, 7\)"),
        ("my_package.nets:pair", "returns a tuple"),
        (":Net", "package.module:Name"),
        ("my package:Net", "package.module:Name"),
    ],
)
def test_a_users_mistake_in_a_path_is_one_sentence(own_models: str, path: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(path, 5, image_size=16)
    assert "\n" not in str(caught.value)

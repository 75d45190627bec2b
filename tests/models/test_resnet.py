from __future__ import annotations

import copy
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from wellfit.models import resnet
from wellfit.models.zoo import build


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_tensors_are_torchvisions_by_name_and_shape(depth: int) -> None:
    with torch.device("meta"):
        block, depths = resnet.DEPTHS[depth]
        ours = resnet.ResNet(block, depths, 1000)
        theirs = getattr(torchvision.models, f"resnet{depth}")()
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, v.shape) for k, v in theirs.state_dict().items()
    ]


@pytest.mark.parametrize(("depth", "training"), [(18, False), (18, True), (50, False)])
def test_computes_what_torchvisions_net_computes(depth: int, training: bool) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=5).train(training)
    block, depths = resnet.DEPTHS[depth]
    ours = resnet.ResNet(block, depths, 5).train(training)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 75, 75, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def no_residual(block: resnet.Block) -> None:
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", [resnet.BasicBlock, resnet.Bottleneck])
def test_a_block_with_zero_weights_is_the_identity(make: type[resnet.Block], training: bool) -> None:
    width = 16
    block = make(width * make.expansion, width, 1, resnet.projection).train(training)
    no_residual(block)
    x = torch.rand(2, width * make.expansion, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x)


def test_a_deep_net_made_from_a_shallow_one_by_identity_blocks_computes_the_same() -> None:
    shallow = resnet.CifarResNet(8, 10).eval()
    deep = copy.deepcopy(shallow)
    for stage in (deep.layer1, deep.layer2, deep.layer3):
        width = stage[0].conv1.out_channels
        for _ in range(3):
            extra = resnet.BasicBlock(width, width, 1, resnet.PadShortcut).eval()
            no_residual(extra)
            stage.append(extra)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(deep(x), shallow(x))


@pytest.mark.parametrize("shortcut", [resnet.projection, resnet.PadShortcut])
def test_stride_2_with_twice_the_filters_halves_the_activation_volume(shortcut: resnet.Shortcut) -> None:
    x = torch.zeros(1, 16, 32, 32)
    assert resnet.BasicBlock(16, 32, 2, shortcut)(x).numel() * 2 == x.numel()


def test_pad_shortcut_by_hand() -> None:
    x = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    y = resnet.PadShortcut(2, 4, 2)(x)
    assert y.shape == (1, 4, 2, 2)
    assert torch.equal(y[0, 1], torch.tensor([[0.0, 2.0], [8.0, 10.0]]))
    assert torch.equal(y[0, 2], torch.tensor([[16.0, 18.0], [24.0, 26.0]]))
    assert y[0, [0, 3]].abs().sum() == 0


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_cifar_nets_have_their_depth_and_no_parameters_in_shortcuts(depth: int) -> None:
    with torch.device("meta"):
        net = resnet.CifarResNet(depth, 10)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth
    assert not any("downsample" in key for key in net.state_dict())


def test_parameter_counts_of_the_paper() -> None:
    # He et al. 2015, table 6: 0.27M and 0.85M.
    with torch.device("meta"):
        counts = [sum(p.numel() for p in resnet.CifarResNet(depth, 10).parameters()) for depth in (20, 56)]
    assert [round(count / 1e6, 2) for count in counts] == [0.27, 0.85]


@pytest.mark.parametrize(("name", "twin"), [("plain18", "resnet18"), ("plain20", "resnet20"), ("plain56", "resnet56")])
def test_plain_nets_are_the_residual_ones_without_shortcuts(name: str, twin: str) -> None:
    plain, residual = (build(n, 10, image_size=32).module for n in (name, twin))
    missing = set(residual.state_dict()) - set(plain.state_dict())
    assert not set(plain.state_dict()) - set(residual.state_dict())
    assert all("downsample" in key for key in missing)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    block = plain.train().layer1[0]
    no_residual(block)
    assert block(plain.bn1(plain.conv1(x))).abs().max() == 0  # a residual block would pass its input on


def test_residual_blocks_start_as_the_identity_unless_told_otherwise() -> None:
    on, off, plain = (
        build("resnet20", 10, image_size=32).module,
        build("resnet20", 10, image_size=32, zero_init=False).module,
        build("plain20", 10, image_size=32).module,
    )
    assert all(b.bn2.weight.abs().max() == 0 for b in on.modules() if isinstance(b, resnet.Block))
    assert all(b.bn2.weight.min() == 1 for net in (off, plain) for b in net.modules() if isinstance(b, resnet.Block))


def test_small_images_get_a_small_stem_and_a_note() -> None:
    small, large = build("resnet18", 10, image_size=64), build("resnet18", 10, image_size=65)
    assert small.module.conv1.weight.shape == (64, 3, 3, 3)
    assert small.options["small_stem"] is True
    assert "small_stem" in small.notes[0]
    assert large.module.conv1.weight.shape == (64, 3, 7, 7)
    assert large.notes == []
    assert build("resnet18", 10, image_size=32, small_stem=False).module.conv1.stride == (2, 2)


def test_published_cifar_checkpoint_classifies_cifar_images(real_weights: Path) -> None:
    archive = real_weights.parent / "data" / "cifar10-jpg.tar.gz"
    if not archive.is_file():
        pytest.skip(f"WELLFIT_TEST_DATA has no {archive.name}")
    built = build("resnet20", 10, image_size=32, weights=real_weights / "resnet20-12fca82f.th")
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    images, targets = [], []
    with tarfile.open(archive) as tar:
        for member in tar:
            # Listing the whole archive takes long; the first classes stand for the rest.
            parts = Path(member.name).parts
            if member.isfile() and int(Path(member.name).stem) % 10 == 0:
                content = tar.extractfile(member)
                assert content is not None
                images.append(np.asarray(Image.open(io.BytesIO(content.read())).convert("RGB")))
                targets.append(names.index(parts[-2]))
            if len(images) == 1000:
                break
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        accuracy = (built.module.eval()(x).argmax(1) == torch.tensor(targets)).float().mean().item()
    assert len(set(targets)) >= 2
    assert accuracy > 0.7

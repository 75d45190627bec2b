"""The published CIFAR-10 ResNet-20 in our net of 20 layers, judged on test images of the lossy copy."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from PIL import Image

from wellfit.inference.metrics import wilson_interval
from wellfit.models.zoo import build

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
IMAGES_A_CLASS = 150


def test_reaches_0_80_on_test_images_of_every_class(real_weights: Path) -> None:
    archive = real_weights.parent / "data" / "cifar10-jpg.tar.gz"
    if not archive.is_file():
        pytest.skip(f"WELLFIT_TEST_DATA has no {archive.name}")
    images: dict[str, list[np.ndarray]] = {name: [] for name in CLASSES}
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            split, name, *_ = (*PurePosixPath(member.name).parts, "", "")
            if split == "test" and member.isfile() and len(images[name]) < IMAGES_A_CLASS:
                content = tar.extractfile(member)
                assert content is not None
                images[name].append(np.asarray(Image.open(io.BytesIO(content.read())).convert("RGB")))
    net = build("resnet20", 10, image_size=32, weights=real_weights / "resnet20-12fca82f.th").module.eval()
    pixels = torch.from_numpy(np.stack([image for name in CLASSES for image in images[name]]))
    x = pixels.permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    targets = torch.arange(10).repeat_interleave(IMAGES_A_CLASS)
    with torch.no_grad():
        correct = int((net(x).argmax(1) == targets).sum())
    assert len(x) == 10 * IMAGES_A_CLASS
    low, high = wilson_interval(correct, len(x))
    # 0.80 on all of the test images is within the interval of any fair subset, and far above what chance gives.
    assert high >= 0.80
    assert low >= 0.75

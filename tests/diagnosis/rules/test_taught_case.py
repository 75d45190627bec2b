"""SPEC C5: the two-layer net (50 hidden, weights 1e-4, mean-subtracted 0-255 pixels) at the taught wrong rates."""

import io
import os
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from wellfit.diagnosis.monitor import Monitor

PER_CLASS = 100


@cache
def pixels():
    """1,000 CIFAR-10 images, N×3072 with the mean image subtracted, and their classes."""
    root = os.environ.get("WELLFIT_TEST_DATA")
    archive = Path(root) / "data" / "cifar10-jpg.tar.gz" if root else None
    if archive is None or not archive.is_file():
        pytest.skip("needs data/cifar10-jpg.tar.gz in the folder that WELLFIT_TEST_DATA names")
    taken: dict[str, list[np.ndarray]] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if not member.isfile() or "train" not in parts or not member.name.endswith((".jpg", ".jpeg")):
                continue
            images = taken.setdefault(parts[-2], [])
            if len(images) < PER_CLASS:
                file = tar.extractfile(member)
                assert file is not None
                images.append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"), np.float32))
            if len(taken) == 10 and all(len(images) == PER_CLASS for images in taken.values()):
                break
    x = torch.tensor(np.concatenate([np.stack(images) for images in taken.values()])).flatten(1)
    return x - x.mean(0), torch.arange(10).repeat_interleave(PER_CLASS)


def findings_at(lr, seed, epochs):
    x, y = pixels()
    draw = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(3072, 50), nn.ReLU(), nn.Linear(50, 10))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(1e-4 * torch.randn(p.shape, generator=draw) if p.ndim > 1 else torch.zeros(p.shape))
    optimizer = torch.optim.SGD(net.parameters(), lr)
    with Monitor(net, optimizer, classes=10) as monitor:
        for _ in range(epochs):
            for batch in torch.randperm(len(x), generator=draw).split(100):
                penalty = 0.5e-6 * sum((p**2).sum() for p in net.parameters() if p.ndim > 1)
                loss = F.cross_entropy(net(x[batch]), y[batch]) + penalty
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.step(loss, targets=y[batch])
        return [f for f in monitor.findings() if f.severity != "info"]


@pytest.mark.parametrize("seed", range(2))
def test_a_rate_of_1e_6_is_named_too_low(seed):
    found = findings_at(1e-6, seed, epochs=15)
    assert found[0].id == "lr-too-low"
    assert "initialisation" in found[0].action


@pytest.mark.parametrize("seed", range(2))
def test_a_rate_of_3e_3_is_named_too_high(seed):
    found = findings_at(3e-3, seed, epochs=15)
    assert "lr-too-high" in [f.id for f in found[:2]]


@pytest.mark.parametrize("seed", range(2))
def test_a_rate_that_learns_is_named_neither(seed):
    ids = [f.id for f in findings_at(3e-4, seed, epochs=25)]
    assert "lr-too-low" not in ids
    assert "lr-too-high" not in ids

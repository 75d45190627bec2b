"""What of the GPU's program a processor can show."""

from __future__ import annotations

import gpu
import pytest
import torch
from torch.nn import functional


def test_without_a_gpu_it_says_so_and_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main([])
    assert "no GPU" in capsys.readouterr().out


def test_resident_views_are_shifts_and_mirror_images() -> None:
    batches = gpu.Resident(gpu.SMALLEST, "cpu")
    images, labels = batches.draw()
    assert images.shape == (gpu.SMALLEST.batch, 3, gpu.SIDE, gpu.SIDE)
    assert images.is_contiguous(memory_format=torch.channels_last)
    every = []
    for image in batches.pixels:
        for down in range(2 * gpu.SHIFT + 1):
            for right in range(2 * gpu.SHIFT + 1):
                view = image[:, down : down + gpu.SIDE, right : right + gpu.SIDE]
                every += [view, view.flip(2)]
    known = torch.stack(every).flatten(1).float()
    for image, label in zip(images, labels, strict=True):
        distance = (known - image.flatten().float()).abs().amax(1)
        found = int(distance.argmin())
        assert distance[found] == 0
        assert batches.labels[found // (2 * (2 * gpu.SHIFT + 1) ** 2)] == label


def test_both_loops_learn_the_same_task() -> None:
    """One class by brightness; each loop, at its own steps, comes to tell it."""
    for loop in (gpu.Ours(gpu.SMALLEST, "cpu", False), gpu.Bare(gpu.SMALLEST, "cpu", torch.bfloat16, False)):
        batches = loop.batches
        batches.pixels[:] = (20 * batches.labels).to(torch.uint8)[:, None, None, None]
        loop.run(40)
        net = loop.net.eval()
        with torch.no_grad():
            flat = (20 * torch.arange(gpu.CLASSES)).view(-1, 1, 1, 1).expand(-1, 3, gpu.SIDE, gpu.SIDE)
            mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (gpu.MEAN, gpu.STD))
            outputs = net((flat / 255 - mean) / std)
        assert functional.cross_entropy(outputs, torch.arange(gpu.CLASSES)) < 2.0


def test_the_peak_is_a_speed() -> None:
    assert 1e6 < gpu.peak(128, "cpu") < 1e15

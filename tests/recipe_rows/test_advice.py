"""The advice in practice: BatchNorm and augmentation almost always, weights of others for few images (SPEC R5, T0)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from tests.data.memory_store import random_images
from wellfit.config import Config
from wellfit.data.thumbnails import uniform_thumbnails
from wellfit.models.catalogue import hollow_net
from wellfit.recipe import augmentation, model_choice

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "choices.md"


def data_of(images: np.ndarray, targets: np.ndarray) -> SimpleNamespace:
    """As much of a prepared data set as the planner's choice of augmentations looks at."""
    return SimpleNamespace(
        split=SimpleNamespace(train=np.arange(len(images))),
        store=SimpleNamespace(thumbnails=uniform_thumbnails(images)),
        rows=lambda indices: indices,
        targets=lambda indices: targets[indices],
        classes=["a", "b"],
    )


def two_classes(mirrored_class: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bright at the top or the bottom; or, with `mirrored_class`, on the left or the right."""
    targets = np.arange(60) % 2
    images = random_images(60, 16, 16, seed=1) // 4
    for image, target in zip(images, targets, strict=True):
        half = slice(8 * target, 8 * target + 8)
        image[(slice(None), half) if mirrored_class else half] += 150
    return images, targets


def test_what_is_left_to_wellfit_follows_the_advice() -> None:
    reasons: list[str] = []
    config = Config(augment=("auto",))
    assert augmentation.augmentations(config, data_of(*two_classes(False)), 20, False, reasons) == ("flip", "crop")
    assert augmentation.augmentations(config, data_of(*two_classes(True)), 20, False, reasons) == ("crop",), (
        "where left is not right"
    )
    assert "mirror images keep their class" in reasons[0]
    assert "mirror images lose their class" in reasons[1]
    for name in ("resnet18", "resnet20", "plain20", "whitened"):
        kinds = [type(layer) for layer in hollow_net(name, image_size=32).modules()]
        assert nn.BatchNorm2d in kinds, name
    for name in ("alexnet2012", "vgg16"):  # fully connected layers of 4096
        layers = list(hollow_net(name, image_size=224).modules())
        assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)], name
        assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {0.5}


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("normalisation", ["`batch`, almost always"]),
        ("augmentation", ["almost always", "`cutout` and `mixup` for small sets"]),
        ("regularisation", ["dropout for large fully connected layers"]),
        ("optimizer", ["a good default", "often fine at a constant rate", "L-BFGS where a full batch is affordable"]),
        ("schedule", ["the fewest knobs"]),
    ],
)
def test_the_guide_gives_the_advice(choice: str, words: list[str]) -> None:
    rows = [line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {choice} |")]
    assert len(rows) == 1
    for word in words:
        assert word in rows[0]


@pytest.mark.parametrize(
    ("images", "short_side", "helps"),
    [(300, 224, True), (999_999, 64, True), (1_000_000, 224, False), (300, 32, False)],
)
def test_weights_are_looked_for_below_a_million_photographs(images: int, short_side: int, helps: bool) -> None:
    data = SimpleNamespace(short_side=short_side, split=SimpleNamespace(train=range(images)))
    assert model_choice._weights_would_help(data) is helps

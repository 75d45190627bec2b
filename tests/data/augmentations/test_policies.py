"""Operations against torchvision's v2 policies, and how often each is drawn (SPEC D12)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from tests.data.augmentations.conftest import even_grid
from tests.data.memory_store import random_images
from wellfit.data.augmentations import operations, policies
from wellfit.data.augmentations.operations import OPERATIONS, STANDARD, WIDE, apply_operations

PATCHES = random_images(8, 8, 8, seed=5).repeat(4, axis=1).repeat(4, axis=2)
BLACK = np.zeros((1, 1, 3), dtype=np.uint8)
UNSIGNED = ("Identity", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")


def by_torchvision(policy: type, name: str, images: np.ndarray, level: float, bins: int) -> np.ndarray:
    """The operation of torchvision's policy at the level, a multiple of 1 / (bins − 1) in [−1, 1]."""
    space = policy._AUGMENTATION_SPACE if name != "Invert" else v2.AutoAugment._AUGMENTATION_SPACE
    magnitudes = space[name][0](bins, *images.shape[1:3])
    magnitude = 0.0 if magnitudes is None else float(magnitudes[round(abs(level) * (bins - 1))])
    if level < 0 and name not in UNSIGNED:
        magnitude = -magnitude
    transform = policy(interpolation=v2.InterpolationMode.BILINEAR)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    made = transform._apply_image_or_video_transform(
        planes, name, magnitude, interpolation=v2.InterpolationMode.BILINEAR, fill={torch.Tensor: 0}
    )
    return made.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize(("policy", "reach"), [(v2.RandAugment, STANDARD), (v2.TrivialAugmentWide, WIDE)])
@pytest.mark.parametrize("level", [-20 / 30, 9 / 30, 1.0])
def test_each_operation_is_torchvisions(name: str, policy: type, reach: operations.Reach, level: float) -> None:
    expected = by_torchvision(policy, name, PATCHES, level, 31)
    made = apply_operations(PATCHES, np.full(8, name), np.full(8, level), BLACK, reach)
    difference = np.abs(made.astype(int) - expected)
    # Blended greys are cut off there and rounded here, and the rim of what is turned weighs the fill twice there.
    assert np.quantile(difference, 0.9) <= 2
    assert difference.mean() <= 1.5
    assert name == "Identity" or np.abs(made.astype(int) - PATCHES).mean() > 0.4


def test_every_image_gets_its_own_operation_and_level() -> None:
    names = np.array(["Rotate", "Solarize", "Rotate", "Identity", "Color", "Color", "ShearX", "Posterize"])
    levels = np.linspace(-1, 1, 8)
    together = apply_operations(PATCHES, names, levels, BLACK)
    for i in range(8):
        alone = apply_operations(PATCHES[i : i + 1], names[i : i + 1], levels[i : i + 1], BLACK)
        np.testing.assert_array_equal(together[i], alone[0])


@pytest.mark.parametrize("policy", policies.POLICIES)
def test_autoaugment_applies_the_drawn_pair_in_its_order(policy: str) -> None:
    table = v2.AutoAugment(v2.AutoAugmentPolicy(policy))._policies
    assert len(table) == 25
    for row, ((first, chance, level), (second, other_chance, other_level)) in enumerate(table):
        expected, draws = PATCHES, np.tile([(row + 0.5) / 25, chance - 1e-6, 0.9, other_chance - 1e-6, 0.1], (8, 1))
        if chance > 0:
            expected = apply_operations(expected, np.full(8, first), np.full(8, (level or 0) / 9), BLACK)
        if other_chance > 0:
            expected = apply_operations(expected, np.full(8, second), np.full(8, -(other_level or 0) / 9), BLACK)
        draws = np.maximum(draws, np.tile([0, 1e-9, 0, 1e-9, 0], (8, 1)))  # a chance of 0 is never met
        np.testing.assert_array_equal(policies.autoaugment(PATCHES, draws, policy, BLACK), expected)
        draws[:, [1, 3]] = chance, other_chance  # just not met
        np.testing.assert_array_equal(policies.autoaugment(PATCHES, draws, policy, BLACK), PATCHES)


def test_randaugment_and_trivialaugment_choose_each_operation_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def noted(images: np.ndarray, names: np.ndarray, levels: np.ndarray, *rest: object) -> np.ndarray:
        seen.append((names, levels))
        return images

    monkeypatch.setattr(policies, "apply_operations", noted)
    images = random_images(1, 4, 4).repeat(14 * 62, axis=0)
    grid = even_grid(14 * 62)[:, 0]
    rest = (grid * 14) % 1
    policies.randaugment(images, np.stack([grid, rest, grid[::-1], rest], axis=1), 9.0, BLACK)
    policies.trivialaugment(images, np.stack([grid, rest, (rest * 31) % 1], axis=1), BLACK)
    for names, levels in seen:
        kinds, counts = np.unique(names, return_counts=True)
        assert set(kinds) == set(v2.RandAugment._AUGMENTATION_SPACE)
        assert (counts == 62).all()
        assert abs(levels.mean()) < 1e-9  # as many of either sign
    for _, levels in seen[:2]:
        np.testing.assert_allclose(np.abs(levels), 0.3)
    np.testing.assert_allclose(np.unique(np.abs(seen[2][1])), np.arange(31) / 30, atol=1e-12)

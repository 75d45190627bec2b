"""Blended images and labels (SPEC D14, R4)."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.memory_store import random_images
from wellfit.data.augmentations.mixing import cutmix, mix, mixup, soft_targets

IMAGES = random_images(12, 8, 8, seed=7)
TARGETS = np.arange(12) % 3


def test_the_taught_example_cat_four_tenths_dog_six() -> None:
    np.testing.assert_allclose(soft_targets(np.array([0]), np.array([1]), 0.4, 2), [[0.4, 0.6]], rtol=1e-6)
    np.testing.assert_array_equal(soft_targets(np.array([2]), np.array([2]), 0.25, 4), [[0, 0, 1, 0]])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.5, 0.99, 1.0])
def test_mixup_is_the_weighted_mean_of_two_images(share: float) -> None:
    partners = IMAGES[::-1]
    mixed, applied = mixup(IMAGES, partners, share, np.zeros(2))
    assert abs(applied - share) <= 1 / 512
    expected = applied * IMAGES.astype(float) + (1 - applied) * partners
    np.testing.assert_allclose(mixed, expected, atol=0.5 + 1e-9)
    assert mixed.dtype == np.uint8


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.0, 0.0), (0.99, 0.3)])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.75, 1.0])
def test_cutmix_labels_are_the_shares_of_the_pixels(share: float, place: tuple[float, float]) -> None:
    black, white = np.zeros((2, 8, 8, 3), dtype=np.uint8), np.full((2, 8, 8, 3), 255, dtype=np.uint8)
    mixed, left = cutmix(black, white, share, np.array(place))
    pasted = (mixed == 255).all(3)
    assert left == pytest.approx(1 - pasted[0].mean())
    rows, columns = pasted[0].any(1), pasted[0].any(0)
    np.testing.assert_array_equal(pasted[0], np.outer(rows, columns))
    if place == (0.5, 0.5):
        assert rows.sum() == columns.sum() == round(8 * np.sqrt(1 - share))


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_rows_sum_to_one_and_belong_to_the_same_pairs_as_the_pixels(name: str) -> None:
    plain = np.broadcast_to((20 * np.arange(12, dtype=np.uint8))[:, None, None, None], (12, 8, 8, 3))
    for step in range(30):
        mixed, soft = mix(plain, np.arange(12), [(name, 1.0)], classes=12, seed=3, step=step)
        np.testing.assert_allclose(soft.sum(1), 1.0, rtol=1e-6)
        assert soft.dtype == np.float32
        # Image k is 20k all over, so that the mean pixel must be the targets' mean of 20k.
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), soft @ (20 * np.arange(12)), atol=0.51)


def test_the_mean_over_steps_is_the_class_mean_and_the_mean_image() -> None:
    """Training blends, test does not: the expectation of both labels and pixels is the plain batch's mean."""
    steps = 1500
    targets, pixels = np.zeros((12, 3)), np.zeros(IMAGES.shape)
    for step in range(steps):
        mixed, soft = mix(IMAGES, TARGETS, [("mixup", 1.0)], classes=3, seed=0, step=step)
        np.testing.assert_allclose(soft.mean(0), 1 / 3, atol=1e-6)  # in each batch already
        targets += soft / steps
        pixels += mixed / steps
    # E λ = 1/2: half the image's own class, half the mean of the batch.
    expected = 0.5 * np.eye(3)[TARGETS] + 0.5 / 3
    np.testing.assert_allclose(targets, expected, atol=0.06)
    np.testing.assert_allclose(pixels.mean(0), IMAGES.mean(0), atol=0.3)
    np.testing.assert_allclose(pixels, 0.5 * IMAGES + 0.5 * IMAGES.mean(0), atol=16)


def test_shares_come_from_the_beta_distribution_and_both_mixings_from_one_coin() -> None:
    made = [mix(IMAGES, np.arange(12), [("mixup", 0.2)], classes=12, seed=1, step=s)[1] for s in range(2000)]
    # In a batch all λ are one: that of the images whose partner is another, which hardly any order lacks.
    shares = np.array([soft.diagonal().min() for soft in made])
    assert shares.mean() == pytest.approx(0.5, abs=0.05)
    assert shares.var() == pytest.approx(0.25 / 1.4, rel=0.1)  # of Beta(α, α): 1 / (4 (2α + 1))
    black_and_white = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)])
    kinds = []
    for step in range(300):
        pixels, soft = mix(
            black_and_white, TARGETS[:2], [("mixup", 1.0), ("cutmix", 1.0)], classes=3, seed=2, step=step
        )
        if 0.1 < soft[0, 0] < 0.9:
            kinds.append(len(np.unique(pixels[0])) == 2)  # cutmix leaves black and white alone
    assert 0.3 < np.mean(kinds) < 0.7


def test_the_key_is_the_step() -> None:
    def at(step: int, seed: int = 0) -> bytes:
        return mix(IMAGES, TARGETS, [("cutmix", 1.0)], classes=3, seed=seed, step=step)[0].tobytes()

    assert at(3) == at(3)
    assert at(3) != at(4)
    assert at(3) != at(3, seed=1)

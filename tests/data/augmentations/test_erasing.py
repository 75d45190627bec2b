"""What is erased, where, and with what chance (SPEC D13, R4)."""

from __future__ import annotations

import numpy as np
import pytest

from wellfit.data.augmentations.erasing import cutout, random_erasing

FILL = np.array([[[1, 2, 3]]], dtype=np.uint8)


def white(count: int, side: int) -> np.ndarray:
    return np.full((count, side, side, 3), 255, dtype=np.uint8)


def test_a_square_is_set_to_the_fill_and_the_rest_stays() -> None:
    made = cutout(white(1, 8), np.array([[0.5, 0.25]]), 0.5, FILL)  # centre at row 4, column 2
    expected = white(1, 8)
    expected[0, 2:6, 0:4] = [1, 2, 3]
    np.testing.assert_array_equal(made, expected)


def test_at_the_rim_the_square_is_cut_off() -> None:
    made = cutout(white(1, 8), np.array([[0.0, 0.999]]), 0.5, FILL)
    assert (made[0] != 255).all(2).sum() == 2 * 3  # rows 0 and 1, columns 5 to 7
    assert (made[0, :2, 5:] == [1, 2, 3]).all()


def test_a_fill_of_the_images_size_is_cut_to_its_place() -> None:
    fill = np.random.default_rng(0).integers(0, 250, (8, 8, 3), dtype=np.uint8)
    made = cutout(white(1, 8), np.array([[0.5, 0.5]]), 0.5, fill)
    np.testing.assert_array_equal(made[0, 2:6, 2:6], fill[2:6, 2:6])


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_mean_training_image_keeps_one_minus_the_chance_of_each_pixel(share: float) -> None:
    """Test erases nothing; training's mean is (1 − q)·image + q·fill, q counted over all places of the square."""
    side, square = 16, round(16 * share)
    centres = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=2).reshape(-1, 2)
    mean = cutout(white(len(centres), side), (centres + 0.5) / side, share, FILL).astype(float).mean(0)
    line = np.array([sum(c - square // 2 <= p < c - square // 2 + square for c in range(side)) for p in range(side)])
    chance = np.outer(line, line)[:, :, None] / side**2
    np.testing.assert_allclose(mean, (1 - chance) * 255 + chance * FILL, atol=1e-9)
    assert chance[side // 2, side // 2] == pytest.approx((square / side) ** 2)


def test_rectangles_have_the_published_areas_and_shapes_and_lie_inside() -> None:
    side, count = 100, 3000
    draws = np.random.default_rng(2).random((count, 5))
    erased = (random_erasing(white(count, side), draws, 0.4, FILL) != 255).all(3)
    hit = erased.any((1, 2))
    assert abs(hit.mean() - 0.4) < 5 * np.sqrt(0.24 / count)
    np.testing.assert_array_equal(hit, draws[:, 0] < 0.4)
    height, width = erased[hit].any(2).sum(1), erased[hit].any(1).sum(1)
    np.testing.assert_array_equal(height * width, erased[hit].sum((1, 2)))  # one full rectangle
    area = height * width / side**2
    np.testing.assert_allclose(area, 0.02 + 0.31 * draws[hit, 1], atol=0.012)
    assert 0.017 < area.min() < 0.03
    assert 0.3 < area.max() < 0.345
    ratio = height / width
    assert 1 / 3.8 < ratio.min() < 0.4
    assert 2.5 < ratio.max() < 3.8
    assert abs(np.log(ratio).mean()) < 0.08
    assert (erased.mean(0)[40:60, 40:60].mean()) > 2 * erased.mean(0)[:5, :5].mean()


@pytest.mark.parametrize("draw", [0.0, 1 - 1e-12])
def test_the_ends_of_the_draws_stay_inside_any_image(draw: float) -> None:
    for side in (1, 2, 7):
        assert cutout(white(1, side), np.full((1, 2), draw), 1.0, FILL).shape == (1, side, side, 3)
        assert random_erasing(white(1, side), np.array([[0.0, draw, draw, draw, draw]]), 1.0, FILL).shape[1] == side

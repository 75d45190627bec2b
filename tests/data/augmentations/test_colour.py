"""Colour against torchvision's kernels, one image at a time, and against numpy (SPEC D9, D10, R4)."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from tests.data.augmentations.conftest import even_grid, middle
from tests.data.memory_store import MemoryStore, random_images
from wellfit.data.augmentations import colour
from wellfit.data.augmentations.draws import colour_axes

NOISE = random_images(8, 9, 9, seed=11)
DRAWS = np.linspace(0.02, 0.97, 8)[:, None]


def theirs(kernel: Callable[[torch.Tensor, float], torch.Tensor], factors: np.ndarray) -> np.ndarray:
    planes = torch.from_numpy(NOISE).permute(0, 3, 1, 2)
    made = [kernel(image, float(f)) for image, f in zip(planes, factors, strict=True)]
    return torch.stack(made).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("ours", "kernel", "strength", "centre"),
    [
        (colour.brightness, functional.adjust_brightness, 0.8, 1),
        (colour.contrast, functional.adjust_contrast, 0.8, 1),
        (colour.saturation, functional.adjust_saturation, 0.8, 1),
        (colour.hue, functional.adjust_hue, 0.5, 0),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_each_property_is_changed_as_torchvision_does(
    ours: Callable[..., np.ndarray], kernel: Callable[..., torch.Tensor], strength: float, centre: int
) -> None:
    expected = theirs(kernel, centre + (2 * DRAWS[:, 0] - 1) * strength)
    made = ours(NOISE, DRAWS, strength)
    assert np.abs(made.astype(int) - expected).max() <= 2  # they cut grey levels off where we round
    np.testing.assert_array_equal(ours(NOISE, middle(1), strength), NOISE)
    assert np.abs(made.astype(int) - NOISE).mean() > 5


def test_jitter_is_the_four_in_turn_rounded_once() -> None:
    draws = np.random.default_rng(0).random((8, 4))
    step = colour.brightness(NOISE, draws[:, [0]], 0.3)
    step = colour.contrast(step, draws[:, [1]], 0.3)
    step = colour.saturation(step, draws[:, [2]], 0.3)
    step = colour.hue(step, draws[:, [3]], 0.3 * colour.HUE_SHARE)
    together = colour.colour_jitter(NOISE, draws, 0.3)
    assert np.abs(together.astype(int) - step).max() <= 4
    np.testing.assert_array_equal(colour.colour_jitter(NOISE, middle(4), 0.3), NOISE)


@pytest.mark.parametrize("change", [colour.brightness, colour.contrast, colour.saturation])
def test_the_mean_over_factors_is_the_image(change: Callable[..., np.ndarray], smooth: np.ndarray) -> None:
    """Factors have mean 1 and these pixels never reach 0 or 255: training's mean is what the test side sees."""
    count = 200
    for image in smooth[:3]:
        mean = change(np.repeat(image[None], count, axis=0), even_grid(count), 0.3).mean(0)
        np.testing.assert_allclose(mean, image, atol=0.15)
    assert float(colour.factors(even_grid(count)[:, 0], 0.4).mean()) == pytest.approx(1.0, abs=1e-6)


def test_colour_axes_are_numpys_eigenvectors_times_eigenvalues() -> None:
    images = random_images(30, 8, 8, seed=3) // np.array([1, 2, 4], dtype=np.uint8)
    images[..., 1] = images[..., 0] // 2 + images[..., 1] // 4  # green follows red
    rows = np.arange(5, 25)
    axes = colour_axes(MemoryStore(images), rows)
    values, vectors = np.linalg.eigh(np.cov(images[rows].reshape(-1, 3).T / 255.0, bias=True))
    np.testing.assert_allclose(np.linalg.norm(axes, axis=0), values[::-1], rtol=1e-9)
    for ours, value, vector in zip(axes.T, values[::-1], vectors.T[::-1], strict=True):
        np.testing.assert_allclose(np.abs(ours @ vector), value, rtol=1e-9)


def test_the_offset_is_a_normal_sum_along_the_axes(smooth: np.ndarray) -> None:
    axes = np.array([[0.05, 0.01, 0.0], [0.04, -0.01, 0.001], [0.03, 0.0, -0.002]])
    draws = np.random.default_rng(4).random((4000, 3))
    grey = np.full((4000, 1, 1, 3), 128, dtype=np.uint8)
    offsets = colour.pca_colour(grey, draws, 1.0, axes)[:, 0, 0].astype(float) - 128
    covariance = (axes * 255) @ (axes * 255).T
    np.testing.assert_allclose(np.cov(offsets.T), covariance + np.eye(3) / 12, rtol=0.15, atol=0.5)
    assert np.abs(offsets.mean(0)).max() < 5 * np.sqrt(covariance.max() / 4000)  # none at the test side, and on average
    one = np.array([[0.8413447, 0.5, 0.5]])  # one deviation along the first axis
    moved = colour.pca_colour(smooth[:1], one, 0.1, axes).astype(float) - smooth[:1]
    np.testing.assert_allclose(moved, np.broadcast_to(25.5 * axes[:, 0], moved.shape), atol=0.51)
    np.testing.assert_array_equal(colour.pca_colour(smooth, middle(3), 0.1, axes), smooth)
    assert (
        colour.pca_colour(smooth[:1], np.zeros((1, 3)), 0.1, axes).dtype == np.uint8
    )  # the end of the draws is finite


def test_a_turned_hue_is_that_of_colorsys() -> None:
    draw = np.random.default_rng(3)
    pixels = draw.integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    pixels[:, 0] = pixels[:, 0, :, :1]  # greys, and pixels in which two channels lead
    pixels[:, 1, :, 1] = pixels[:, 1, :, 0]
    turns = np.array([-0.5, -0.2, 0.0, 0.1, 0.49])
    made = colour.hue(pixels, (turns[:, None] + 0.5), 0.5)
    for image, turned, turn in zip(pixels, made, turns, strict=True):
        for before, after in zip(image.reshape(-1, 3).tolist(), turned.reshape(-1, 3).tolist(), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in before))
            expected = [255 * value for value in colorsys.hsv_to_rgb((h + turn) % 1.0, s, v)]
            assert np.abs(np.array(after) - expected).max() <= 0.51


def test_images_worked_on_in_parts_are_those_worked_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0).random((8, 4))
    whole, images = colour.colour_jitter(NOISE, draws, 0.4), NOISE.copy()
    monkeypatch.setattr(colour, "PART", 3 * 81)
    np.testing.assert_array_equal(colour.colour_jitter(NOISE, draws, 0.4), whole)
    np.testing.assert_array_equal(NOISE, images)  # none is overwritten
    monkeypatch.setattr(colour, "PART", 1)
    np.testing.assert_array_equal(colour.colour_jitter(NOISE, draws, 0.4), whole)

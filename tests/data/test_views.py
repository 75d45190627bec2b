"""The square views of an image, told apart by a picture whose pixels say where they come from."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from tests.data.memory_store import ramp, random_images
from wellfit.data.views import SCALE_RANGE, evaluation_view, resize_region, training_view


def region_of(view: np.ndarray) -> tuple[float, float, float, float]:
    """(top, left, height, width) of the part of a ramp that a view shows, from its slope and centre."""
    size = len(view)
    inner = slice(size // 4, size - size // 4)  # away from the rim, where the kernel is cut off
    rows, columns = view[inner, size // 2, 0].astype(float), view[size // 2, inner, 1].astype(float)
    places = np.arange(size)[inner] + 0.5
    result = []
    for values in (rows, columns):
        slope, offset = np.polyfit(places, values + 0.5, 1)
        result.append((offset, slope * size))
    (top, height), (left, width) = result
    return top, left, height, width


def test_the_range_is_resnets() -> None:
    assert np.allclose(np.array(SCALE_RANGE) * 224, (256, 480))


@pytest.mark.parametrize(("height", "width"), [(200, 200), (160, 250), (250, 160)])
def test_the_evaluation_view_is_the_centre_of_the_image(height: int, width: int) -> None:
    view = evaluation_view(ramp(height, width), resize=64, size=56)
    assert view.shape == (56, 56, 3)
    assert view.dtype == np.uint8
    side = 160 * 56 / 64 if min(height, width) == 160 else 200 * 56 / 64
    expected = ((height - side) / 2, (width - side) / 2, side, side)
    np.testing.assert_allclose(region_of(view), expected, atol=1.5)


def test_a_view_of_the_whole_image_is_the_image() -> None:
    image = random_images(1, 32, 32)[0]
    np.testing.assert_array_equal(evaluation_view(image, 32, 32), image)


@pytest.mark.parametrize(("side", "size"), [(90, 32), (60, 48), (20, 32)])
def test_interpolation_agrees_with_pillows(side: int, size: int) -> None:
    image = np.kron(random_images(1, 12, 12)[0], np.ones((8, 8, 1), dtype=np.uint8))
    ours = resize_region(image, 3, 2, side, side, size)
    box = (2, 3, 2 + side, 3 + side)
    theirs = np.asarray(Image.fromarray(image).crop(box).resize((size, size), Image.Resampling.BILINEAR))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_training_views_are_drawn_as_spec_d7_says() -> None:
    """Short side to L uniform in [256, 480]·size/224, then a crop anywhere: geometry and distribution (D7)."""
    height, width, size = 200, 250, 56
    image = ramp(height, width)
    draws = np.random.default_rng(1).random((400, 3))
    regions = np.array([region_of(training_view(image, size, row)) for row in draws])
    top, left, tall, wide = regions.T
    assert (top > -1.5).all()
    assert (left > -1.5).all()
    assert (top + tall < height + 1.5).all()
    assert (left + wide < width + 1.5).all()
    np.testing.assert_allclose(tall, wide, atol=2.5)  # the aspect is kept
    side = (tall + wide) / 2
    short = min(height, width) / side * size  # L, the short side that the image was brought to
    share = (short - 256 * size / 224) / ((480 - 256) * size / 224)
    assert stats.kstest(np.clip(share, 0, 1), "uniform").pvalue > 0.01
    np.testing.assert_allclose(share, draws[:, 0], atol=0.08)
    for place, free in ((top, height - side), (left, width - side)):
        assert stats.kstest(np.clip(place / free, 0, 1), "uniform").pvalue > 0.01


@pytest.mark.parametrize("draw", [0.0, 1 - 1e-12])
@pytest.mark.parametrize("shape", [(8, 8), (7, 300), (1, 1), (33, 32)])
def test_the_ends_of_the_draws_stay_inside_any_image(draw: float, shape: tuple[int, int]) -> None:
    image = random_images(1, *shape)[0]
    view = training_view(image, 16, np.full(3, draw))
    assert view.shape == (16, 16, 3)
    assert view.min() >= image.min()
    assert view.max() <= image.max()

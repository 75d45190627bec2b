from __future__ import annotations

import numpy as np
import pytest

from tests.data.conftest import noise, scene
from wellfit.data.thumbnails import thumbnails, uniform_thumbnails


def by_blowing_up(image: np.ndarray) -> np.ndarray:
    """Every pixel repeated 16×16 times; each thumbnail pixel is then the plain mean of an H×W block."""
    height, width, _ = image.shape
    rows = image.astype(np.int64).repeat(16, axis=0).reshape(16, height, width, 3).sum(axis=1)
    sums = rows.repeat(16, axis=1).reshape(16, 16, width, 3).sum(axis=2)
    return (2 * sums + height * width) // (2 * height * width)  # rounded to nearest, halves up


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (8, 8), (16, 16), (28, 28), (33, 20), (40, 300), (200, 350)])
def test_area_means(shape: tuple[int, int]) -> None:
    for image in (noise(0, *shape), np.full((*shape, 3), 255, np.uint8)):
        assert (thumbnails([image])[0] == by_blowing_up(image)).all()


def test_a_small_image_is_repeated() -> None:
    image = noise(3, 8, 8)
    assert (thumbnails([image])[0] == image.repeat(2, axis=0).repeat(2, axis=1)).all()


def test_neighbours_in_the_list_do_not_matter() -> None:
    images = [noise(0, 9, 9), scene(1), noise(2, 9, 9), np.zeros((0, 0, 3), np.uint8), noise(4, 32, 32)]
    together = thumbnails(images)
    for image, thumbnail in zip(images, together, strict=True):
        assert (thumbnails([image])[0] == thumbnail).all()
    assert not together[3].any()


def test_uniform() -> None:
    images = np.stack([noise(i, 12, 20) for i in range(5)])
    assert (uniform_thumbnails(images) == thumbnails(list(images))).all()

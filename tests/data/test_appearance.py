from __future__ import annotations

import numpy as np
import pytest

from tests.data.conftest import scene
from wellfit.data.appearance import MISTAKES, PIXEL_MEASURES, appearance, block_means


def of(image: np.ndarray) -> dict[str, float]:
    return {name: float(values[0]) for name, values in appearance(image[None] / 255).items()}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return scene(3, 128, 160).astype(np.float64)


def test_every_measure_is_given_for_any_size_and_number_of_channels() -> None:
    for shape in ((3, 1, 1, 1), (3, 5, 7, 3), (3, 40, 30, 1), (2, 200, 180, 4)):
        seen = appearance(np.random.default_rng(0).random(shape))
        assert set(seen) == set(PIXEL_MEASURES)
        assert all(v.shape == shape[:1] and np.isfinite(v).all() for v in seen.values())


def test_images_are_measured_one_by_one() -> None:
    images = np.random.default_rng(0).random((4, 20, 24, 3)).astype(np.float32)
    together = appearance(images)
    for row in range(4):
        alone = appearance(images[row : row + 1])
        assert all(together[name][row] == pytest.approx(alone[name][0], abs=1e-6) for name in together)


def test_a_plain_image() -> None:
    image = np.zeros((32, 32, 3))
    image[:16] = 255  # upper half white
    seen = of(image)
    assert seen["brightness"] == pytest.approx(0.5)
    assert seen["upper"] == pytest.approx(1.0)
    assert seen["left"] == pytest.approx(0.0)
    assert (seen["darkest"], seen["brightest"]) == (0.0, 1.0)
    assert seen["colour"] == 0.0
    assert seen["direction"] < -1  # one level edge, no upright one


@pytest.mark.parametrize(
    ("change", "measure", "grows"),
    [
        (lambda x: np.clip(x + 30, 0, 255), "brightness", True),
        (lambda x: 128 + 0.5 * (x - 128), "contrast", False),
        (lambda x: x * np.array([1.2, 1.0, 0.8]), "warmth", True),
        (lambda x: x[:, :, ::-1], "left", None),
        (lambda x: x.mean(2, keepdims=True).repeat(3, 2), "colour", False),
        (lambda x: x + np.random.default_rng(0).normal(0, 12, x.shape), "sharpness", True),
    ],
)
def test_a_change_shows_in_its_measure(photo: np.ndarray, change, measure: str, grows: bool | None) -> None:
    before, after = of(photo)[measure], of(change(photo))[measure]
    if grows is None:
        assert abs(after) == pytest.approx(abs(before), abs=0.2)
        return
    assert (after > before) is grows
    assert abs(after - before) > PIXEL_MEASURES[measure].least


def test_jpeg_compression_leaves_its_blocks(photo: np.ndarray) -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(photo.astype(np.uint8)).save(buffer, "JPEG", quality=12)
    squeezed = np.asarray(Image.open(buffer)).astype(float)
    assert of(squeezed)["blocks"] > of(photo)["blocks"] + PIXEL_MEASURES["blocks"].least


def test_block_means_are_means() -> None:
    image = np.arange(48 * 32, dtype=np.float32).reshape(1, 48, 32, 1)
    blocks = block_means(image)
    assert blocks.shape == (1, 16, 16, 1)
    assert blocks[0, 0, 0, 0] == pytest.approx(image[0, :3, :2, 0].mean())
    assert block_means(image[:, :5]).shape == (1, 5, 16, 1)


def test_every_mistake_undoes_itself() -> None:
    image = np.random.default_rng(0).random((2, 6, 9, 3))
    for undo in MISTAKES.values():
        np.testing.assert_allclose(undo(undo(image)), image)
        assert undo(image).shape != image.shape or not np.allclose(undo(image), image)

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import encoded, scene
from wellfit.data.decode import decode
from wellfit.data.groups import connected
from wellfit.data.near_duplicates import contrasts, near_duplicate_pairs, telling
from wellfit.data.sources import open_source
from wellfit.data.thumbnails import thumbnails, uniform_thumbnails


def reencoded(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(encoded(pixels, "JPEG", quality=60))).convert("RGB"))


def resized(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    size = round(0.8 * width), round(0.8 * height)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def brighter(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels.astype(int) + 5, 0, 255).astype(np.uint8)


CHANGES = {"reencoded": reencoded, "resized": resized, "brighter": brighter}


def pairs_of(images: list[np.ndarray]) -> np.ndarray:
    shapes = np.array([image.shape[:2] for image in images])
    return near_duplicate_pairs(thumbnails(images), shapes)


def found(images: list[np.ndarray], copies: list[np.ndarray]) -> tuple[int, int]:
    """How many copies are connected with their original, and how many pairs there are of different pictures."""
    count = len(images)
    pairs = pairs_of([*images, *copies])
    component = connected(count + len(copies), pairs)
    wrong = pairs[pairs[:, 0] % count != pairs[:, 1] % count]
    return int((component[:count] == component[count:]).sum()), len(wrong)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found(change: str) -> None:
    images = [scene(i, 60 + i % 7, 90) for i in range(150)]
    assert found(images, [CHANGES[change](image) for image in images]) == (150, 0)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_of_real_photos(real_data: Path, change: str) -> None:
    source = open_source(real_data / "ants-bees.tar")
    images = [decode(source.reader.read(i), 160) for i in range(0, 244, 4)]
    hits, wrong = found(images, [CHANGES[change](image) for image in images])
    assert hits >= len(images) - 1
    assert wrong == 0


def test_real_small_images_are_told_apart(real_data: Path) -> None:
    source = open_source(real_data / "fashion-mnist")
    rows = [i for i, split in enumerate(source.splits) if split == "test"][:5000]
    images = np.stack([source.reader.read(i) for i in rows])
    images = np.repeat(images[..., None], 3, axis=3)
    shapes = np.full((len(images), 2), 28)
    pairs = near_duplicate_pairs(uniform_thumbnails(images), shapes)
    assert len(pairs) <= 0.005 * len(images)
    brighter_too = uniform_thumbnails(np.concatenate([images, brighter(images)]))
    pairs = near_duplicate_pairs(brighter_too, np.concatenate([shapes, shapes]))
    component = connected(2 * len(images), pairs)
    assert (component[: len(images)] == component[len(images) :]).mean() > 0.99


def test_pairs_are_sorted_and_unique() -> None:
    images = [scene(i) for i in range(20)]
    pairs = pairs_of([*images, *images])
    assert pairs.tolist() == [[i, i + 20] for i in range(20)]


def test_different_shapes_and_colours_are_different_images() -> None:
    image = scene(0)
    squeezed = np.asarray(Image.fromarray(image).resize((64, 96)))
    assert pairs_of([image, squeezed]).tolist() == []
    assert pairs_of([image, image[:, :, ::-1].copy()]).tolist() == []
    assert pairs_of([image, image[:, ::-1].copy()]).tolist() == []


def test_tiny_and_flat_images_are_never_paired() -> None:
    tiny = [scene(0, 15, 40)] * 3
    flat = [np.full((40, 40, 3), 100 + i, np.uint8) for i in range(3)]
    assert pairs_of([*tiny, *flat]).tolist() == []
    blue = np.zeros((40, 40, 3), np.uint8)
    blue[:, :, 2] = 255  # one colour, however strong, is flat
    assert pairs_of([blue, blue]).tolist() == []
    shapes = np.array([[15, 40], [40, 40], [96, 128]])
    assert telling(contrasts(thumbnails([tiny[0], blue, scene(1)])), shapes).tolist() == [False, False, True]


def test_contrast_is_the_standard_deviation_within_each_colour() -> None:
    image = uniform_thumbnails(scene(5)[None])
    centred = image[0].reshape(-1, 3) - image[0].reshape(-1, 3).mean(axis=0)
    assert contrasts(image) == pytest.approx([np.sqrt((centred**2).mean())])


@pytest.mark.parametrize("kind", ["same", "alike", "white"])
def test_thousands_of_equal_images_give_few_pairs(kind: str) -> None:
    one = uniform_thumbnails(np.full((1, 32, 32, 3), 250, np.uint8) if kind == "white" else scene(0)[None])
    many = np.repeat(one, 8000, axis=0)
    if kind != "same":
        many = many + np.random.default_rng(0).integers(0, 2, many.shape, dtype=np.uint8)
    pairs = near_duplicate_pairs(many, np.full((8000, 2), 64))
    assert len(pairs) <= 40 * 8000  # not 8000² / 2
    if kind == "same":
        assert not connected(8000, pairs).any()
    if kind == "white":
        assert len(pairs) == 0


def test_where_all_images_are_alike_only_closer_ones_are_copies() -> None:
    # Photos of one product from one place: each differs from the next by more than from its own copy.
    product = scene(0).astype(int)
    images = [np.clip(product + scene(100 + i) // 8, 0, 255).astype(np.uint8) for i in range(60)]
    assert pairs_of(images).tolist() == []
    assert pairs_of([*images, brighter(images[7])]).tolist() == [[7, 60]]


def test_none_and_one() -> None:
    assert near_duplicate_pairs(np.zeros((0, 16, 16, 3), np.uint8), np.zeros((0, 2), int)).shape == (0, 2)
    assert pairs_of([scene(0)]).shape == (0, 2)

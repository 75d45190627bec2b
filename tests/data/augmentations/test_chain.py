"""Augmentations by name, in batches: strengths, the user's own, independence of the batch size (SPEC D6-D14)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.memory_store import MemoryStore, random_images
from wellfit.data.augmentations.chain import Chain
from wellfit.data.augmentations.draws import Figures, fill_of
from wellfit.data.augmentations.geometry import rotate, shear, warp
from wellfit.data.augmentations.mirror_and_shift import flip, shift
from wellfit.data.augmentations.mixing import MIXINGS
from wellfit.data.augmentations.table import AUGMENTATIONS, mixing_names, parse, parse_all
from wellfit.data.batches import TrainingBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.errors import UserError
from wellfit.randomness import generator

IMAGES = random_images(48, 16, 16)
PLAIN = Preprocessing(16, 16, (0.5, 0.4, 0.3), (0.2,) * 3)
SINGLE = [name for name in AUGMENTATIONS if name not in MIXINGS]


def batches(augment: tuple[str, ...], batch_size: int = 16, seed: int = 4) -> TrainingBatches:
    return TrainingBatches(
        MemoryStore(IMAGES), np.arange(48), np.arange(48) % 3, PLAIN, batch_size=batch_size, augment=augment, seed=seed
    )


def by_image(augment: tuple[str, ...], batch_size: int, epoch: int = 1) -> np.ndarray:
    made, result = batches(augment, batch_size), np.zeros_like(IMAGES)
    for step in range(made.steps_per_epoch):
        batch = made.batch(epoch * made.steps_per_epoch + step)
        result[batch.positions] = batch.images.permute(0, 2, 3, 1).numpy()
    return result


@pytest.mark.parametrize("name", SINGLE)
def test_an_image_is_changed_alike_in_a_batch_of_any_size(name: str) -> None:
    together, alone = by_image((name,), 48), by_image((name,), 3)
    np.testing.assert_array_equal(together, alone)
    assert (together != IMAGES).any()
    other_epoch = by_image((name,), 48, epoch=2)
    assert (together != other_epoch).any()


@pytest.mark.parametrize("augment", [("mixup",), ("cutmix=0.5",), ("flip", "rotate", "lens", "mixup=1", "cutmix")])
def test_mixed_batches_are_reproduced_and_hold_shares(augment: tuple[str, ...]) -> None:
    first = batches(augment)
    for step in (0, 2, 5):
        one, again = first.batch(step), batches(augment).batch(step)
        np.testing.assert_array_equal(one.images, again.images)
        np.testing.assert_array_equal(one.targets, again.targets)
        assert one.targets.shape == (16, 3)
        np.testing.assert_allclose(one.targets.sum(1), 1.0, rtol=1e-6)
    assert mixing_names(augment) == [n for n in ("mixup", "cutmix") if any(a.startswith(n) for a in augment)]


def test_the_number_of_classes_can_be_larger_than_the_split_holds() -> None:
    made = TrainingBatches(
        MemoryStore(IMAGES), np.arange(48), np.zeros(48), PLAIN, batch_size=8, augment=("mixup",), classes=5
    )
    assert made.batch(0).targets.shape == (8, 5)


def test_neighbouring_maps_are_resampled_together_in_the_order_of_their_names() -> None:
    chain = Chain(parse_all(["rotate=40", "shear"]), Figures(), images=48, classes=3, seed=7)
    positions = np.arange(48)
    draws = [generator(7, name, 2).random((48, n)) for name, n in (("rotate", 1), ("shear", 2))]
    expected = warp(IMAGES, [(rotate, draws[0], 40.0), (shear, draws[1], 10.0)])
    np.testing.assert_array_equal(chain(IMAGES, positions, 2), expected)


def test_erased_pixels_are_zero_at_the_networks_input() -> None:
    made = batches(("cutout=0.75",), 48).batch(0)
    inputs = PLAIN.normalise(made.images)
    changed = (made.images.permute(0, 2, 3, 1).numpy() != IMAGES[made.positions]).any(3)
    erased = inputs.permute(0, 2, 3, 1).numpy()[changed]
    assert np.abs(erased).max() <= 0.5 / 255 / 0.2 + 1e-6
    mean_image = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
    fill = fill_of(Preprocessing(16, 16, (0.5,) * 3, (1.0,) * 3, "mean-image", mean_image))
    np.testing.assert_allclose(fill / 255, mean_image, atol=0.5 / 255 + 1e-6)


def test_the_mean_of_both_mirror_images_is_symmetric_and_of_all_shifts_centred() -> None:
    """Training flips and shifts; the test side is the plain image, in the middle of the shifts (R4)."""
    draws = (np.arange(48)[:, None] + 0.5) / 48
    one = np.repeat(IMAGES[:1], 48, axis=0)
    mean = flip(one, draws).astype(float).mean(0)
    np.testing.assert_allclose(mean, (IMAGES[0].astype(float) + IMAGES[0, :, ::-1]) / 2)
    np.testing.assert_allclose(mean, mean[:, ::-1])
    ramp = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8)[None, None, :, None], (25, 16, 16, 3))
    places = np.stack(np.meshgrid(np.arange(5), np.arange(5)), axis=2).reshape(25, 2)
    shifted = shift(np.ascontiguousarray(ramp), (places + 0.5) / 5, 0.125).astype(float).mean(0)
    np.testing.assert_allclose(shifted[:, 2:-2], ramp[0, :, 2:-2], atol=1e-9)  # offsets −2 … 2: the mean is the centre
    np.testing.assert_array_equal(shift(one, np.full((48, 2), 0.5), 0.125), one)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rotat", r"unknown augmentation 'rotat' \(did you mean 'rotate'\?\)"),
        (
            "rotate=400",
            r"'rotate' \(the largest angle in degrees\) is a number above 0 and up to 180, got 'rotate=400'",
        ),
        ("rotate=far", r"got 'rotate=far'; write for example 'rotate=15'"),
        ("cutout=0", "above 0 and up to 1, got 'cutout=0'"),
        ("mixup=nan", "got 'mixup=nan'"),
        ("flip=0.3", "'flip' has no strength to set, got 'flip=0.3'; write 'flip'"),
        ("autoaugment=cifar", r"unknown strength of 'autoaugment' 'cifar' \(did you mean 'cifar10'\?\)"),
        ("no.such.module:thing", "the module of augmentation 'no.such.module:thing' cannot be imported"),
    ],
)
def test_mistakes_are_one_sentence(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(text)


def test_one_is_named_once_whatever_its_strength() -> None:
    with pytest.raises(UserError, match="each augmentation is named once, got rotate, rotate"):
        parse_all(["rotate=3", "rotate"])
    assert [c.strength for c in parse_all(["rotate=3", "cutout", "autoaugment=svhn", "flip"])] == [3, 0.5, "svhn", None]


OWN = """
import numpy as np

def darker(image, random):
    return (image * random.random()).astype(np.uint8)

def smaller(image, random):
    return image[1:]

def broken(image, random):
    raise KeyError("palette")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_augmentations.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_augmentations", raising=False)


@pytest.mark.usefixtures("own")
def test_a_users_own_function_gets_each_image_and_its_own_generator() -> None:
    path = "own_augmentations:darker"
    made = by_image((path,), 16)
    for position in (0, 17, 47):
        factor = generator(4, path, 1, position).random()
        np.testing.assert_array_equal(made[position], (IMAGES[position] * factor).astype(np.uint8))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smaller", r"uint8 \(16, 16, 3\), but .*smaller' returned uint8 \(15, 16"),
        ("broken", "KeyError: 'palette'"),
    ],
)
def test_what_is_wrong_with_a_users_own_is_said(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        batches((f"own_augmentations:{name}",)).batch(0)

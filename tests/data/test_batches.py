"""Batches: any step can be asked for again, an epoch sees each image at most once, augmentation is per image."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data.memory_store import MemoryStore, random_images
from wellfit.data.batches import Batch, EvaluationBatches, TrainingBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.data.views import evaluation_view
from wellfit.errors import UserError

IMAGES = random_images(50, 8, 8)
TARGETS = np.arange(50) % 5
PLAIN = Preprocessing(8, 8, (0.5,) * 3, (0.2,) * 3)
LARGE = MemoryStore([random_images(1, 20 + i % 7, 30 - i % 5, seed=i)[0] for i in range(50)])


def training(batch_size: int = 8, store: MemoryStore | None = None, **options: object) -> TrainingBatches:
    chosen = store or MemoryStore(IMAGES)
    return TrainingBatches(chosen, np.arange(50), TARGETS, PLAIN, batch_size=batch_size, **options)


def pixels(batch: Batch) -> np.ndarray:
    return batch.images.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("store", [None, LARGE], ids=["native", "resized"])
@pytest.mark.parametrize("augment", [(), ("flip",), ("flip", "crop")])
def test_any_step_is_reproduced_by_a_fresh_object(store: MemoryStore | None, augment: tuple[str, ...]) -> None:
    steady = training(store=store, augment=augment, seed=4)
    seen = {step: steady.batch(step) for step in range(15)}
    for step in (14, 0, 7):
        again = training(store=store, augment=augment, seed=4).batch(step)
        np.testing.assert_array_equal(pixels(again), pixels(seen[step]))
        np.testing.assert_array_equal(again.targets, seen[step].targets)
        np.testing.assert_array_equal(again.positions, seen[step].positions)


def test_an_epoch_covers_each_image_at_most_once_in_an_order_of_its_own() -> None:
    batches = training(seed=1)
    assert batches.steps_per_epoch == 6
    epochs = [np.concatenate([batches.positions(e * 6 + i) for i in range(6)]) for e in range(3)]
    for order in epochs:
        assert len(order) == 48
        assert len(np.unique(order)) == 48
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], np.concatenate([training(seed=2).positions(i) for i in range(6)]))
    left_out = {i for order in epochs for i in set(range(50)) - set(order.tolist())}
    assert len(left_out) > 2  # not always the same two


def test_images_and_labels_stay_together() -> None:
    batches = training(seed=0)
    for step in range(6):
        batch = batches.batch(step)
        np.testing.assert_array_equal(batch.targets, TARGETS[batch.positions])
        np.testing.assert_array_equal(pixels(batch), IMAGES[batch.positions])


def test_rows_of_the_store_need_not_be_the_first() -> None:
    rows = np.array([40, 3, 17, 8])
    batches = TrainingBatches(MemoryStore(IMAGES), rows, np.array([0, 1, 2, 3]), PLAIN, batch_size=4)
    batch = batches.batch(0)
    np.testing.assert_array_equal(pixels(batch), IMAGES[rows[batch.positions]])


def test_a_batch_larger_than_the_split_is_the_split() -> None:
    batches = training(batch_size=500)
    assert (batches.batch_size, batches.steps_per_epoch) == (50, 1)
    assert sorted(batches.positions(0)) == list(range(50))


def test_augmentation_does_not_depend_on_the_batch_size() -> None:
    def by_image(batch_size: int) -> dict[int, bytes]:
        batches = training(batch_size, augment=("flip", "crop"), seed=9)
        made = [batches.batch(step) for step in range(batches.steps_per_epoch)]
        return {int(i): image.tobytes() for b in made for i, image in zip(b.positions, pixels(b), strict=True)}

    small, large = by_image(5), by_image(25)
    assert small.keys() == large.keys()
    assert small == large


def test_flips_are_half_of_the_images_and_alternate_between_epochs() -> None:
    images = random_images(1000, 4, 4, seed=2)
    preprocessing = Preprocessing(4, 4, (0.5,) * 3, (0.2,) * 3)
    batches = TrainingBatches(
        MemoryStore(images), np.arange(1000), np.zeros(1000), preprocessing, batch_size=100, augment=("flip",), seed=3
    )
    mirrored = np.zeros((4, 1000), dtype=bool)
    for step in range(40):
        batch = batches.batch(step)
        original = images[batch.positions]
        plain = (pixels(batch) == original).all((1, 2, 3))
        flipped = (pixels(batch) == original[:, :, ::-1]).all((1, 2, 3))
        assert (plain | flipped).all()
        mirrored[step // 10, batch.positions] = flipped
    shares = mirrored.mean(1)
    assert (np.abs(shares - 0.5) < 5 * 0.5 / np.sqrt(1000)).all()
    np.testing.assert_array_equal(mirrored[0], ~mirrored[1])
    np.testing.assert_array_equal(mirrored[0], mirrored[2])


@pytest.mark.parametrize(("crop", "most"), [("crop", 2), ("crop=0.0625", 1), ("crop=0.2", 3)])
def test_crops_are_windows_of_the_reflected_image_at_every_offset(crop: str, most: int) -> None:
    """Of 16 pixels an eighth, a sixteenth and, rounded, a fifth."""
    images, side = random_images(600, 16, 16, seed=5), 2 * most + 1
    preprocessing = Preprocessing(16, 16, (0.5,) * 3, (0.2,) * 3)
    batches = TrainingBatches(
        MemoryStore(images), np.arange(600), np.zeros(600), preprocessing, batch_size=200, augment=(crop,), seed=3
    )
    counts = np.zeros((side, side), dtype=int)
    for step in range(3):
        batch = batches.batch(step)
        padded = np.pad(images[batch.positions], ((0, 0), (most, most), (most, most), (0, 0)), mode="reflect")
        found = np.zeros(200, dtype=int)
        for top in range(side):
            for left in range(side):
                same = (padded[:, top : top + 16, left : left + 16] == pixels(batch)).all((1, 2, 3))
                counts[top, left] += same.sum()
                found += same
        assert (found == 1).all()
    expected = 600 / side**2
    bound = {1: 26.1, 2: 51.2, 3: 84.0}[most]  # chi², 8, 24 and 48 degrees of freedom, p = 0.001
    assert ((counts - expected) ** 2 / expected).sum() < bound


def test_where_evaluation_takes_the_centre_training_takes_a_fresh_random_view_each_epoch() -> None:
    cropped = Preprocessing(8, 10, (0.5,) * 3, (0.2,) * 3)
    batches = TrainingBatches(LARGE, np.arange(50), TARGETS, cropped, batch_size=50, augment=("crop",))
    one, other = batches.batch(0), batches.batch(1)
    assert one.images.shape == (50, 3, 8, 8)
    first = pixels(one)[np.argsort(one.positions)]
    second = pixels(other)[np.argsort(other.positions)]
    assert not (first == second).all((1, 2, 3)).any()


def test_random_views_are_the_same_at_any_shift() -> None:
    """A plan's shift is meant for its network; the small net that is trained beside it may see cut images."""
    cropped = Preprocessing(8, 10, (0.5,) * 3, (0.2,) * 3)
    made = [
        TrainingBatches(LARGE, np.arange(50), TARGETS, cropped, batch_size=50, augment=(crop,)).batch(0)
        for crop in ("crop", "crop=0.0625")
    ]
    np.testing.assert_array_equal(pixels(made[0]), pixels(made[1]))


def test_where_evaluation_takes_the_whole_image_training_shifts_it() -> None:
    batches = training(batch_size=50, store=LARGE, augment=("crop",))
    whole = EvaluationBatches(LARGE, np.arange(50), TARGETS, PLAIN, 50).batch(0)
    batch = batches.batch(0)
    padded = np.pad(pixels(whole)[batch.positions], ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    windows = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    found = np.stack([(window == pixels(batch)).all((1, 2, 3)) for window in windows])
    assert found.any(0).all()


def test_square_images_resized_together_are_those_resized_alone() -> None:
    images = random_images(6, 20, 20)
    together = EvaluationBatches(MemoryStore(images), np.arange(6), np.zeros(6), PLAIN, 6).batch(0)
    alone = np.stack([evaluation_view(image, 8, 8) for image in images])
    assert np.abs(pixels(together).astype(int) - alone).max() <= 1


def test_the_sampler_draws_classes_evenly() -> None:
    targets = np.repeat([0, 1], [180, 20])
    weights = np.array([1 / 180, 1 / 20])
    store = MemoryStore(random_images(200, 4, 4))
    preprocessing = Preprocessing(4, 4, (0.5,) * 3, (0.2,) * 3)
    batches = TrainingBatches(
        store, np.arange(200), targets, preprocessing, batch_size=20, class_weights=weights, seed=2
    )
    drawn = np.concatenate([batches.positions(step) for step in range(100)])
    assert abs((targets[drawn] == 1).mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)


def test_an_unknown_or_repeated_augmentation_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown augmentation 'flipp' \(did you mean 'flip'\?\)"):
        training(augment=("flipp",))
    with pytest.raises(UserError, match="each augmentation is named once, got flip, flip"):
        training(augment=("flip", "flip"))


def test_evaluation_is_in_order_whole_and_the_same_twice() -> None:
    batches = EvaluationBatches(MemoryStore(IMAGES), np.arange(50)[::-1], TARGETS, PLAIN, batch_size=16)
    assert len(batches) == 4
    for _ in range(2):
        made = list(batches)
        assert [len(batch.targets) for batch in made] == [16, 16, 16, 2]
        np.testing.assert_array_equal(np.concatenate([pixels(batch) for batch in made]), IMAGES[::-1])
        np.testing.assert_array_equal(np.concatenate([batch.targets for batch in made]), TARGETS)

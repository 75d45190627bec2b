"""Centring and scaling against plain numpy (SPEC D1, D2, D3)."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import torch

from tests.data.memory_store import MemoryStore, random_images
from wellfit.config import PREPROCESSINGS
from wellfit.data.preprocess import Preprocessing, channel_statistics, fit_preprocessing
from wellfit.errors import UserError

UNIFORM = random_images(40, 8, 8, seed=3) // np.array([1, 2, 4], dtype=np.uint8)
RAGGED = [random_images(1, 6 + i, 12 - i, seed=i)[0] // np.array([4, 1, 2], dtype=np.uint8) for i in range(6)]


@pytest.mark.parametrize("images", [UNIFORM, RAGGED], ids=["uniform", "ragged"])
def test_channel_figures_are_numpys_over_all_pixels(images: list[np.ndarray]) -> None:
    rows = np.array([0, 2, 3, 5])
    pixels = np.concatenate([images[i].reshape(-1, 3) for i in rows]) / 255.0
    mean, std = channel_statistics(MemoryStore(images), rows)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-12)


def test_many_rows_are_summed_in_parts_without_loss() -> None:
    images = random_images(5000, 4, 4)
    mean, std = channel_statistics(MemoryStore(images), np.arange(5000))
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(std, images.std((0, 1, 2)) / 255, rtol=1e-9)


def test_the_order_of_rows_changes_no_bit() -> None:
    store = MemoryStore(UNIFORM)
    one = fit_preprocessing(store, np.arange(40), size=8)
    assert fit_preprocessing(store, np.arange(40)[::-1], size=8) == one


def test_images_outside_the_training_split_count_for_nothing() -> None:
    changed = UNIFORM.copy()
    changed[30:] = 255
    rows = np.arange(30)
    for method in PREPROCESSINGS:
        before = fit_preprocessing(MemoryStore(UNIFORM), rows, size=8, method=method)
        after = fit_preprocessing(MemoryStore(changed), rows, size=8, method=method)
        assert json.dumps(before.as_dict()) == json.dumps(after.as_dict())


def normalised(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """N×S×S×3, from the object's own tensors."""
    return preprocessing.normalise(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()


def test_standardised_training_pixels_have_mean_0_and_std_1() -> None:
    values = normalised(UNIFORM, fit_preprocessing(MemoryStore(UNIFORM), np.arange(40), size=8))
    np.testing.assert_allclose(values.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(values.std((0, 1, 2)), 1, atol=1e-5)


def test_channel_mean_centres_and_does_not_scale() -> None:
    values = normalised(UNIFORM, fit_preprocessing(MemoryStore(UNIFORM), np.arange(40), size=8, method="channel-mean"))
    np.testing.assert_allclose(values, UNIFORM / 255.0 - UNIFORM.mean((0, 1, 2)) / 255.0, atol=1e-6)


def test_mean_image_subtracts_the_mean_of_each_place() -> None:
    fitted = fit_preprocessing(MemoryStore(UNIFORM), np.arange(40), size=8, method="mean-image")
    values = normalised(UNIFORM, fitted)
    np.testing.assert_allclose(values, (UNIFORM - UNIFORM.astype(float).mean(0)) / 255.0, atol=1e-6)


def test_mean_image_of_ragged_images_is_that_of_their_views() -> None:
    flat = [np.full((6 + i, 9, 3), 10 * i, dtype=np.uint8) for i in range(5)]
    fitted = fit_preprocessing(MemoryStore(flat), np.arange(5), size=4, method="mean-image")
    assert fitted.mean_image is not None
    np.testing.assert_allclose(fitted.mean_image, np.full((4, 4, 3), 20 / 255), rtol=1e-6)


def test_a_channel_that_never_varies_is_centred_and_not_divided_by_zero() -> None:
    images = UNIFORM.copy()
    images[..., 1] = 77
    values = normalised(images, fit_preprocessing(MemoryStore(images), np.arange(40), size=8))
    np.testing.assert_allclose(values[..., 1], 0, atol=1e-6)
    assert np.isfinite(values).all()


@pytest.mark.parametrize("method", PREPROCESSINGS)
def test_the_stored_form_gives_the_same_input(method: str) -> None:
    """What stands in model.json is applied again at prediction: JSON there and back changes nothing."""
    fitted = fit_preprocessing(MemoryStore(UNIFORM), np.arange(30), size=8, resize=10, method=method)
    again = Preprocessing.from_dict(json.loads(json.dumps(fitted.as_dict())))
    np.testing.assert_array_equal(normalised(UNIFORM, again), normalised(UNIFORM, fitted))
    assert (again.size, again.resize, again.method) == (8, 10, method)


def test_normalise_keeps_the_layout() -> None:
    fitted = fit_preprocessing(MemoryStore(UNIFORM), np.arange(30), size=8)
    pixels = torch.from_numpy(UNIFORM).permute(0, 3, 1, 2)
    assert fitted.normalise(pixels).is_contiguous(memory_format=torch.channels_last)
    assert fitted.normalise(pixels.contiguous()).is_contiguous()


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown preprocessing 'standardize' \(did you mean 'standardise'\?\)"):
        fit_preprocessing(MemoryStore(UNIFORM), np.arange(3), size=8, method="standardize")


def test_statistics_of_large_images_take_little_memory() -> None:
    """Two thousand images, 25 MB together, are counted in parts; all at once would take 90 MB."""
    store = MemoryStore(random_images(2048, 64, 64, seed=3))
    together = store.uniform()
    assert together is not None
    tracemalloc.start()
    mean, _ = channel_statistics(store, np.arange(2048))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(mean, together.mean((0, 1, 2)) / 255)
    assert peak < 60e6

"""The images that the cases draw."""

import gzip

import numpy as np
import pytest
import torch
from faults import data
from faults.data import load, standardise

from wellfit.errors import UserError


def test_digits_are_drawn_apart_and_by_seed():
    images = load("digits", train=1200, validation=597, seed=1)
    rows = {i.tobytes() + bytes([int(y)]) for i, y in zip(images.train, images.train_labels, strict=True)}
    other = {i.tobytes() + bytes([int(y)]) for i, y in zip(images.validation, images.validation_labels, strict=True)}
    from sklearn.datasets import load_digits

    bunch = load_digits()
    all_rows = {x.astype(np.uint8).tobytes() + bytes([int(y)]) for x, y in zip(bunch.images, bunch.target, strict=True)}
    assert rows | other == all_rows
    assert not rows & other
    assert images.train.shape == (1200, 8, 8, 1)
    again, differently = load("digits", train=1200, validation=597, seed=1), load("digits", train=1200, validation=597)
    assert np.array_equal(again.train, images.train)
    assert not np.array_equal(differently.train, images.train)


def test_chosen_classes_are_numbered_in_the_order_given():
    pair = load("digits", train=200, validation=100, classes=[7, 2])
    whole = load("digits", train=1200, validation=597)
    label_of = {i.tobytes(): int(y) for i, y in zip(whole.train, whole.train_labels, strict=True)}
    label_of |= {i.tobytes(): int(y) for i, y in zip(whole.validation, whole.validation_labels, strict=True)}
    assert [label_of[i.tobytes()] for i in pair.train] == [[7, 2][y] for y in pair.train_labels]
    assert pair.classes == 2


def test_more_images_than_there_are_is_refused():
    with pytest.raises(ValueError, match="'digits' has 597 images left for validation, 598 were asked for"):
        load("digits", train=1200, validation=598)
    with pytest.raises(ValueError, match="digits, fashion-mnist"):
        load("mnist", train=1, validation=1)


def test_standardise_uses_the_training_figures_for_both():
    images = load("digits", train=300, validation=100)
    tensors = standardise(images)
    mean, std = images.train.mean(), images.train.std()
    assert float(tensors.train.mean()) == pytest.approx(0, abs=1e-5)
    assert float(tensors.train.std()) == pytest.approx(1, abs=1e-3)
    expected = (images.validation[:, :, :, 0].astype(float) - mean) / std
    np.testing.assert_allclose(tensors.validation[:, 0].numpy(), expected, atol=2e-3)
    given = standardise(images, [4.0], [2.0])
    np.testing.assert_allclose(given.train[:, 0].numpy(), (images.train[..., 0].astype(float) - 4) / 2)


def test_fashion_is_read_from_its_files(test_data, monkeypatch):
    monkeypatch.setenv("WELLFIT_TEST_DATA", str(test_data))
    data._decoded.cache_clear()
    try:
        images = load("fashion-mnist", train=500, validation=300)
        assert (data.cache_folder() / "faults").is_dir()
    finally:
        data._decoded.cache_clear()
    raw = gzip.decompress((test_data / "data/fashion-mnist/train-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((test_data / "data/fashion-mnist/train-labels-idx1-ubyte.gz").read_bytes())[8:]
    known = {(raw[i * 784 : (i + 1) * 784], labels[i]) for i in range(60000)}
    assert {(i.tobytes(), int(y)) for i, y in zip(images.train, images.train_labels, strict=True)} <= known
    assert images.train.shape == (500, 28, 28, 1)
    assert torch.bincount(standardise(images).validation_labels, minlength=10).min() > 10


def test_without_the_folder_one_sentence_says_so(monkeypatch):
    monkeypatch.delenv("WELLFIT_TEST_DATA", raising=False)
    with pytest.raises(UserError, match="WELLFIT_TEST_DATA names a folder"):
        data.folder()

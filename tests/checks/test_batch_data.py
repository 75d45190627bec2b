"""What batches of tensors say of their data."""

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import nn
from torch.nn import functional
from torchvision.transforms import v2

from tests.checks.conftest import patterned, small_convnet
from wellfit.checks import batch_data
from wellfit.checks.batch_data import (
    fingerprints,
    imbalanced,
    leaked,
    not_finite,
    prepared_otherwise,
    softmax_twice,
    unnormalised,
)
from wellfit.checks.losses import LossKind

IMAGES, TARGETS = patterned(240)
OTHERS, OTHER_TARGETS = patterned(120, seed=4)


@pytest.mark.parametrize(
    "change", [lambda x: 60 * x + 120, lambda x: x / 255, lambda x: (x + 2) * 4, lambda x: x * 0.01 + 3]
)
def test_values_far_from_standard(change):
    (found,) = unnormalised(small_convnet(classes=4), change(IMAGES[:64]))
    assert found.severity == "warning"
    assert found.evidence["mean"] == pytest.approx(float(change(IMAGES[:64]).mean()), rel=1e-3)


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x.sigmoid(), lambda x: x.tanh(), lambda x: 2 * x])
def test_usual_ranges(change):
    assert unnormalised(small_convnet(classes=4), change(IMAGES[:64])) == []


def test_a_net_that_normalises_its_input_is_not_accused():
    raw = 60 * IMAGES[:64] + 120
    assert unnormalised(nn.Sequential(nn.BatchNorm2d(3), small_convnet(classes=4)), raw) == []
    assert unnormalised(nn.Sequential(nn.MaxPool2d(2), small_convnet(classes=4)), raw) != []


def test_shares_of_classes():
    assert imbalanced(np.array([100, 90, 110]), weighted=False) == []
    assert imbalanced(np.array([7, 2, 1, 9, 0]), weighted=False) == []
    assert imbalanced(np.array([14, 1]), weighted=False) == []  # few enough for chance
    (found,) = imbalanced(np.array([900, 30, 800]), weighted=False)
    assert (found.severity, found.evidence["smallest"], found.evidence["largest"]) == ("warning", 1, 0)
    assert imbalanced(np.array([900, 30, 800]), weighted=True)[0].severity == "info"


def test_class_counts_of_honest_batches_do_not_alarm():
    draw = np.random.default_rng(0)
    for _ in range(300):
        counts = np.bincount(draw.integers(0, 20, 64), minlength=20)
        assert imbalanced(counts, weighted=False) == []


def test_identical_images_on_both_sides():
    train, validation = fingerprints(IMAGES), fingerprints(OTHERS)
    assert len(set(train)) == len(IMAGES)
    assert leaked(train, validation) == []
    (found,) = leaked(train, fingerprints(torch.cat([OTHERS, IMAGES[3:5]])))
    assert found.evidence["copies"] == 2
    assert leaked(fingerprints(torch.zeros(2, 3, 4, 4)), fingerprints(torch.zeros(2, 3, 4, 4))) == []


def test_images_that_are_not_finite():
    images = IMAGES.clone()
    images[1, 0, 0, 0], images[2, 1, 1, 1] = torch.nan, torch.inf
    (found,) = not_finite(images)
    assert (found.severity, found.evidence["images"]) == ("error", 2)
    assert not_finite(IMAGES) == []


TINT = torch.tensor([0.6, 0.0, -0.6]).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("change", "explained"),
    [
        (lambda x: 60 * x + 120, None),
        (lambda x: 0.25 * x + 0.45, None),
        (lambda x: x / 255, None),
        (lambda x: (x + 2) * 4, None),
        (lambda x: x * torch.tensor([1.0, 1.0, 0.0]).view(1, 3, 1, 1), None),
        (lambda x: x.flip(1), "RGB and BGR"),
    ],
)
def test_validation_prepared_otherwise(change, explained):
    training, validation = (IMAGES + TINT, TARGETS), (change(OTHERS + TINT), OTHER_TARGETS)
    (found,) = prepared_otherwise(training, validation)
    assert found.id == "train-val-mismatch"
    if explained:
        assert explained in found.evidence["explained_by"]


@pytest.mark.parametrize(
    "augment",
    [
        lambda x: x,
        lambda x: x.flip(3),
        lambda x: torch.nn.functional.pad(x, (2, 2, 2, 2))[:, :, 1:17, 3:19],
        lambda x: 0.7 * x + 0.3 * x.roll(1, 0),
        lambda x: x * (0.8 + 0.4 * torch.linspace(0, 1, len(x)).view(-1, 1, 1, 1)),
        lambda x: torch.nn.functional.pad(x[:, :, 3:-3, 3:-3], (3, 3, 3, 3)),
    ],
)
def test_augmentation_of_the_training_images_is_no_mismatch(augment):
    assert prepared_otherwise((augment(IMAGES + TINT), TARGETS), (OTHERS + TINT, OTHER_TARGETS)) == []


# Brighter above, as photographs are, and darker to the right.
LIGHT = torch.linspace(0.8, -0.8, 16).view(1, 1, -1, 1) + torch.linspace(0.3, -0.3, 16).view(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.mean(1, keepdim=True).expand_as(x), "grey"),
        (lambda x: x.flip(2), "upside down"),
        (lambda x: x.mT, "with rows for columns"),
        (lambda x: x.flip((2, 3)), "turned by 180°"),
    ],
)
def test_what_whole_images_show_is_told_where_no_measure_within_classes_tells(change, said, monkeypatch):
    monkeypatch.setattr(batch_data, "contrasts", lambda *given: ([], ""))
    training, others = 0.5 * IMAGES + LIGHT + TINT, 0.5 * OTHERS + LIGHT + TINT
    (found,) = prepared_otherwise((training, TARGETS), (change(others), OTHER_TARGETS))
    assert said in found.message
    assert "of the same classes" in found.message
    assert found.evidence["images"][0] >= 40


@cache
def photographs():
    """N×3×32×32, standardised: squares out of two photographs, of half their size; of four classes in turns."""
    pictures = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2) / 255
    smaller = functional.avg_pool2d(pictures, 2)
    pixels = smaller.unfold(2, 32, 12).unfold(3, 32, 12).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 32, 32)
    mean, std = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    return (pixels - mean) / std, torch.arange(len(pixels)) // 2 % 4


def enlarged(images, share):
    """The inner part, or fewer pixels of the whole, made as large as the images are."""
    inner = images[:, :, 8:-8, 8:-8] if share == "inner" else functional.avg_pool2d(images, 2)
    return functional.interpolate(inner, size=(32, 32), mode="bilinear")


SHUFFLED = torch.randperm(32 * 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("augment", "change", "said"),
    [
        (None, lambda x: enlarged(x, "inner"), "smoother"),
        (None, lambda x: enlarged(x, "fewer"), "smoother"),
        (None, lambda x: functional.avg_pool2d(x, 3, 1, 1), "smoother"),
        (None, lambda x: x.flatten(2)[..., SHUFFLED].unflatten(2, (32, 32)), "rougher"),
        (
            None,
            lambda x: x - x.mean((1, 2, 3), keepdim=True),
            "",
        ),  # as augmentation of what was standardised alike does
        (lambda x: x - x.mean((1, 2, 3), keepdim=True), None, "all training images"),
        (v2.RandomResizedCrop(32, antialias=True), None, ""),  # by 1.4 times at the median
        (v2.GaussianBlur(3), None, ""),
        (lambda x: x * (torch.rand(len(x), 1, 32, 32) > 0.05), None, ""),  # sparse noise
        (lambda x: x + (x - functional.avg_pool2d(x, 3, 1, 1)), None, ""),  # sharpened
        (lambda x: torch.stack([v2.RandomErasing(0.5, value="random")(image) for image in x]), None, ""),
        (lambda x: 0 * x, None, ""),
        (None, lambda x: torch.where(torch.arange(len(x))[:, None, None, None] < 1, x, 0.0), ""),  # one picture left
        (lambda x: x + 0.3 * torch.randn_like(x), None, ""),
        (lambda x: x * (torch.rand(len(x), 1, 1, 1) + 0.5), None, ""),
        (None, None, ""),
    ],
)
def test_another_texture_or_scale_of_each_image_is_told_and_augmentation_is_not(augment, change, said, monkeypatch):
    monkeypatch.setattr(batch_data, "contrasts", lambda *given: ([], ""))
    training, others = (tuple(part[first::2] for part in photographs()) for first in (0, 1))
    torch.manual_seed(0)
    sides = [(f(x) if f else x, y) for f, (x, y) in zip((augment, change), (training, others), strict=True)]
    found = prepared_otherwise(*sides)
    assert len(found) == (1 if said else 0)
    assert not said or said in found[0].message


@pytest.mark.parametrize(
    "augment",
    [
        lambda x: torch.stack([v2.RandomErasing(0.5, value="random")(image) for image in x]),
        lambda x: x * (torch.rand(len(x), 1, 64, 64) > 0.05),
    ],
)
def test_noise_in_places_makes_smooth_validation_images_no_enlarged_ones(augment, monkeypatch):
    """Both sides are as smooth as radiographs are."""
    monkeypatch.setattr(batch_data, "contrasts", lambda *given: ([], ""))
    images, classes = photographs()
    large = functional.interpolate(images, size=(64, 64), mode="bicubic")
    torch.manual_seed(0)
    assert prepared_otherwise((augment(large[::2]), classes[::2]), (large[1::2], classes[1::2])) == []


def test_a_sorted_validation_split_begins_with_one_class_and_is_no_mismatch():
    """The first class alone is lighter above: only images of classes that both sides show are compared."""
    light = (TARGETS == 0).view(-1, 1, 1, 1) * LIGHT
    first = (OTHERS[OTHER_TARGETS == 0] + LIGHT).repeat(4, 1, 1, 1)
    assert prepared_otherwise((IMAGES + light, TARGETS), (first, torch.zeros(len(first), dtype=torch.long))) == []


def test_too_few_images_are_not_compared_as_a_whole(monkeypatch):
    monkeypatch.setattr(batch_data, "contrasts", lambda *given: ([], ""))
    training, others = 0.5 * IMAGES + LIGHT, (0.5 * OTHERS + LIGHT).flip(2)
    assert prepared_otherwise((training, TARGETS), (others[:39], OTHER_TARGETS[:39])) == []
    assert prepared_otherwise((training, TARGETS), (others[:60], OTHER_TARGETS[:60])) != []


def test_other_sizes_and_vectors_are_not_compared_where_they_cannot_be():
    larger = OTHERS.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert prepared_otherwise((IMAGES, TARGETS), (larger, OTHER_TARGETS)) == []
    assert prepared_otherwise((IMAGES.flatten(1), TARGETS), (OTHERS.flatten(1), OTHER_TARGETS)) == []
    assert prepared_otherwise((IMAGES, TARGETS), (OTHERS[:, :1], OTHER_TARGETS)) == []


def test_probabilities_into_cross_entropy():
    scores = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    (found,) = softmax_twice(scores.softmax(1), LossKind("cross-entropy", 1.386))
    assert found.id == "double-softmax"
    assert softmax_twice(scores, LossKind("cross-entropy", 1.386)) == []
    assert softmax_twice(scores.softmax(1), LossKind("negative log-likelihood", 1.386)) == []

"""train-val-mismatch: named where validation images are prepared otherwise, silent under ordinary augmentation."""

import itertools
import os
import tarfile
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from tests.diagnosis.conftest import digits
from wellfit.diagnosis.history import InputFigures
from wellfit.diagnosis.inputs import measure, sum_up_inputs, to_host
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.rules import RULES
from wellfit.diagnosis.rules.inputs import pool
from wellfit.diagnosis.rules.likeness import slight_difference

NAME = "train-val-mismatch"
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


@cache
def photographs():
    """uint8 900×3×32×32 from all classes of CIFAR-10, in random order."""
    folder = os.environ.get("WELLFIT_TEST_DATA")
    archive = Path(folder, "data", "cifar10-jpg.tar.gz") if folder else None
    if archive is None or not archive.exists():
        pytest.skip("needs data/cifar10-jpg.tar.gz under the folder that WELLFIT_TEST_DATA names")
    pixels = []
    with tarfile.open(archive) as file:
        pictures = (m for m in file if m.name.startswith("train/") and m.name.endswith(".jpg"))
        for member in itertools.islice(pictures, None, None, 55):
            with Image.open(BytesIO(file.extractfile(member).read())) as image:
                pixels.append(np.asarray(image.convert("RGB")))
    order = np.random.default_rng(0).permutation(len(pixels))[:900]
    return torch.from_numpy(np.stack(pixels)[order]).permute(0, 3, 1, 2).contiguous()


def scaled(x):
    return x.float() / 255


def normalised(x, mean=MEAN, std=STD):
    return (scaled(x) - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def judged(train, val, *, steps=30, batch=32, epochs=1):
    """The finding after a short training on batches of `train` and a validation on `val`."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.LazyLinear(10))
    model(train(0)[:2])
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    with Monitor(model, optimizer) as monitor:
        for epoch in range(epochs):
            model.train()
            for step in range(steps):
                x = train(steps * epoch + step)
                loss = F.cross_entropy(model(x), torch.zeros(len(x), dtype=torch.long))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.step(loss)
            model.eval()
            with torch.no_grad():
                for part in val.split(batch):
                    model(part)
            monitor.end_epoch(val_accuracy=0.1)
    assert NAME not in monitor.unjudged
    return RULES[NAME].judge(monitor.history)


def batches_of(images, augment=lambda x: x, prepare=normalised, size=32):
    def make(step):
        torch.manual_seed(step)
        rows = torch.randint(0, 600, (size,))
        return augment(prepare(images[rows]))

    return make


AUGMENTATIONS = {
    "none": lambda x: x,
    "flip, crop with black borders": v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(32, padding=4)]),
    "erasing": v2.RandomErasing(p=0.5),
    "random resized crop": v2.RandomResizedCrop(32, scale=(0.25, 1), antialias=True),
    "mixup": lambda x: 0.7 * x + 0.3 * x.flip(0),
    "noise": lambda x: x + 0.1 * torch.randn_like(x),
    "rotation": v2.RandomRotation(30),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmented_training_images_are_no_mismatch(name):
    x = photographs()
    assert judged(batches_of(x, AUGMENTATIONS[name]), normalised(x[600:])) is None


@pytest.mark.parametrize(
    "jitter",
    [v2.ColorJitter(0.4, 0.4, 0.4, 0.1), v2.RandAugment(), v2.RandomGrayscale(0.2), v2.TrivialAugmentWide()],
    ids=lambda j: type(j).__name__,
)
def test_augmentation_of_bytes_is_no_mismatch(jitter):
    x = photographs()

    def train(step):
        torch.manual_seed(step)
        rows = torch.randint(0, 600, (32,))
        return normalised(torch.stack([jitter(image) for image in x[rows]]))

    assert judged(train, normalised(x[600:]), steps=22) is None


@pytest.mark.parametrize("size", [24, 48])
def test_another_test_time_resolution_is_no_mismatch(size):
    x = photographs()
    val = F.interpolate(normalised(x[600:]), size=(size, size), mode="bilinear", antialias=True)
    assert judged(batches_of(x), val) is None


def test_small_or_sorted_validation_sets_are_no_mismatch():
    x = photographs()
    by_level = normalised(x[600:])[scaled(x[600:]).mean((1, 2, 3)).argsort()]
    assert judged(batches_of(x), by_level) is None
    for start in range(600, 900, 20):
        assert judged(batches_of(x), normalised(x[start : start + 20]), steps=12) is None


WRONG = {
    "not normalised": (scaled, "contrast"),
    "bytes": (lambda x: x.float(), "contrast"),
    "normalised twice": (lambda x: (normalised(x) - 0.48) / 0.25, "contrast"),
    "another normalisation": (lambda x: normalised(x, (0.5,) * 3, (0.5,) * 3), "contrast"),
    "channels swapped": (lambda x: normalised(x.flip(1)), "channel"),
    "grey": (lambda x: normalised(x.float().mean(1, keepdim=True).expand_as(x)), "grey"),
    "mean not subtracted": (lambda x: scaled(x) / 0.25, "level"),
    "enlarged from 8 pixels": (
        lambda x: F.interpolate(F.interpolate(normalised(x), (8, 8), mode="area"), (32, 32), mode="bilinear"),
        "blurred",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_validation_images_prepared_otherwise_are_named(name):
    x = photographs()
    prepare, words = WRONG[name]
    # Photographs have little colour on average: it takes many of them to see two channels swapped.
    finding = judged(batches_of(x), prepare(x.repeat(2, 1, 1, 1)), steps=150)
    assert words in finding.message
    assert finding.severity == "warning"
    assert finding.evidence["train"]["shape"] == finding.evidence["val"]["shape"] == [3, 32, 32]


def test_a_second_set_that_is_wrong_is_named_beside_one_that_is_right():
    x = photographs()
    right, wrong = normalised(x[600:700]), scaled(x[700:])
    sets = [right[:65], wrong]
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    monitor = Monitor(model, optimizer)
    train = batches_of(x)
    for step in range(12):
        loss = model(train(step)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(loss)
    with torch.no_grad():
        for part in itertools.chain(*(images.split(32) for images in sets)):
            model(part)
    monitor.end_epoch(val_accuracy=0.1)
    assert "contrast" in RULES[NAME].judge(monitor.history).message


TURNED = {
    "upside down": lambda x: x.flip(-2),
    "turned by 180°": lambda x: x.flip((-2, -1)),
    "rows for columns": lambda x: x.mT,
    "turned by 90°": lambda x: x.rot90(1, (-2, -1)),
    "turned by 270°": lambda x: x.rot90(-1, (-2, -1)),
}


@pytest.mark.parametrize("name", TURNED)
def test_turned_images_are_named_by_how_they_were_turned(name):
    """Skies are above: photographs have an up and a down, and hardly a left and a right."""
    x = photographs()
    finding = judged(batches_of(x), TURNED[name](normalised(x.repeat(2, 1, 1, 1))), steps=150)
    assert finding.severity == "warning"
    assert name in finding.message


@pytest.mark.parametrize("name", ["none", "flips of both kinds"])
def test_images_that_are_turned_on_both_sides_are_no_mismatch(name):
    x = photographs()
    both = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])
    augment = AUGMENTATIONS["none"] if name == "none" else lambda rows: torch.stack([both(row) for row in rows])
    val = normalised(x[600:])
    assert judged(batches_of(x, augment), val.flip(-1) if name == "none" else val.flip(-2), steps=150) is None


def test_images_that_lie_elsewhere_in_their_frame_are_named():
    x = digits()[0]
    train = batches_of(x, prepare=lambda rows: rows)
    moved = x[600:900].roll(3, -1)
    assert "lie elsewhere" in judged(train, moved).message


def test_noise_in_training_is_not_taken_for_another_place():
    x = digits()[0]
    noise = batches_of(x, prepare=lambda rows: 0.7 * rows + 0.7 * torch.randn_like(rows))
    assert "lie elsewhere" not in str(judged(noise, x[600:900]))
    less = batches_of(x, prepare=lambda rows: 0.95 * rows + 0.3 * torch.randn_like(rows))
    assert "lie elsewhere" in str(judged(less, x[600:900].roll(3, -1)))


def test_swapped_channels_show_where_each_channel_is_normalised_by_itself():
    """Levels agree then in either order; how they scatter does not."""
    x = photographs()
    means, stds = scaled(x).mean((0, 2, 3)).tolist(), scaled(x).std((0, 2, 3)).tolist()

    def prepare(rows):
        return normalised(rows, means, stds)

    swapped = judged(batches_of(x, prepare=prepare), prepare(x.repeat(2, 1, 1, 1).flip(1)), steps=150)
    assert "channel" in swapped.message


@pytest.mark.parametrize("size", [384, 512])
def test_where_an_image_is_bright_is_seen_alike_in_small_and_large_batches(size):
    light = torch.linspace(1.0, -1.0, size).view(1, 1, -1, 1)
    draw = torch.Generator().manual_seed(0)
    x = light + 0.3 * torch.randn(32, 3, size, size, generator=draw)
    small, large = (sum_up_inputs(to_host([measure(x[:n])]), (3, size, size)).bands for n in (4, 32))
    assert small == pytest.approx(large, abs=0.05)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_lag_alone_makes_no_mismatch_of_augmentation(name):
    x = photographs()
    train, val = (figures_of(part) for part in (AUGMENTATIONS[name](normalised(x[:600])), normalised(x[600:])))
    assert slight_difference(train, val) is None


def figures_of(images):
    return sum_up_inputs(to_host([measure(part) for part in images.split(30)]), (3, 32, 32))


@pytest.mark.parametrize(("lag", "said"), [(0.02, False), (0.1, True)])
def test_a_slight_difference_counts_where_validation_lags_from_the_start(lag, said):
    x = photographs()
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    train, val = batches_of(x), normalised(x[600:]) / 1.3
    with Monitor(model, optimizer) as monitor:
        for epoch in range(3):
            for step in range(40):
                loss = model(train(40 * epoch + step)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.step(loss)
            with torch.no_grad():
                for part in val.split(64):
                    model(part)
            monitor.end_epoch(train_accuracy=0.5, val_accuracy=0.5 - lag)
    finding = RULES[NAME].judge(monitor.history)
    assert (finding is not None) == said
    assert not said or "lags" in finding.message


def test_digits_of_one_channel():
    x = digits()[0]
    train = batches_of(x, prepare=lambda rows: rows)
    assert judged(train, x[600:900]) is None
    assert "contrast" in judged(train, 6 * x[600:900] + 4.9).message
    assert "exchanged" in judged(train, -x[600:900]).message


def test_pooled_figures_are_those_of_all_images_together():
    x = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tables = to_host([measure(part) for part in x.split(8)])
    whole = sum_up_inputs(tables, (3, 8, 8))
    parts = [sum_up_inputs(tables[:2], (3, 8, 8)), None, sum_up_inputs(tables[2:], (3, 8, 8))]
    pooled = pool(parts)
    assert isinstance(pooled, InputFigures)
    assert (pooled.images, pooled.batches) == (40, 5)
    for name in ("figures", "scatter", "between", "bands", "bands_scatter", "bands_between"):
        assert getattr(pooled, name) == pytest.approx(getattr(whole, name), rel=1e-9, abs=1e-12)

"""Faults of the data that can be seen before any training: by the audit in files, by the check in tensors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from faults.case import Case
from faults.checking import Checking, Folders, as_png, mistaken, mistaken_folders, picture
from faults.data import Images, Tensors, channels_first

IMAGENET = (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))


def cases() -> list[Case]:
    """All of these."""
    return [*leaks(), *imbalance(), *scales(), *mismatches()]


# ---- the same pictures on both sides -------------------------------------------------------------------


def copy_some(count: int) -> Callable[[Path, Path], None]:
    """A script moved files and was stopped: the first ones are still in the training folder."""

    def after(training: Path, held_out: Path) -> None:
        for file in sorted(held_out.rglob("*.*"))[:count]:
            shutil.copy(file, training / file.parent.name / f"left-{file.name}")

    return after


def saved_again(training: Path, held_out: Path) -> None:
    """Training photographs exported once more by another program, into the held-out folder."""
    for file in sorted(training.rglob("*.png"))[:12]:
        with Image.open(file) as image:
            image.convert("RGB").save(held_out / file.parent.name / f"export-{file.stem}.jpg", quality=96)


def held_out_of_training(images: Images) -> Images:
    """The held-out part was sampled from all images, not from the rest."""
    rows = np.random.default_rng(0).choice(len(images.train), len(images.validation), replace=False)
    return replace(images, validation=images.train[rows], validation_labels=images.train_labels[rows])


def doubled_first(data: Tensors) -> Tensors:
    """Images of one class were doubled against imbalance, and the split drawn afterwards."""
    pool = torch.cat([data.train, data.train[data.train_labels == 1]])
    labels = torch.cat([data.train_labels, data.train_labels[data.train_labels == 1]])
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))
    cut = len(pool) - 150
    return replace(
        data,
        train=pool[order[:cut]],
        train_labels=labels[order[:cut]],
        validation=pool[order[cut:]],
        validation_labels=labels[order[cut:]],
    )


def wrong_slice(data: Tensors) -> Tensors:
    """x[:400] and x[350:]."""
    return replace(
        data,
        train=data.train[:400],
        train_labels=data.train_labels[:400],
        validation=data.train[350:],
        validation_labels=data.train_labels[350:],
    )


def two_permutations(data: Tensors) -> Tensors:
    """Each side draws its own permutation."""
    first = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(1))[:350]
    second = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(2))[350:]
    return replace(
        data,
        train=data.train[first],
        train_labels=data.train_labels[first],
        validation=data.train[second],
        validation_labels=data.train_labels[second],
    )


def same_variable(data: Tensors) -> Tensors:
    """The validation loader is given the training set."""
    return replace(data, validation=data.train[:200], validation_labels=data.train_labels[:200])


def five_appended(data: Tensors) -> Tensors:
    """A few validation images were added to the training while debugging."""
    return replace(
        data,
        train=torch.cat([data.train, data.validation[:5]]),
        train_labels=torch.cat([data.train_labels, data.validation_labels[:5]]),
    )


def leaks() -> list[Case]:
    """train-val-leak"""
    fault = "train-val-leak"
    return [
        mistaken_folders(fault, "ten files left behind", Folders(), after=copy_some(10)),
        mistaken_folders(fault, "two files left behind", Folders("fashion-mnist"), after=copy_some(2)),
        mistaken_folders(fault, "exported once more", Folders("ants-bees", 150, 60), after=saved_again),
        mistaken_folders(fault, "sampled from all", Folders(seed=3), images=held_out_of_training),
        mistaken_folders(
            fault, "test sampled from all", Folders("digits", held_out="test"), images=held_out_of_training
        ),
        mistaken_folders(fault, "--test holds training files", Folders(separate=True, seed=2), after=copy_some(6)),
        mistaken(fault, "doubled before the split", Checking(data="cifar10", compared=True), then=doubled_first),
        mistaken(fault, "slices overlap", Checking("vgg", compared=True, form="dataset"), then=wrong_slice),
        mistaken(fault, "two permutations", Checking("mlp", "fashion-mnist", compared=True), then=two_permutations),
        mistaken(fault, "the wrong variable", Checking("resnet", compared=True, form="loader"), then=same_variable),
        mistaken(fault, "five appended", Checking("tanh", "cifar10", compared=True, form="loader"), then=five_appended),
    ]


# ---- rare classes --------------------------------------------------------------------------------------


def rare(kept: dict[int, int]) -> Callable[[Images], Images]:
    """Only so many training images of these classes."""

    def images(given: Images) -> Images:
        keep = np.ones(len(given.train), bool)
        for label, count in kept.items():
            keep[np.flatnonzero(given.train_labels == label)[count:]] = False
        return replace(given, train=given.train[keep], train_labels=given.train_labels[keep])

    return images


def imbalance() -> list[Case]:
    """imbalanced-classes"""
    fault = "imbalanced-classes"
    many = Folders(train=600, validation=200)
    return [
        mistaken_folders(fault, "one class 1:15", many, images=rare({3: 4})),
        mistaken_folders(fault, "two classes 1:12", replace(many, data="fashion-mnist"), images=rare({0: 5, 7: 5})),
        mistaken_folders(fault, "bees without ants", Folders("ants-bees", 240, 60), images=rare({0: 9})),
        mistaken_folders(fault, "pair 1:25", replace(many, classes=[0, 1]), images=rare({1: 12})),
        mistaken(fault, "one class 1:25", Checking(data="digits", train=1200), images=rare({8: 5})),
        mistaken(fault, "pair 1:40", Checking("vgg", "cifar10", train=900, classes=[2, 5]), images=rare({1: 11})),
        mistaken(
            fault,
            "1:30 in a loader",
            Checking("mlp", "fashion-mnist", train=1200, form="loader"),
            images=rare({4: 4, 5: 4}),
        ),
        mistaken(
            fault, "1:20 in a dataset", Checking("gelu", "cifar10", train=1500, form="dataset"), images=rare({9: 7})
        ),
        mistaken(
            fault,
            "three of ten 1:20",
            Checking("tanh", "digits", train=1500, form="list"),
            images=rare({0: 7, 1: 7, 2: 7}),
        ),
    ]


# ---- values that enter the network ---------------------------------------------------------------------


def scaled(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Images], Tensors]:
    """The same arithmetic on both sides. change: of pixel values N×C×H×W as they are stored."""

    def tensors(images: Images) -> Tensors:
        return Tensors(
            change(channels_first(images.train)),
            torch.from_numpy(images.train_labels),
            change(channels_first(images.validation)),
            torch.from_numpy(images.validation_labels),
            images.classes,
        )

    return tensors


def by_imagenet(x: torch.Tensor) -> torch.Tensor:
    mean, std = (v.view(1, 3, 1, 1) for v in IMAGENET)
    return (x - mean) / std


def scales() -> list[Case]:
    """unnormalised-input"""
    fault = "unnormalised-input"
    cifar, photos = Checking("vgg", "cifar10"), Checking("lenet", "ants-bees", train=200, validation=100)
    fashion = Checking("mlp", "fashion-mnist")
    return [
        mistaken(fault, "0 to 255", cifar, tensors=scaled(lambda x: x)),
        mistaken(fault, "0 to 255 through ToTensor's look-alike", photos, tensors=scaled(lambda x: x.float())),
        mistaken(
            fault, "divided by 255 twice", replace(cifar, network="resnet"), tensors=scaled(lambda x: x / 255 / 255)
        ),
        mistaken(fault, "normalised twice", cifar, tensors=scaled(lambda x: by_imagenet(by_imagenet(x / 255)))),
        mistaken(fault, "mean of 0 to 255 on 0 to 1", fashion, tensors=scaled(lambda x: (x / 255 - 73) / 90)),
        mistaken(fault, "Normalize without ToTensor", photos, tensors=scaled(by_imagenet)),
        mistaken(
            fault,
            "mean taken, deviation forgotten",
            replace(fashion, network="tanh"),
            tensors=scaled(lambda x: x - 73.0),
        ),
        mistaken(
            fault,
            "times the deviation",
            replace(cifar, network="gelu", form="loader"),
            tensors=scaled(lambda x: (x - 120.0) * 64.0),
        ),
        mistaken(
            fault, "divided by 16 as digits are", replace(cifar, network="functional"), tensors=scaled(lambda x: x / 16)
        ),
        mistaken(fault, "divided by 65535", replace(fashion, form="dataset"), tensors=scaled(lambda x: x / 65535)),
        mistaken(fault, "digits 0 to 16 times 16", Checking("mlp", "digits"), tensors=scaled(lambda x: 16 * x)),
    ]


# ---- splits prepared differently -----------------------------------------------------------------------


def only_held_out(write: Callable[[Image.Image, Path], None]) -> Callable[[NDArray, Path, str], None]:
    """Held-out files are written otherwise than the training's PNG."""

    def both(pixels: NDArray, place: Path, split: str) -> None:
        if split == "train":
            as_png(pixels, place, split)
        else:
            write(picture(pixels), place)

    return both


def bgr(image: Image.Image, place: Path) -> None:
    """cv2.imread gives blue, green, red; Pillow writes them as red, green, blue."""
    Image.fromarray(np.asarray(image)[:, :, ::-1].copy()).save(place.with_suffix(".png"))


def halved(image: Image.Image, place: Path) -> None:
    image.resize((image.width // 2, image.height // 2)).save(place.with_suffix(".png"))


def squeezed_jpeg(image: Image.Image, place: Path) -> None:
    image.save(place.with_suffix(".jpg"), quality=20)


def blurred(image: Image.Image, place: Path) -> None:
    image.filter(ImageFilter.GaussianBlur(1.5)).save(place.with_suffix(".png"))


def inverted(image: Image.Image, place: Path) -> None:
    Image.fromarray(255 - np.asarray(image)).save(place.with_suffix(".png"))


def bright(image: Image.Image, place: Path) -> None:
    ImageEnhance.Brightness(image).enhance(1.6).save(place.with_suffix(".png"))


def grey(image: Image.Image, place: Path) -> None:
    image.convert("L").save(place.with_suffix(".png"))


def turned(image: Image.Image, place: Path) -> None:
    """Rows and columns swapped on the way from an array file."""
    image.transpose(Image.Transpose.TRANSPOSE).save(place.with_suffix(".png"))


def centre_crop(image: Image.Image, place: Path) -> None:
    cut = image.width // 8
    box = (cut, cut, image.width - cut, image.height - cut)
    image.crop(box).save(place.with_suffix(".png"))


def held_out_by(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda data: replace(data, validation=change(data.validation))


def own_scale(training: Callable, held_out: Callable) -> Callable[[Images], Tensors]:
    """Each side by its own arithmetic on stored pixel values."""

    def tensors(images: Images) -> Tensors:
        return replace(scaled(training)(images), validation=held_out(channels_first(images.validation)))

    return tensors


def mismatches() -> list[Case]:
    """train-val-mismatch"""
    fault = "train-val-mismatch"
    cifar = Checking("resnet", "cifar10", compared=True, validation=300)
    fashion = Checking("lenet", "fashion-mnist", compared=True, form="loader")
    photos = Folders("ants-bees", 180, 90)
    return [
        mistaken_folders(fault, "blue and red swapped", photos, write=only_held_out(bgr)),
        mistaken_folders(fault, "blue and red swapped", Folders(train=400, validation=300), write=only_held_out(bgr)),
        mistaken_folders(fault, "halved", Folders(held_out="test"), write=only_held_out(halved)),
        mistaken_folders(fault, "coarse JPEG", Folders(separate=True), write=only_held_out(squeezed_jpeg)),
        mistaken_folders(fault, "blurred", photos, write=only_held_out(blurred)),
        mistaken_folders(fault, "inverted", Folders("digits"), write=only_held_out(inverted)),
        mistaken_folders(fault, "brightened", Folders(seed=1), write=only_held_out(bright)),
        mistaken_folders(fault, "grey", Folders(seed=2), write=only_held_out(grey)),
        mistaken_folders(fault, "rows and columns swapped", Folders("fashion-mnist"), write=only_held_out(turned)),
        mistaken_folders(fault, "cropped", Folders("fashion-mnist", held_out="test"), write=only_held_out(centre_crop)),
        mistaken(
            fault,
            "validation left at 0 to 1",
            cifar,
            tensors=own_scale(lambda x: by_imagenet(x / 255), lambda x: x / 255),
        ),
        mistaken(
            fault,
            "validation left at 0 to 255",
            replace(cifar, network="vgg", form="dataset"),
            tensors=own_scale(lambda x: x / 255, lambda x: x),
        ),
        mistaken(
            fault,
            "validation normalised twice",
            fashion,
            tensors=own_scale(
                lambda x: (x / 255 - 0.286) / 0.353, lambda x: ((x / 255 - 0.286) / 0.353 - 0.286) / 0.353
            ),
        ),
        mistaken(fault, "channels swapped in validation", cifar, then=held_out_by(lambda x: x.flip(1))),
        mistaken(fault, "inverted in validation", fashion, then=held_out_by(torch.neg)),
        mistaken(
            fault,
            "deviation forgotten in validation",
            replace(cifar, network="gelu"),
            tensors=own_scale(lambda x: by_imagenet(x / 255), lambda x: x / 255 - IMAGENET[0].view(1, 3, 1, 1)),
        ),
        mistaken(
            fault,
            "validation seen through a dimmer",
            Checking("mlp", "digits", compared=True),
            then=held_out_by(lambda x: 0.3 * x - 0.5),
        ),
        mistaken(
            fault,
            "two channels zero in validation",
            replace(cifar, network="functional"),
            then=held_out_by(lambda x: F.pad(x[:, :1], (0, 0, 0, 0, 0, 2))),
        ),
    ]

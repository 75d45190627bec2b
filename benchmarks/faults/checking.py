"""What a check before training, or an audit, is given: a setting as a user has it, with or without a mistake in it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

import wellfit
from faults.case import Case
from faults.data import Images, Tensors, load, standardise
from faults.networks import NETWORKS, seeded
from wellfit.findings import Finding

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Checking:
    """One call of `wellfit.check`. Every field is something that a user decides, and may get wrong.

    network: a name of NETWORKS, or what makes one from (channels, size, classes); change: what is done to it then.
    tensors: how the arrays become network input; then: what is done to the tensors after that.
    optimizer: made on the model; penalty: made on the model too, a function of a module.
    form: "batch", "loader", "dataset" or "list". compared: whether validation is given.
    """

    network: str | Callable[[int, int, int], nn.Module] = "lenet"
    data: str = "digits"
    optimizer: Callable[[nn.Module], Optimizer | Callable[..., Optimizer] | str | None] = lambda model: None
    loss: Callable[[nn.Module], Loss | None] = lambda model: None
    penalty: Callable[[nn.Module], Callable[[nn.Module], Any] | None] = lambda model: None
    train: int = 500
    validation: int = 200
    classes: list[int] | None = None
    images: Callable[[Images], Images] | None = None
    tensors: Callable[[Images], Tensors] = standardise
    then: Callable[[Tensors], Tensors] | None = None
    change: Callable[[nn.Module], nn.Module | None] | None = None
    form: str = "batch"
    compared: bool = False
    seed: int = 0

    def run(self) -> list[Finding]:
        """What the check finds."""
        images = load(self.data, train=self.train, validation=self.validation, classes=self.classes, seed=self.seed)
        data = self.tensors(self.images(images) if self.images is not None else images)
        data = self.then(data) if self.then is not None else data
        with seeded(self.seed):
            make = NETWORKS[self.network] if isinstance(self.network, str) else self.network
            model = make(data.channels, data.size, data.classes)
            model = (self.change(model) or model) if self.change is not None else model
            optimizer, loss, penalty = self.optimizer(model), self.loss(model), self.penalty(model)
        result = wellfit.check(
            formed(data.train, data.train_labels, self.form, self.seed),
            model,
            loss=loss,
            optimizer=optimizer,
            penalty=penalty,
            validation=formed(data.validation, data.validation_labels, self.form, None) if self.compared else None,
            budget=60,
        )
        return [Finding(**finding) for finding in result["findings"]]


def formed(images: Tensor, labels: Tensor, form: str, seed: int | None) -> Any:
    """The tensors as a loop holds them. seed: of a loader's shuffling, None for none."""
    if form == "batch":
        return images, labels
    if form == "list":
        return [(image, int(label)) for image, label in zip(images, labels, strict=True)]
    dataset = TensorDataset(images, labels)
    if form == "dataset":
        return dataset
    if seed is None:
        return DataLoader(dataset, batch_size=100)
    return DataLoader(dataset, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Mistaken:
    """A setting and the fields that the mistake changes; `run(sick=False)` is the healthy twin."""

    setting: Checking
    mistake: dict[str, Any]

    def __call__(self, sick: bool = True) -> list[Finding]:
        return replace(self.setting, **self.mistake).run() if sick else self.setting.run()


def mistaken(fault: str, title: str, setting: Checking, **mistake: Any) -> Case:
    """The check with the mistake in it."""
    network = setting.network if isinstance(setting.network, str) else setting.network.__name__.replace("_", "-")
    return Case(f"{fault}: {title}; {network} on {setting.data}, check", fault, "check", Mistaken(setting, mistake))


def healthy_check(title: str, setting: Checking) -> Case:
    """The check of a setting in which nothing is wrong."""
    return Case(f"healthy/check/{title}", "", "check", Mistaken(setting, {}))


@dataclass(frozen=True)
class Folders:
    """One call of `wellfit.audit` on folders of image files, one a class in each split.

    write: how an image is stored in each split ("train" and the held-out one); images: what is done to the arrays.
    held_out: "val" or "test". separate: given by `--test` and not beside the training images.
    after: what is done to the folders when they are written, given (training, held out).
    """

    data: str = "cifar10"
    train: int = 300
    validation: int = 120
    classes: list[int] | None = None
    images: Callable[[Images], Images] | None = None
    write: Callable[[NDArray, Path, str], None] | None = None
    held_out: str = "val"
    separate: bool = False
    after: Callable[[Path, Path], None] | None = None
    seed: int = 0

    def run(self) -> list[Finding]:
        """What the audit finds."""
        images = load(self.data, train=self.train, validation=self.validation, classes=self.classes, seed=self.seed)
        images = self.images(images) if self.images is not None else images
        with tempfile.TemporaryDirectory(prefix="faults-") as path:
            root = Path(path)
            training = root / "images" / "train"
            held_out = root / "apart" if self.separate else root / "images" / self.held_out
            write_folder(images.train, images.train_labels, training, "train", self.write)
            write_folder(images.validation, images.validation_labels, held_out, self.held_out, self.write)
            if self.after is not None:
                self.after(training, held_out)
            given, config = (root / "images", None)
            if self.separate:
                given = training
                config = wellfit.Config().replace(**{"data.test": str(held_out)})
            findings = wellfit.audit(given, config=config)["findings"]
        return [Finding(**finding) for finding in findings]


def write_folder(
    images: NDArray,
    labels: NDArray,
    folder: Path,
    split: str,
    write: Callable[[NDArray, Path, str], None] | None = None,
) -> None:
    """One file an image, in a folder of its class. write(pixels, path without suffix, split): PNG by default."""
    for row, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / f"class{label}" / f"{split}-{row:04d}"
        place.parent.mkdir(parents=True, exist_ok=True)
        (write or as_png)(pixels, place, split)


def as_png(pixels: NDArray, place: Path, split: str) -> None:
    picture(pixels).save(place.with_suffix(".png"))


def picture(pixels: NDArray) -> Image.Image:
    """H×W×C uint8 as a Pillow image; digits' 0 to 16 brought to 0 to 255."""
    if pixels.shape[2] == 1:
        grey = pixels[:, :, 0]
        return Image.fromarray((grey * 15 if pixels.shape[0] == 8 else grey).astype(np.uint8))
    return Image.fromarray(pixels)


@dataclass(frozen=True)
class MistakenFolders:
    """As `Mistaken`, for folders."""

    setting: Folders
    mistake: dict[str, Any]

    def __call__(self, sick: bool = True) -> list[Finding]:
        return replace(self.setting, **self.mistake).run() if sick else self.setting.run()


def mistaken_folders(fault: str, title: str, setting: Folders, **mistake: Any) -> Case:
    """The audit with the mistake in the folders."""
    return Case(f"{fault}: {title}; {setting.data}, audit", fault, "audit", MistakenFolders(setting, mistake))


def healthy_audit(title: str, setting: Folders) -> Case:
    """The audit of folders in which nothing is wrong."""
    return Case(f"healthy/audit/{title}", "", "audit", MistakenFolders(setting, {}))

"""Classes and labels: `class-collapsed`, `imbalance-ignored`, `labels-shuffled`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faults.case import Case
from faults.data import Images
from faults.loop import Loop
from faults.sick import settings as s
from faults.sick.plant import Around, last_linear, plant
from wellfit.randomness import generator

# ---- class-collapsed ---------------------------------------------------------------------------------------


def class_zero_ignored(answers: Tensor, y: Tensor) -> Tensor:
    """ignore_index=0, from segmentation, where 0 is the background."""
    return F.cross_entropy(answers, y, ignore_index=0)


def weight_of_an_absent_class(answers: Tensor, y: Tensor) -> Tensor:
    """Weights by the counts of a split in which class 3 did not occur."""
    weight = torch.ones(answers.shape[1])
    weight[3] = 0
    return F.cross_entropy(answers, y, weight)


def last_class_clamped(answers: Tensor, y: Tensor) -> Tensor:
    """clamp(max=8): "ten classes are 0 to 8"."""
    return F.cross_entropy(answers, y.clamp(max=answers.shape[1] - 2))


def classes_merged(answers: Tensor, y: Tensor) -> Tensor:
    """A table of an older data set, in which two classes were one."""
    return F.cross_entropy(answers, torch.where(y == 7, torch.full_like(y, 2), y))


def first_column_dropped(answers: Tensor, y: Tensor) -> Tensor:
    """One-hot with a background class, whose column is then dropped: class 0 is all zeros."""
    width = answers.shape[1]
    target = F.pad(F.one_hot(y, width)[:, 1:], (1, 0)).float()
    return -(target * F.log_softmax(answers, 1)).sum(1).mean()


def retired_class(model: nn.Module) -> nn.Module:
    """The mask of a class that is in use again."""
    mask = torch.zeros(10)
    mask[5] = -1e4
    return Around(model, after=lambda answers: answers + mask)


def nine_and_padding(model: nn.Module) -> nn.Module:
    """A head for nine classes, padded to ten for the shape's sake."""
    return Around(model, after=lambda answers: F.pad(answers[:, :-1], (0, 1), value=-1000.0))


def frozen_unit(model: nn.Module) -> None:
    """The last unit was added by hand, with a bias of -30, and its gradient is masked away."""
    head = last_linear(model)
    keep = torch.ones(head.out_features)
    keep[-1] = 0
    with torch.no_grad():
        head.bias[-1] = -30.0
    head.weight.register_hook(lambda gradient: gradient * keep[:, None])
    head.bias.register_hook(lambda gradient: gradient * keep)


def cases_of_collapse() -> list[Case]:
    def collapsed(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("class-collapsed", title, setting, **mistake)

    return [
        collapsed("ignore_index=0", s.LENET_SGD, loss=class_zero_ignored),
        collapsed("ignore_index=0", s.VGG_BN_ADAM, loss=class_zero_ignored),
        collapsed("a weight of zero", s.MLP_ADAM, loss=weight_of_an_absent_class),
        collapsed("a weight of zero", s.RESNET_ADAMW, loss=weight_of_an_absent_class),
        collapsed("labels clamped at eight", s.FUNCTIONAL_ADAM, loss=last_class_clamped),
        collapsed("labels clamped at eight", s.TANH_MOMENTUM, loss=last_class_clamped),
        collapsed("two classes merged by an old table", s.VGG_SGD, loss=classes_merged),
        collapsed("two classes merged by an old table", s.GELU_MLP_ADAMW, loss=classes_merged),
        collapsed("one-hot without its first column", s.MLP_SGD, loss=first_column_dropped),
        collapsed("a class masked that is in use", s.LENET_ADAM, change=retired_class),
        collapsed("nine scores and padding", s.FUNCTIONAL_NESTEROV, change=nine_and_padding),
        collapsed("a unit without gradient", s.TANH_MLP_SGD, change=frozen_unit),
    ]


# ---- imbalance-ignored -------------------------------------------------------------------------------------


def rare(times: int, *classes: int) -> Callable[[Images], Images]:
    """Keeps every `times`-th image of these classes, in training and validation."""

    def thin(labels: np.ndarray) -> np.ndarray:
        keep = np.ones(len(labels), bool)
        for label in classes:
            rows = np.flatnonzero(labels == label)
            keep[rows] = False
            keep[rows[::times]] = True
        return keep

    def change(images: Images) -> Images:
        train, validation = thin(images.train_labels), thin(images.validation_labels)
        return replace(
            images,
            train=images.train[train],
            train_labels=images.train_labels[train],
            validation=images.validation[validation],
            validation_labels=images.validation_labels[validation],
        )

    return change


class BySizeNotInverse(Loop):
    """Class weights by the classes' sizes, where the inverse was meant."""

    def loss_of(self, answers: Tensor, targets: Tensor) -> Tensor:
        counts = torch.bincount(self.data.train_labels, minlength=self.data.classes).float()
        return F.cross_entropy(answers, targets, counts / counts.mean())


class SampledBySize(Loop):
    """A sampler whose weights are the classes' sizes: large classes are drawn still more often."""

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        counts = torch.bincount(self.data.train_labels).double().numpy()
        share = counts[self.data.train_labels.numpy()]
        draws = generator(self.seed, "faults/sampler", epoch)
        order = torch.from_numpy(draws.choice(len(share), len(share), p=share / share.sum()))
        for rows in order.split(self.batch_size):
            yield self.data.train[rows], self.data.train_labels[rows]


def cases_of_imbalance() -> list[Case]:
    def ignored(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("imbalance-ignored", title, setting, **mistake)

    animals = replace(s.LENET_MOMENTUM, classes=[5, 3], train=1000, epochs=8, lr=0.01)
    vehicles = replace(s.VGG_BN_ADAM, classes=[1, 9], train=1000, epochs=6, lr=5e-4)
    wide: dict[str, Any] = {"train": 2800, "validation": 600, "epochs": 5}
    return [
        ignored("1 to 15", animals, images=rare(15, 1)),
        ignored("1 to 30", vehicles, images=rare(30, 0)),
        ignored("1 to 12", replace(s.SQUEEZENET_MOMENTUM, lr=1e-4), images=rare(12, 1)),
        ignored("four classes of ten, 1 to 30", replace(s.LENET_SGD, **wide), images=rare(30, 2, 4, 6, 8)),
        ignored("five classes of ten, 1 to 25", replace(s.TANH_ADAM, **wide), images=rare(25, 1, 3, 5, 7, 9)),
        ignored("three classes of ten, 1 to 40", replace(s.GELU_ADAMW, **wide), images=rare(40, 0, 3, 6)),
        ignored(
            "weights by size", replace(s.FUNCTIONAL_NESTEROV, **wide), images=rare(8, 2, 4, 6), loop=BySizeNotInverse
        ),
        ignored("weights by size", replace(s.VGG_BN_SGD, **wide), images=rare(8, 0, 2, 4), loop=BySizeNotInverse),
        ignored(
            "sampled by size", replace(s.FUNCTIONAL_RMSPROP, **wide), images=rare(8, 3, 4, 5, 6), loop=SampledBySize
        ),
        ignored("sampled by size", replace(s.GELU_MLP_ADAMW, **wide), images=rare(15, 2, 4, 6), loop=SampledBySize),
    ]


# ---- labels-shuffled ---------------------------------------------------------------------------------------


def train_labels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Images], Images]:
    """The labels of the training images, by another order or another list."""
    return lambda images: replace(images, train_labels=change(images.train_labels))


def validation_labels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Images], Images]:
    return lambda images: replace(images, validation_labels=change(images.validation_labels))


def shuffled(labels: np.ndarray) -> np.ndarray:
    """The list of labels was shuffled, that of the images was not."""
    return generator(0, "faults/shuffle").permutation(labels)


def off_by_one(labels: np.ndarray) -> np.ndarray:
    """The header line of the table was taken for an image."""
    return np.roll(labels, 1)


def backwards(labels: np.ndarray) -> np.ndarray:
    """One of the two lists was sorted downwards."""
    return labels[::-1].copy()


def by_listing(labels: np.ndarray) -> np.ndarray:
    """Classes numbered in the order of os.listdir."""
    return np.array([3, 7, 0, 9, 1, 8, 2, 4, 6, 5])[labels]


def cases_of_shuffling() -> list[Case]:
    def apart(title: str, setting: s.Setting, **mistake: object) -> Case:
        return plant("labels-shuffled", title, setting, **mistake)

    few: dict[str, Any] = {"train": 300, "epochs": 30}
    return [
        apart("training labels shuffled once", replace(s.MLP_ADAM, **few), images=train_labels(shuffled)),
        apart("training labels shuffled once", replace(s.VGG_BN_ADAM, **few), images=train_labels(shuffled)),
        apart(
            "training labels one row off",
            replace(s.RESNET_ADAMW, train=300, epochs=20),
            images=train_labels(off_by_one),
        ),
        apart("training labels one row off", replace(s.GELU_MLP_ADAMW, **few), images=train_labels(off_by_one)),
        apart("training labels one row off", replace(s.TANH_ADAM, **few), images=train_labels(off_by_one)),
        apart("training list sorted downwards", replace(s.FUNCTIONAL_ADAM, **few), images=train_labels(backwards)),
        apart("training labels sorted alone", replace(s.MLP_RMSPROP, **few), images=train_labels(np.sort)),
        apart("validation labels one row off", s.LENET_SGD, images=validation_labels(off_by_one)),
        apart("validation labels one row off", s.VGG_SGD, images=validation_labels(off_by_one)),
        apart("validation list sorted downwards", s.TANH_MOMENTUM, images=validation_labels(backwards)),
        apart("validation labels sorted alone", s.FUNCTIONAL_NESTEROV, images=validation_labels(np.sort)),
        apart("validation numbered by another listing", s.VGG_ADAM, images=validation_labels(by_listing)),
        apart("validation numbered by another listing", s.VGG_BN_NESTEROV, images=validation_labels(by_listing)),
    ]


def cases() -> list[Case]:
    return cases_of_collapse() + cases_of_imbalance() + cases_of_shuffling()

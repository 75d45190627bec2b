"""Training, validation and test images: what the user gave is kept, what is missing is carved (SPEC D5).

Every choice is made on validation; test is read once at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wellfit.data.assign import TEST, TRAIN, VALIDATION, assign, fold_quotas, held_out_quotas, members_of, spread
from wellfit.data.audit import Audit, class_order, stated_splits
from wellfit.data.sources import Source
from wellfit.errors import UserError
from wellfit.randomness import generator

FOLDS = 5
FEW_IMAGES = 500
"""With fewer training and validation images than this, one carved validation split says little: folds are made too."""


@dataclass
class Split:
    """train, validation, test: sorted int64 source indices, disjoint; unusable and unlabelled images are in none.

    classes: names, by value where all are whole numbers, else by text; a class's place is its target.
    targets: int64, one an image of the source; -1 where its label is none of the classes.
    folds: None, or the validation indices of each fold; a fold trains on the rest of train and validation.
    sentences: what was done, for people.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    classes: list[str]
    targets: np.ndarray
    folds: list[np.ndarray] | None = None
    sentences: list[str] = field(default_factory=list)


def make_split(source: Source, audit: Audit, *, seed: int, validation: float = 0.15, test: float = 0.15) -> Split:
    """Divide the usable images of a source.

    validation, test: shares carved out of the training images where the user gave no such split; test may be 0.
    Carving is stratified by class (each class within one image of its share) and keeps every group of `audit` on one
    side; every class is in training, and in validation and test as far as its size and groups allow. The same seed
    gives the same split. Below 500 images five folds are made as well. Training images that are byte-identical to a
    held-out one are dropped. Raises UserError for shares that leave nothing to train on, for a given split without a
    usable image, and for a class that training lacks.
    """
    if not (0 < validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise UserError(
            "validation and test shares are fractions that leave images to train on, "
            f"but they are {validation:g} and {test:g}; use 0.15 and 0.15, for example"
        )
    splits = stated_splits(source)
    sealed = splits == "test"
    classes = class_order(
        label for label, use, is_test in zip(source.labels, audit.usable, sealed, strict=True) if use and not is_test
    )
    number = {name: i for i, name in enumerate(classes)}
    targets = np.array([number.get(label, -1) for label in source.labels], dtype=np.int64)
    usable = audit.usable & (targets >= 0) & ~audit.copies
    given = {
        name: np.flatnonzero(usable & (splits == name)) for name in ("validation", "test") if (splits == name).any()
    }
    pool = np.flatnonzero(usable & ~sealed & (splits != "validation"))
    _require(source, given, pool, targets, classes)

    shares = (0.0 if "validation" in given else validation, 0.0 if "test" in given else test)
    part = _carve(targets[pool], audit.group_of[pool], len(classes), shares, seed)
    result = Split(
        train=pool[part == TRAIN],
        validation=given.get("validation", pool[part == VALIDATION]),
        test=given.get("test", pool[part == TEST]),
        classes=classes,
        targets=targets,
    )
    _require(source, {"validation": result.validation}, pool, targets, classes)
    if "validation" not in given and len(result.train) + len(result.validation) < FEW_IMAGES:
        result.folds = make_folds(result, audit, seed)
    result.sentences = _sentences(result, given, splits, audit, shares)
    return result


def _carve(
    classes: np.ndarray, groups: np.ndarray, class_count: int, shares: tuple[float, float], seed: int
) -> np.ndarray:
    quotas = held_out_quotas(np.bincount(classes, minlength=class_count), *shares)
    part = assign(classes, groups, quotas, generator(seed, "split"))
    held_out = [p for p, share in ((VALIDATION, shares[0]), (TEST, shares[1])) if share > 0]
    spread(part, classes, groups, [TRAIN, *held_out])
    return part


def make_folds(split: Split, audit: Audit, seed: int, count: int = FOLDS) -> list[np.ndarray]:
    """Validation indices of `count` folds of training and validation images together, by class, copies on one side."""
    pool = np.sort(np.concatenate([split.train, split.validation]))
    classes, groups = split.targets[pool], audit.group_of[pool]
    quotas = fold_quotas(np.bincount(classes, minlength=len(split.classes)), count)
    fold = assign(classes, groups, quotas, generator(seed, "folds"))
    # A fold that holds all images of a class would train without it. The smallest group of the class moves on; where
    # that does not help, because of other classes in the group or for want of a second one, it is always trained on.
    for may_move in (True, False):
        for rows in members_of(classes):
            own = sorted(members_of(groups[rows]), key=len)
            if len(np.unique(fold[rows])) == 1 and fold[rows[0]] >= 0 and (len(own) > 1 or not may_move):
                fold[groups == groups[rows[own[0][0]]]] = (fold[rows[0]] + 1) % count if may_move else -1
    return [pool[fold == number] for number in range(count)]


def _require(
    source: Source, given: dict[str, np.ndarray], pool: np.ndarray, targets: np.ndarray, classes: list[str]
) -> None:
    for name, indices in given.items():
        if not len(indices):
            raise UserError(
                f"the {name} split of '{source.location}' has no usable image; "
                "see the files that were left out, or give the data without this split"
            )
    present = np.zeros(len(classes), dtype=bool)
    present[targets[pool]] = True
    if not present.all():
        missing = classes[int(np.argmin(present))]
        raise UserError(
            f"every class needs a training image that no held-out split holds too, but class '{missing}' of "
            f"'{source.location}' has none; add images of it to the training part"
        )


def _sentences(
    split: Split, given: dict[str, np.ndarray], splits: np.ndarray, audit: Audit, shares: tuple[float, float]
) -> list[str]:
    sizes = f"{len(split.train):,} training, {len(split.validation):,} validation and {len(split.test):,} test images"
    carved = [name for name in ("validation", "test") if name not in given]
    how = {
        0: "as the data give them",
        1: f"the {carved[0] if carved else ''} images carved from the training part, the others as the data give them",
        2: "carved by class with the seed, copies and groups kept on one side",
    }
    sentences = [f"{sizes}: {how[len(carved)]}"]
    if "test" in given:
        sentences.append("the given test images stay sealed until the end")
    for name, share in zip(("validation", "test"), shares, strict=True):
        if not share:
            continue
        indices = split.validation if name == "validation" else split.test
        absent = len(split.classes) - len(np.unique(split.targets[indices]))
        if not len(indices):
            sentences.append(f"no {name} split: the classes have too few images to spare any")
        elif absent:
            verb = "class is" if absent == 1 else "classes are"
            sentences.append(f"{absent:,} {verb} not in {name}: too few images, or all of them in one group")
    if not shares[1] and not len(split.test):
        sentences.append("no test split was asked for")
    dropped = int((audit.copies & audit.usable).sum())
    if dropped:
        sentences.append(f"{dropped:,} images are left unused: byte-identical ones are in a held-out split")
    if split.folds is not None:
        total = len(split.train) + len(split.validation)
        sentences.append(f"{FOLDS} folds for cross-validation, because there are only {total:,} images to train on")
        kept = total - sum(map(len, split.folds))
        if kept:
            sentences.append(
                f"{kept:,} images of a class that cannot be divided over folds stay in training in all of them"
            )
    return sentences

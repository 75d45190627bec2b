"""What every kind of labelled images is turned into: names, labels, splits, and a reader of the bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from wellfit.errors import UserError, nearest
from wellfit.findings import Finding

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""How people call the parts, in lower case, and how wellfit calls them."""


@dataclass(frozen=True)
class LeftOut:
    """One file that will not be used. reason: a short phrase for people."""

    file: str
    reason: str


class Reader(Protocol):
    """Gives image number `index`. Implementations can be pickled and used from many threads at once."""

    def read(self, index: int) -> bytes | np.ndarray:
        """The encoded file, or H×W / H×W×3 uint8 pixels. Raises Undecodable where it cannot be read."""
        ...

    def stamp(self, index: int) -> tuple[int, int]:
        """(size in bytes, modification time in ns or a hash of the pixels): changes when the image does."""
        ...


@dataclass
class Source:
    """Labelled images as they were found: nothing is decoded yet, no image is dropped for its content."""

    location: str  # absolute path, or "digits", "memory"
    kind: str  # "folder" "archive" "manifest" "idx" "cifar" "npz" "digits" "memory"
    names: list[str]  # one an image, unique where the data allows it: relative path, or "train#17"
    labels: list[str]  # class name of each image, verbatim
    splits: list[str]  # "train" | "validation" | "test" | "" (not said)
    groups: list[str] | None  # images of one group stay on one side
    reader: Reader
    left_out: list[LeftOut] = field(default_factory=list)  # known without reading a file
    findings: list[Finding] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every image but these, in this order."""
        self.names = [self.names[i] for i in rows]
        self.labels = [self.labels[i] for i in rows]
        self.splits = [self.splits[i] for i in rows]
        self.groups = None if self.groups is None else [self.groups[i] for i in rows]
        self.reader = Rows([self.reader], np.zeros(len(rows), np.int32), np.asarray(rows, np.int64))


@dataclass
class Rows:
    """A reader over chosen rows of other readers. part: which reader; row: which image of it; both one an image."""

    readers: list[Reader]
    part: np.ndarray
    row: np.ndarray

    def read(self, index: int) -> bytes | np.ndarray:
        return self.readers[self.part[index]].read(int(self.row[index]))

    def stamp(self, index: int) -> tuple[int, int]:
        return self.readers[self.part[index]].stamp(int(self.row[index]))

    @classmethod
    def joined(cls, readers: list[Reader], lengths: list[int]) -> Rows:
        """All images of the first reader, then of the second, and so on."""
        row = np.concatenate([np.arange(n, dtype=np.int64) for n in lengths])
        return cls(readers, np.repeat(np.arange(len(lengths), dtype=np.int32), lengths), row)


def with_test(source: Source, test: Source) -> Source:
    """`source` with the images of `test` as its test split.

    Of a `test` that has splits of its own only the test split is taken. UserError where `source` has one already.
    """
    if "test" in source.splits:
        raise UserError(
            f"'{source.location}' has a test split of its own, so a second one at '{test.location}' is ambiguous; "
            "leave one of the two out"
        )
    if any(test.splits):
        keep_lone_validation_as_test(test)
        test.keep([i for i, split in enumerate(test.splits) if split == "test"])
    if not len(test):
        raise UserError(f"the test data at '{test.location}' hold no test images; give class folders of images")
    groups = None
    if source.groups is not None or test.groups is not None:
        groups = (source.groups or _alone(source, "data")) + (test.groups or _alone(test, "test"))
    prefix = "test:" if set(source.names) & set(test.names) else ""
    return Source(
        location=source.location,
        kind=source.kind,
        names=source.names + [prefix + name for name in test.names],
        labels=source.labels + test.labels,
        splits=source.splits + ["test"] * len(test),
        groups=groups,
        reader=Rows.joined([source.reader, test.reader], [len(source), len(test)]),
        left_out=source.left_out + test.left_out,
        findings=source.findings + test.findings,
    )


def _alone(source: Source, what: str) -> list[str]:
    return [f"{what}#{i}" for i in range(len(source))]


def keep_lone_validation_as_test(source: Source) -> None:
    """A validation split with no test split beside it becomes the sealed final test (SPEC D5); a finding says so."""
    if "validation" not in source.splits or "test" in source.splits:
        return
    images = source.splits.count("validation")
    source.splits = ["test" if split == "validation" else split for split in source.splits]
    source.findings.append(
        Finding(
            "val-kept-as-test",
            "info",
            f"the data have a validation part of {images} images but no test part: these images are kept sealed as "
            "the final test, and a validation split is carved from the training images",
            {"images": images},
            "name another test set (test=, --test) if these images should steer the training",
            "SPEC D5",
        )
    )


def leave_out_foreign_classes(source: Source) -> None:
    """Images of a class that training never sees are left out of validation and test, by name.

    UserError where that empties a whole split: the two parts then do not belong together.
    """
    if not any(split in ("", "train") for split in source.splits):
        raise UserError(
            f"'{source.location}' has no training images; put class folders under train/, or drop the split"
        )
    known = {label for label, split in zip(source.labels, source.splits, strict=True) if split in ("", "train")}
    foreign = [i for i, label in enumerate(source.labels) if label not in known]
    if not foreign:
        return
    reasons = {
        label: f"class '{label}' is not among the training classes{nearest(label, known)}"
        for label in {source.labels[i] for i in foreign}
    }
    lost = set(foreign)
    for split in ("validation", "test"):
        rows = [i for i, s in enumerate(source.splits) if s == split]
        if rows and lost.issuperset(rows):
            raise UserError(
                f"no class of the {split} split of '{source.location}' is among the training classes: "
                f"it holds {named(source.labels[i] for i in rows)}, training {named(known)}; use the same folder names"
            )
    source.left_out.extend(LeftOut(source.names[i], reasons[source.labels[i]]) for i in foreign)
    source.keep([i for i in range(len(source)) if i not in lost])


def require_classes(source: Source, minimum: int) -> None:
    """UserError unless there are images of at least `minimum` classes."""
    if not len(source):
        raise UserError(
            f"'{source.location}' holds no images; give a folder with one sub-folder of images for each class"
        )
    classes = set(source.labels)
    if len(classes) < minimum:
        raise UserError(
            f"at least {minimum} classes are needed, but '{source.location}' holds only {named(classes)} "
            f"({len(source)} images); add a folder (or label) for each further class"
        )


def named(names: Iterable[str]) -> str:
    """The first few distinct names in quotes, for a sentence."""
    distinct = sorted(set(names))
    return ", ".join(f"'{name}'" for name in distinct[:5]) + (
        f" and {len(distinct) - 5} more" if len(distinct) > 5 else ""
    )

"""What is wrong with the data, in words, before anything trains on them (SPEC D5).

Of a sealed test split only bytes are compared: a run does not decode its pixels before the final evaluation. An audit
that no training follows may open it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from wellfit.data.audit_findings import (
    class_sizes,
    conflicts,
    leaks,
    left_out_files,
    near_duplicates,
    some,
    spelling,
)
from wellfit.data.copies import find_copies
from wellfit.data.groups import chain, codes, connected
from wellfit.data.inspect import Inspection
from wellfit.data.sources import LeftOut, Source
from wellfit.data.split_mismatch import split_mismatch
from wellfit.data.store import PixelStore
from wellfit.errors import UserError
from wellfit.findings import Finding, root_cause_first

SMALLEST_CLASS = 2
_WHOLE_NUMBER = re.compile(r"[+-]?\d+")


@dataclass
class Audit:
    """What the images of a source are good for.

    images: how many are usable; classes: usable images by class, test split included, in class order.
    left_out: every file that is not used, with its reason.
    group_of: int64, one an image of the source; images of one group (the user's, or copies of each other, near or
        exact) share a number and must stay on one side of any split.
    usable: bool, one an image.
    copies: bool, one an image: byte-identical to an image of a split that is held out from the image's own, where the
        user gave the splits. Such an image must not be trained (or chosen) on.
    """

    images: int
    classes: dict[str, int]
    left_out: list[LeftOut]
    findings: list[Finding]
    group_of: np.ndarray
    usable: np.ndarray
    copies: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))


def audit(source: Source, inspection: Inspection, store: PixelStore, opened: PixelStore | None = None) -> Audit:
    """Count, compare and name. store: the decoded images, those of a given test split apart.

    opened: those of the test split, decoded for an audit that no training follows; None leaves it sealed.
    Raises UserError for fewer than two classes, and for a class with fewer than two usable images.
    """
    usable = inspection.usable.copy()
    usable[store.indices] &= store.usable
    left_out = [*source.left_out, *inspection.left_out, *store.left_out]
    if opened is not None:
        usable[opened.indices] &= opened.usable
        left_out += opened.left_out
    splits = stated_splits(source)
    open_images = splits != "test"
    counts = _counts(source, usable & open_images, set(source.labels))
    _require_images(source, counts, usable, open_images, left_out)
    copies = find_copies(inspection, store, usable, splits, opened)
    groups = connected(len(usable), np.concatenate([copies.edges, _user_edges(source)]))
    findings = [
        *left_out_files(left_out, inspection, int(usable.sum())),
        *spelling(counts),
        *conflicts(source, copies),
        *leaks(source, copies, splits, usable),
        *near_duplicates(source, copies),
        *split_mismatch(source, inspection, store, usable, splits, opened),
        *class_sizes(counts),
    ]
    return Audit(
        images=int(usable.sum()),
        classes=_counts(source, usable, counts),
        left_out=left_out,
        findings=root_cause_first(findings),
        group_of=groups,
        usable=usable,
        copies=copies.of_held_out,
    )


def class_order(labels: Iterable[str]) -> list[str]:
    """Distinct labels: by value where all are whole numbers ("9" before "10"), else by text."""
    distinct = set(labels)
    if all(_WHOLE_NUMBER.fullmatch(label) for label in distinct):
        return sorted(distinct, key=lambda label: (int(label), label))
    return sorted(distinct)


def stated_splits(source: Source) -> np.ndarray:
    """The split of each image as text; "" everywhere, or nowhere: beside stated splits, what says none is training."""
    splits = np.array(source.splits, dtype=object)
    if any(source.splits):
        splits[splits == ""] = "train"
    return splits


def _counts(source: Source, chosen: np.ndarray, classes: Iterable[str]) -> dict[str, int]:
    counts = dict.fromkeys(class_order(classes), 0)
    for index in np.flatnonzero(chosen).tolist():
        counts[source.labels[index]] = counts.get(source.labels[index], 0) + 1
    return counts


def _require_images(
    source: Source, counts: dict[str, int], usable: np.ndarray, open_images: np.ndarray, left_out: list[LeftOut]
) -> None:
    if not usable.any():
        raise UserError(
            f"not one of the {len(usable)} images of '{source.location}' can be used ({some(left_out)}); "
            "see that the files are whole and are images"
        )
    if len(counts) < 2:
        raise UserError(
            f"classification needs at least 2 classes, but '{source.location}' has only {_quoted(counts)}; "
            "add images of another class"
        )
    few = [name for name, count in counts.items() if count < SMALLEST_CLASS]
    if few:
        total = sum(1 for label, is_open in zip(source.labels, open_images, strict=True) if is_open and label == few[0])
        lost = f" ({total - counts[few[0]]} of its {total} files cannot be used)" if total > counts[few[0]] else ""
        others = f" ({len(few)} classes have too few)" if len(few) > 1 else ""
        raise UserError(
            f"every class needs at least {SMALLEST_CLASS} usable images outside the test split, but class "
            f"'{few[0]}' of '{source.location}' has {counts[few[0]]}{lost}{others}; add images, or remove the class"
        )


def _user_edges(source: Source) -> np.ndarray:
    if source.groups is None:
        return np.zeros((0, 2), np.int64)
    return chain(codes(source.groups), np.arange(len(source.groups)))


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"

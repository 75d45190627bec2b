"""The audit's findings: what was seen in the data, one function a kind. Each returns none, one or two findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wellfit.data.copies import Copies
from wellfit.data.groups import codes, spread_over
from wellfit.data.inspect import Inspection
from wellfit.data.sources import LeftOut, Source
from wellfit.findings import Finding

IMBALANCE_SEEN, IMBALANCE_LARGE = 3, 10
SMALL_CLASS = 10
_EXAMPLES = 20


def left_out_files(left_out: list[LeftOut], inspection: Inspection, usable: int) -> list[Finding]:
    findings = []
    if left_out:
        count, total = len(left_out), usable + len(left_out)
        few = count <= 3 and count < 0.01 * total
        verb = "file is" if count == 1 else "files are"
        findings.append(
            Finding(
                "unreadable-files",
                "info" if few else "warning",
                f"{count:,} of {total:,} {verb} left out: {some(left_out)}",
                {"left_out": count, "files": total, "first": [vars(item) for item in left_out[:_EXAMPLES]]},
                "copy or download these files again, or delete them",
                "SPEC D5",
            )
        )
    if inspection.misnamed:
        count = len(inspection.misnamed)
        findings.append(
            Finding(
                "unreadable-files",
                "info",
                f"{count:,} {'image has' if count == 1 else 'images have'} another type than the name says, and "
                f"{'is' if count == 1 else 'are'} used all the same: {some(inspection.misnamed)}",
                {"misnamed": count, "first": [vars(item) for item in inspection.misnamed[:_EXAMPLES]]},
                "rename them if other programs are to read them",
                "SPEC D5",
            )
        )
    return findings


def spelling(counts: dict[str, int]) -> list[Finding]:
    written: dict[str, list[str]] = {}
    for name in counts:
        written.setdefault(" ".join(name.split()).casefold(), []).append(name)
    alike = [names for names in written.values() if len(names) > 1]
    if not alike:
        return []
    listed = "; ".join(" and ".join(f"'{n}' ({counts[n]:,})" for n in names) for names in alike[:3])
    return [
        Finding(
            "label-spelling",
            "warning",
            f"classes that differ only in case or blanks are learnt as different ones: {listed}{_more(len(alike) - 3)}",
            {"classes": alike[:_EXAMPLES]},
            "give each class one spelling",
            "SPEC D5",
        )
    ]


def conflicts(source: Source, copies: Copies) -> list[Finding]:
    found = spread_over(copies.component, codes(source.labels)[copies.members])
    if not len(found):
        return []
    members = [_members(copies, component, source.labels) for component in found[:_EXAMPLES].tolist()]
    examples = [[{"file": source.names[i], "label": source.labels[i]} for i in group] for group in members]
    first = " and ".join(f"'{item['file']}' ({item['label']})" for item in examples[0][:2])
    return [
        Finding(
            "conflicting-labels",
            "warning",
            f"{_pictures(len(found))} in two classes, byte for byte or nearly so, such as {first}",
            {"pictures": len(found), "examples": examples},
            "look at the named pairs and keep each picture in one class",
            "SPEC D5",
        )
    ]


def leaks(source: Source, copies: Copies, splits: np.ndarray, usable: np.ndarray) -> list[Finding]:
    split_codes = codes(splits)
    found = spread_over(copies.component, split_codes[copies.members])
    grouped = np.zeros(0, np.int64)
    if source.groups is not None:
        chosen = np.flatnonzero(usable)
        grouped = spread_over(codes(source.groups)[chosen], split_codes[chosen])
    if not len(found) and not len(grouped):
        return []
    parts: list[str] = []
    dropped = int(copies.of_held_out.sum())
    evidence: dict[str, Any] = {"pictures": len(found), "groups": len(grouped), "not_used": dropped}
    if len(found):
        members = [_members(copies, component, splits) for component in found[:_EXAMPLES].tolist()]
        evidence["examples"] = [[{"file": source.names[i], "split": splits[i]} for i in group] for group in members]
        first = " and ".join(f"'{item['file']}' ({item['split']})" for item in evidence["examples"][0][:2])
        parts.append(f"{_pictures(len(found))} in two splits, such as {first}")
    if dropped:
        parts.append(
            f"{dropped:,} byte-identical {'copy' if dropped == 1 else 'copies'} of held-out images stay unused"
        )
    if len(grouped):
        parts.append(f"{len(grouped):,} of the given groups {'stands' if len(grouped) == 1 else 'stand'} in two splits")
    return [
        Finding(
            "train-val-leak",
            "warning",
            "; ".join(parts),
            evidence,
            "take the copies out of the training part, or give the images without splits and let wellfit divide them",
            "SPEC D5; Barz and Denzler 2020",
        )
    ]


def near_duplicates(source: Source, copies: Copies) -> list[Finding]:
    found, sizes = np.unique(copies.component, return_counts=True)
    found, sizes = found[sizes > 1], sizes[sizes > 1]
    if not len(found):
        return []
    order = np.argsort(-sizes, kind="stable")[:_EXAMPLES]
    examples = [[source.names[i] for i in _members(copies, k, source.names)] for k in found[order].tolist()]
    images = int(sizes.sum())
    return [
        Finding(
            "near-duplicates",
            "info",
            f"{images:,} images are copies of one another or nearly so ({len(found):,} groups, the largest of "
            f"{int(sizes.max()):,}), such as '{examples[0][0]}' and '{examples[0][1]}'",
            {"images": images, "groups": len(found), "largest": int(sizes.max()), "examples": examples},
            "nothing is required: a split that wellfit makes keeps them on one side",
            "SPEC D5; Barz and Denzler 2020",
        )
    ]


def class_sizes(counts: dict[str, int]) -> list[Finding]:
    findings = []
    small = {name: count for name, count in counts.items() if count < SMALL_CLASS}
    if small:
        listed = ", ".join(f"'{name}' ({count})" for name, count in list(small.items())[:3])
        verb = "class has" if len(small) == 1 else "classes have"
        findings.append(
            Finding(
                "small-classes",
                "warning",
                f"{len(small):,} {verb} fewer than {SMALL_CLASS} images: {listed}{_more(len(small) - 3)}",
                {"classes": small},
                "collect more images of these classes, or merge them with others",
                "SPEC T0, R5",
            )
        )
    largest, smallest = max(counts, key=lambda n: counts[n]), min(counts, key=lambda n: counts[n])
    ratio = counts[largest] / counts[smallest]
    if ratio >= IMBALANCE_SEEN:
        findings.append(
            Finding(
                "imbalanced-classes",
                "warning" if ratio >= IMBALANCE_LARGE else "info",
                f"the largest class, '{largest}' ({counts[largest]:,} images), has {ratio:.1f} times the images of the "
                f"smallest, '{smallest}' ({counts[smallest]:,})",
                {"largest": largest, "smallest": smallest, "ratio": round(ratio, 2), "classes": counts},
                "if rare classes matter as much as common ones, use --metric balanced_accuracy",
                "Buda, Maki and Mazurowski 2018",
            )
        )
    return findings


def _members(copies: Copies, component: int, kinds: Sequence[str] | np.ndarray) -> list[int]:
    """Up to five members of a component, one of each kind first."""
    members = copies.members[copies.component == component].tolist()
    first = list({kinds[i]: i for i in reversed(members)}.values())[::-1]
    return [*first, *(i for i in members if i not in first)][:5]


def _pictures(count: int) -> str:
    return "1 picture stands" if count == 1 else f"{count:,} pictures stand"


def some(items: list[LeftOut]) -> str:
    """The first three files with their reasons, for a sentence."""
    """Small classes and imbalance. counts: images by class, at least 1 each."""
    """How many images are copies of others."""
    """The same picture, or one group of the user's, in two splits. splits: text, usable: bool, one an image."""
    """The same picture in two classes."""
    """Classes whose names are equal but for case and blanks. counts: images by class."""
    """What could not be used, and what has another type than its name says. usable: how many images are."""
    return ", ".join(f"'{item.file}' ({item.reason})" for item in items[:3]) + _more(len(items) - 3)


def _more(count: int) -> str:
    return f" and {count:,} more" if count > 0 else ""

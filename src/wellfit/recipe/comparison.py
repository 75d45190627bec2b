"""Two runs on the same images: `wellfit compare A B [DATA]`.

Without DATA the answers are those that each run gave when its own test split was opened, once; nothing is decoded
again. Images that either run was trained or chosen on never count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wellfit.config import DataConfig
from wellfit.errors import UserError
from wellfit.inference.metrics import wilson_interval
from wellfit.inference.paired import mcnemar, paired_difference
from wellfit.models.saved import load_model, read_card
from wellfit.recipe.answers import Answers, read_answers
from wellfit.record import RunFolder, read_record

LEVEL = 0.05
"""Differences that chance alone brings about more rarely than this are called more than chance."""


def compare_runs(a: str | Path, b: str | Path, data: Any = None, config: DataConfig | None = None) -> dict[str, Any]:
    """Accuracies of two runs on the same images, the 2×2 table, McNemar's exact test, and what it means in a sentence.

    data: labelled images as for `fit` (of data with a test split, that alone); None: the test images, by content, that
    both runs have. Raises UserError for different classes, for no image in common, and for a run without answers.

    Returns {"a", "b", "images", "accuracy": {"a", "b"}, "interval": {"a": [low, high], "b": …}, "both_right", "only_a",
    "only_b", "both_wrong", "difference" (B minus A), "difference_interval", "p_value", "more_than_chance", "sentence",
    "notes", "left_out"}.
    """
    first, second = RunFolder.open(a), RunFolder.open(b)
    if first.path.resolve() == second.path.resolve():
        raise UserError(f"a comparison needs two runs, got '{a}' twice; give another one")
    classes = _common_classes(first, second)
    notes: list[str] = []
    if data is None:
        right_a, right_b = _on_own_tests(first, second, classes, notes)
        left_out: list[dict[str, Any]] = []
    else:
        right_a, right_b, left_out = _on_data(first, second, data, config or DataConfig(), notes)
    notes += [note for folder in (first, second) if (note := _perhaps_seen(folder))]
    return {"a": str(a), "b": str(b), **_figures(right_a, right_b), "notes": notes, "left_out": left_out}


def _common_classes(first: RunFolder, second: RunFolder) -> list[str]:
    """The classes of the first run; UserError where the other's are not the same, in whatever order."""
    a, b = list(read_card(first)["classes"]), list(read_card(second)["classes"])
    lone = [(name, first) for name in a if name not in b] + [(name, second) for name in b if name not in a]
    if lone:
        name, folder = lone[0]
        also = f" (and {len(lone) - 1} more are in one run only)" if len(lone) > 1 else ""
        raise UserError(
            f"two runs are compared on the same classes, but '{name}' is a class of '{folder.path}' alone{also}; "
            "compare runs that were fitted on the same classes"
        )
    return a


def _on_own_tests(
    first: RunFolder, second: RunFolder, classes: list[str], notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each run was right on the test images that both have: two bool arrays."""
    ours, theirs = _kept(first), _kept(second)
    tables = [_right_by_image(first, ours, classes), _right_by_image(second, theirs, classes)]
    seen = ours.seen | theirs.seen
    shared = [key for key in tables[0] if key in tables[1] and key[0] not in seen]
    sizes = [len(table) for table in tables]
    if not shared:
        raise UserError(
            f"'{first.path}' and '{second.path}' have no test image in common ({sizes[0]:,} and {sizes[1]:,}); give "
            "images that neither was trained on: `wellfit compare A B DATA`"
        )
    if len(shared) < max(sizes):
        notes.append(
            f"the runs have {sizes[0]:,} and {sizes[1]:,} test images; the {len(shared):,} that both have, and that "
            "neither learnt from, count"
        )
    a, b = (np.array([table[key] for key in shared], dtype=bool) for table in tables)
    return a, b


def _right_by_image(folder: RunFolder, answers: Answers, classes: list[str]) -> dict[tuple[bytes, int], bool]:
    """By content and label: a copy that stands twice under one label is one image, under two labels two questions."""
    number = np.array([classes.index(name) for name in read_card(folder)["classes"]])
    keys = zip(answers.images, number[answers.targets].tolist(), strict=True)
    return dict(zip(keys, (answers.predicted == answers.targets).tolist(), strict=True))


def _kept(folder: RunFolder) -> Answers:
    kept = read_answers(folder)
    if kept is None:
        raise UserError(
            f"'{folder.path}' keeps no answers on test images: it has not opened a test split, or an earlier wellfit "
            "made it; give images that neither run was trained on: `wellfit compare A B DATA`"
        )
    return kept


def _on_data(
    first: RunFolder, second: RunFolder, data: Any, config: DataConfig, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    from wellfit.recipe.evaluation import logits_on, open_labelled

    models = [load_model(folder) for folder in (first, second)]
    images = open_labelled(first.path, list(models[0][1]["classes"]), data, config)
    fresh = np.ones(len(images.rows), dtype=bool)
    for folder in (first, second):
        kept = read_answers(folder)
        if kept is None:
            notes.append(f"'{folder.path}' kept no list of the images that it learnt from: some may be among these")
            continue
        fresh &= np.array([images.store.content_hashes[row] not in kept.seen for row in images.rows.tolist()])
    if not fresh.any():
        raise UserError(
            f"every image of '{images.source.location}' served to train one of the two runs, which then knows it by "
            "heart; give images that neither has learnt from, or leave DATA out to compare on their test images"
        )
    if not fresh.all():
        notes.append(f"{int((~fresh).sum()):,} images that a run was trained or chosen on do not count")
    images.rows, images.indices = images.rows[fresh], images.indices[fresh]
    right = []
    for module, card in models:
        logits, targets = logits_on(module, card, images)
        right.append(logits.argmax(1) == targets)
    return right[0], right[1], [vars(item) for item in images.left_out]


def _perhaps_seen(folder: RunFolder) -> str | None:
    lines = read_record(folder.record)
    if not any(line["kind"] == "finding" and line.get("id") == "test-perhaps-seen" for line in lines):
        return None
    return f"'{folder.path}' went on from a network that may have seen some of its test images"


def _figures(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    n = len(a)
    both, only_a, only_b = int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum())
    p = mcnemar(only_a, only_b)
    difference, low, high = paired_difference(only_a, only_b, n)
    more = p < LEVEL
    return {
        "images": n,
        "accuracy": {"a": float(a.mean()), "b": float(b.mean())},
        "interval": {"a": list(wilson_interval(int(a.sum()), n)), "b": list(wilson_interval(int(b.sum()), n))},
        "both_right": both,
        "only_a": only_a,
        "only_b": only_b,
        "both_wrong": n - both - only_a - only_b,
        "difference": difference,
        "difference_interval": [low, high],
        "p_value": p,
        "more_than_chance": more,
        "sentence": _sentence(only_a, only_b, p, more),
    }


def _sentence(only_a: int, only_b: int, p: float, more: bool) -> str:
    told = only_a + only_b
    if not told:
        return "the two runs are right on the same images and wrong on the same: nothing tells them apart"
    if only_a == only_b:
        return f"the two runs are level: of {told:,} images that tell them apart, each has one half"
    better, wins = ("B", only_b) if only_b > only_a else ("A", only_a)
    often = "fewer than 1 of 10,000" if p < 1e-4 else f"{100 * p:.2g} of 100"
    because = (
        f"{better} alone is right on {wins:,} of the {told:,} images that tell the two apart, and between equally good "
        f"runs a split as uneven turns up in {often} comparisons (McNemar's exact test, p = {p:.2g})"
    )
    return f"{better} is better by more than chance: {because}" if more else f"this may well be chance: {because}"

"""Dealing images to the parts of a split: stratified by class, whole groups on one side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TRAIN, VALIDATION, TEST = 0, 1, 2


def held_out_quotas(sizes: np.ndarray, validation: float, test: float) -> np.ndarray:
    """How many images of each class go to each part. sizes: C; validation, test: shares. → C×3, as numbered above.

    Within one of the exact share; at least one each where the class has an image to spare: training comes first, then
    validation, then test.
    """
    quotas = np.zeros((len(sizes), 3), dtype=np.int64)
    spare = np.maximum(sizes - 1, 0)
    for part, share in ((VALIDATION, validation), (TEST, test)):
        if share > 0:
            wanted = np.maximum(np.floor(sizes * share + 0.5).astype(np.int64), 1)
            quotas[:, part] = np.minimum(wanted, spare)
            spare = spare - quotas[:, part]
    quotas[:, TRAIN] = sizes - quotas[:, 1:].sum(axis=1)
    return quotas


def fold_quotas(sizes: np.ndarray, folds: int) -> np.ndarray:
    """C×folds: each class dealt evenly, the remainders going round so that the folds come out of equal size."""
    quotas = np.repeat(sizes[:, None] // folds, folds, axis=1)
    turn = 0
    for row, rest in enumerate((sizes % folds).tolist()):
        quotas[row, (turn + np.arange(rest)) % folds] += 1
        turn += rest
    return quotas


def assign(classes: np.ndarray, groups: np.ndarray, quotas: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The part of each image, so that each part gets its quota of each class as nearly as whole groups allow.

    classes: int64 N in 0..C-1; groups: int64 N, any numbers; quotas: C×P. → int64 N in 0..P-1.

    Groups of several images are dealt first, the largest first, each to the part that is left the least full by it;
    images on their own then fill up every quota exactly. Near-linear in N.
    """
    part = np.full(len(classes), -1, dtype=np.int64)
    left = quotas.astype(np.int64).copy()
    _, number_of, count = np.unique(groups, return_inverse=True, return_counts=True)
    several = np.flatnonzero(count[number_of] > 1)
    members = [several[rows] for rows in members_of(groups[several])]
    ties = draw.permutation(len(members))
    sizes = np.array([len(rows) for rows in members], dtype=np.int64)
    for number in np.lexsort((ties, -sizes)).tolist():
        rows = members[number]
        found, counts = np.unique(classes[rows], return_counts=True)
        after = (left[found] - counts[:, None]) / np.maximum(quotas[found], 0.5)
        chosen = int(np.argmax((after * counts[:, None]).sum(axis=0)))
        part[rows] = chosen
        left[found, chosen] -= counts
    _fill(part, classes, left, draw)
    return part


def spread(part: np.ndarray, classes: np.ndarray, groups: np.ndarray, parts: Sequence[int]) -> None:
    """Move groups, in place, so that each of `parts` has every class, the first part above all, as far as groups allow.

    A class comes into a part that lacks it by its smallest group, taken out of any part for the first of `parts`, and
    for the others out of the first, where that keeps every class itself.
    """
    table = np.zeros((int(classes.max(initial=-1)) + 1, int(part.max(initial=0)) + max(parts) + 1), dtype=np.int64)
    np.add.at(table, (classes, part), 1)
    if (table[:, list(parts)] > 0).all():
        return
    members = members_of(groups)
    group = np.empty(len(classes), dtype=np.int64)
    for number, rows in enumerate(members):
        group[rows] = number
    by_class = members_of(classes)
    rows_of = {int(classes[rows[0]]): rows for rows in by_class}
    for target in parts:
        for label in np.flatnonzero(table[:, target] == 0).tolist():
            own = sorted(set(group[rows_of.get(label, [])].tolist()), key=lambda number: (len(members[number]), number))
            for number in own:
                rows = members[number]
                source = int(part[rows[0]])
                leaving = np.bincount(classes[rows], minlength=len(table))
                keeps = bool((table[leaving > 0, source] > leaving[leaving > 0]).all())
                if source != target and (target == parts[0] or (source == parts[0] and keeps)):
                    part[rows] = target
                    table[:, source] -= leaving
                    table[:, target] += leaving
                    break


def members_of(groups: np.ndarray) -> list[np.ndarray]:
    """The rows of each group, groups in order of their first row: which numbers they have does not matter."""
    if not len(groups):
        return []
    order = np.argsort(groups, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return sorted(rows, key=lambda row: int(row[0]))


def _fill(part: np.ndarray, classes: np.ndarray, left: np.ndarray, draw: np.random.Generator) -> None:
    """Deal the images that have no part yet, class by class in random order, to what is left of the quotas."""
    rows = np.flatnonzero(part < 0)
    rows = rows[np.lexsort((draw.permutation(len(rows)), classes[rows]))]
    counts = np.bincount(classes[rows], minlength=len(left))
    start = 0
    for label in np.flatnonzero(counts).tolist():
        count = int(counts[label])
        room = np.maximum(left[label], 0)
        # Groups may have overfilled a part: what is missing elsewhere is then shared out in proportion to the room.
        room = _shares(room, count)
        part[rows[start : start + count]] = np.repeat(np.arange(len(room)), room)
        start += count


def _shares(room: np.ndarray, count: int) -> np.ndarray:
    """Whole numbers in proportion to `room` that add up to `count`, by largest remainder."""
    total = int(room.sum())
    if total == count:
        return room
    exact = room * (count / total) if total else np.full(len(room), count / len(room))
    shares = np.floor(exact).astype(np.int64)
    rest = count - int(shares.sum())
    shares[np.argsort(-(exact - shares), kind="stable")[:rest]] += 1
    return shares

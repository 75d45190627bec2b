"""Which images belong together: connected components of "the same as", in near-linear time."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np


def codes(keys: Iterable[Hashable]) -> np.ndarray:
    """Equal keys → equal whole numbers, from 0 in order of first appearance. int64."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)


def chain(keys: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Edges that connect the items with equal keys, each to the next one of its kind. → E×2."""
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    return np.stack([items[order[:-1][same]], items[order[1:][same]]], axis=1)


def connected(count: int, edges: np.ndarray) -> np.ndarray:
    """Components of an undirected graph: for each of `count` nodes the smallest node of its component. edges: E×2.

    Union by smallest root with path halving (Tarjan and van Leeuwen 1984).
    """
    parent = list(range(count))
    for first, second in edges.tolist():
        while parent[first] != first:
            parent[first] = first = parent[parent[first]]
        while parent[second] != second:
            parent[second] = second = parent[parent[second]]
        parent[max(first, second)] = min(first, second)
    # Parents are never larger than their children, so one pass in order reaches every root.
    for node in range(count):
        parent[node] = parent[parent[node]]
    return np.array(parent, dtype=np.int64)


def spread_over(component: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Components whose members are of more than one kind. component, kind: int64 N. → sorted component numbers."""
    span = int(kind.max(initial=0)) + 1
    found, kinds = np.unique(np.unique(component * span + kind) // span, return_counts=True)
    return found[kinds > 1]

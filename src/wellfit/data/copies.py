"""Copies of the same image within a source: byte for byte, pixel for pixel, or nearly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellfit.data.groups import chain, codes, connected
from wellfit.data.inspect import Inspection, content_hash
from wellfit.data.near_duplicates import contrasts, near_duplicate_pairs, telling
from wellfit.data.store import PixelStore

_HELD_OUT = {"validation": 1, "test": 2}


@dataclass
class Copies:
    """edges: E×2 source indices that are copies of each other.

    members: the source indices that have a copy, sorted; component: for each of them the number of its set of copies.
    of_held_out: bool, one an image of the source: byte-identical to one in a split that is held out from its own.
    """

    edges: np.ndarray
    members: np.ndarray
    component: np.ndarray
    of_held_out: np.ndarray


def find_copies(
    inspection: Inspection, store: PixelStore, usable: np.ndarray, splits: np.ndarray, opened: PixelStore | None = None
) -> Copies:
    """Compare all usable images by their bytes, and those in the store by what they show.

    usable: bool, splits: text, both one an image of the source. opened: a second store, of a test split.
    """
    images = np.flatnonzero(usable)
    hashes = codes([inspection.content_hash[i] for i in images.tolist()])
    edges = np.concatenate([chain(hashes, images), _alike([store] if opened is None else [store, opened])])
    component = connected(len(usable), edges)
    members = np.unique(edges)
    return Copies(edges, members, component[members], _of_held_out(images, hashes, splits))


def _alike(stores: list[PixelStore]) -> np.ndarray:
    """Pairs of source indices whose stored pixels show the same."""
    rows = [np.flatnonzero(store.usable) for store in stores]
    indices = np.concatenate([store.indices[r] for store, r in zip(stores, rows, strict=True)])
    thumbnails = np.concatenate([store.thumbnails[r] for store, r in zip(stores, rows, strict=True)])
    shapes = np.concatenate([store.shapes[r] for store, r in zip(stores, rows, strict=True)])
    near = near_duplicate_pairs(thumbnails, shapes)
    # Where thumbnails tell nothing, only equal pixels count (the same blank page as PNG and as BMP).
    silent = np.flatnonzero(~telling(contrasts(thumbnails), shapes))
    images = [(store, int(row)) for store, r in zip(stores, rows, strict=True) for row in r]
    pixels = codes([content_hash(images[i][0].image(images[i][1])) for i in silent.tolist()])
    return indices[np.concatenate([near, chain(pixels, silent)])]


def _of_held_out(images: np.ndarray, hashes: np.ndarray, splits: np.ndarray) -> np.ndarray:
    result = np.zeros(len(splits), dtype=bool)
    rank = np.array([_HELD_OUT.get(split, 0) for split in splits[images].tolist()], dtype=np.int64)
    if len(images):
        highest = np.zeros(int(hashes.max()) + 1, dtype=np.int64)
        np.maximum.at(highest, hashes, rank)
        result[images] = rank < highest[hashes]
    return result

"""Pairs of images that show the same picture: re-encoded, resized, slightly brighter or darker.

Thumbnails with nearly the same coarse structure fall into the same bucket (locality-sensitive hashing of low-frequency
cosine coefficients, after Datar et al. 2004), and pairs from one bucket are compared thumbnail against thumbnail. Every
step is linear in the number of images up to sorting; the sums are whole numbers, so that the answer does not depend on
the machine.
"""

from __future__ import annotations

import numpy as np

from wellfit.data.thumbnails import SIDE
from wellfit.randomness import generator

LARGEST_DIFFERENCE = 0.12
"""Mean absolute difference of two thumbnails, brightness removed, in units of their contrast (standard deviation).
Measured: JPEG quality 60 or resizing changes photos by 0.00-0.05 and 32×32 images by 0.03-0.13, while the nearest
*other* image is at 0.3 and more among photos and 98% of CIFAR-10."""

SPACING_SHARE = 0.16
"""The limit is at most this share of the usual spacing of the data set's images: garments on black (Fashion-MNIST) or
photos of one product differ less from each other than a landscape from its own re-encoding."""

SMALLEST_SIDE = 16
"""Images with a shorter side are blown up in their thumbnails, which then do not tell one from another."""

FLAT = 6.0
"""Contrast in grey levels below which a thumbnail (blank page, clear sky) does not tell one image from another."""

_FREQUENCIES = [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (0, 3), (3, 0), (2, 2), (1, 3), (3, 1)]
_TABLES = 8
_PER_TABLE = 6
_CELL = 0.8  # bucket width, in units of contrast; a re-encoded image moves by about 0.05
_WINDOW = 6  # within a bucket each image is compared with this many next ones
_ASPECT = 0.1
_SPACING_SAMPLE, _SPACING_RANK = 128, 10
_CHUNK = 8192


def near_duplicate_pairs(thumbnails: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Pairs of near-identical images.

    thumbnails: N×16×16×3 uint8. shapes: N×2, height and width of the images they were made of.
    Returns P×2 row numbers, the smaller first, sorted, each pair once. A group of m copies gives at least the pairs
    that connect it, not all m²/2.

    Images smaller than 16 pixels and flat ones are never paired here: their thumbnails carry no identity, so only exact
    equality of their pixels counts (see `telling`). A pair's aspect ratios must agree within a tenth.
    """
    contrast = contrasts(thumbnails)
    rows = np.flatnonzero(telling(contrast, shapes))
    if len(rows) < 2:
        return np.zeros((0, 2), np.int64)
    flat, contrast = thumbnails.reshape(len(thumbnails), -1)[rows], contrast[rows]
    coefficients = _coefficients(flat) / contrast[:, None]
    limit = min(LARGEST_DIFFERENCE, SPACING_SHARE * spacing(flat, contrast))
    aspect = np.log(shapes[rows, 1] / shapes[rows, 0])
    found = []
    for table, chosen in enumerate(_tables()):
        # Other edges in every table: a copy that lands across one of them is caught by the next.
        candidates = _same_bucket(coefficients[:, chosen], table / _TABLES)
        candidates = candidates[np.abs(aspect[candidates[:, 0]] - aspect[candidates[:, 1]]) <= _ASPECT]
        found.append(candidates[_difference(flat, contrast, candidates) <= limit])
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return rows[pairs]


def telling(contrast: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """bool N: whether a thumbnail tells its image from others: not of a tiny image, and not flat."""
    return (shapes.min(axis=1) >= SMALLEST_SIDE) & (contrast >= FLAT)


def contrasts(thumbnails: np.ndarray) -> np.ndarray:
    """Standard deviation within each thumbnail, the mean of each colour removed, in grey levels. → N float64."""
    out = np.empty(len(thumbnails))
    for start in range(0, len(out), _CHUNK):
        values = thumbnails[start : start + _CHUNK].reshape(-1, SIDE * SIDE, 3).astype(np.int32)
        sums, squares = values.sum(axis=1, dtype=np.int64), np.einsum("nij,nij->n", values, values)
        out[start : start + _CHUNK] = np.sqrt((squares - (sums**2).sum(axis=1) / SIDE**2) / (3 * SIDE**2))
    return out


def spacing(flat: np.ndarray, contrast: np.ndarray) -> float:
    """How far apart images of this data set usually lie: median difference to the tenth nearest, over a sample.

    flat: N×768 uint8, contrast: N. Infinite where there are fewer images than that.
    """
    if len(flat) <= 2 * _SPACING_RANK:
        return float("inf")
    draw = generator(0, "spacing of thumbnails")
    sample = np.sort(draw.permutation(len(flat))[:_SPACING_SAMPLE])
    centred = flat[sample].astype(np.float32)
    centred -= np.rint(centred.mean(axis=1, keepdims=True))
    nearest = np.full((len(sample), _SPACING_RANK + 1), np.inf, np.float32)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float32)
        part -= np.rint(part.mean(axis=1, keepdims=True))
        squares = (centred**2).sum(1)[:, None] + (part**2).sum(1)[None, :] - 2 * (centred @ part.T)
        both = np.concatenate([nearest, squares], axis=1)
        nearest = np.partition(both, _SPACING_RANK, axis=1)[:, : _SPACING_RANK + 1]  # itself is among them
    tenth = np.sqrt(np.maximum(nearest.max(axis=1), 0) / flat.shape[1])
    return float(np.round(np.median(tenth / contrast[sample]), 3))


def _coefficients(flat: np.ndarray) -> np.ndarray:
    """Low-frequency cosine coefficients of the grey thumbnail, in grey levels: N×12 float64."""
    x = np.cos(np.pi * (np.arange(SIDE) + 0.5)[None, :] * np.arange(4)[:, None] / SIDE)
    basis = np.rint(16 * np.stack([np.outer(x[u], x[v]).ravel() for u, v in _FREQUENCIES]))
    norms = np.sqrt((basis**2).sum(axis=1))
    # The three colours weigh the same: one whole-number basis over all 768 values, sums exact in float32.
    coloured = np.repeat(basis, 3, axis=1).T.astype(np.float32)
    parts = [flat[i : i + _CHUNK].astype(np.float32) @ coloured for i in range(0, len(flat), _CHUNK)]
    return np.concatenate(parts) / (3 * norms)


def _tables() -> list[np.ndarray]:
    """Which coefficients each table hashes, the strongest ones most often; the last one of a row orders its buckets."""
    draw = generator(0, "near-duplicate tables")
    return [np.concatenate([draw.permutation(6)[:3], 6 + draw.permutation(6)[:4]]) for _ in range(_TABLES)]


def _same_bucket(coefficients: np.ndarray, offset: float) -> np.ndarray:
    """Candidate pairs: neighbours, by the last coefficient, among images whose other ones fall into one cell."""
    cells = np.floor(coefficients[:, :_PER_TABLE] / _CELL + offset).astype(np.int64) & 0xFF
    keys = (cells << (8 * np.arange(_PER_TABLE))).sum(axis=1)
    order = np.lexsort((np.arange(len(keys)), coefficients[:, _PER_TABLE], keys))
    pairs = []
    for step in range(1, min(_WINDOW, len(order) - 1) + 1):
        same = keys[order[:-step]] == keys[order[step:]]
        pairs.append(np.stack([order[:-step][same], order[step:][same]], axis=1))
    return np.concatenate(pairs)


def _difference(flat: np.ndarray, contrast: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each pair without its mean, in units of the smaller contrast."""
    out = np.empty(len(pairs))
    for start in range(0, len(pairs), _CHUNK):
        first, second = pairs[start : start + _CHUNK].T
        difference = flat[first].astype(np.int16) - flat[second]
        brightness = np.rint(difference.sum(axis=1, dtype=np.int64) / flat.shape[1]).astype(np.int16)
        total = np.abs(difference - brightness[:, None]).sum(axis=1, dtype=np.int64)
        out[start : start + _CHUNK] = total / flat.shape[1] / np.minimum(contrast[first], contrast[second])
    return out

"""`train-val-mismatch`: were the pictures of the given splits prepared alike? (SPEC D3, D5)

Compared within classes, so that a split with other shares of them does not alarm. Of a sealed test split only the files
are looked at (size, format, JPEG quality), unless the caller opens it.
"""

from __future__ import annotations

import struct
from collections import Counter

import numpy as np

from wellfit.data.appearance import Measure
from wellfit.data.headers import Undecodable, sniff
from wellfit.data.inspect import Inspection
from wellfit.data.preparation import Contrast, Sample, contrasts
from wellfit.data.sources import Source
from wellfit.data.store import PixelStore
from wellfit.findings import Finding
from wellfit.randomness import generator

IMAGES = 400  # looked at in each split
HELD_OUT = ("validation", "test")

FILE_MEASURES = {
    "short side": Measure("short side in pixels", 0.1, log=True),
    "aspect": Measure("width by height", 0.05, log=True),
    "square": Measure("share of square images", 0.4),
    "grey": Measure("share of grey images", 0.4),
    "quality": Measure("mean step of JPEG compression", 0.3, log=True),
}
_SHARE = 0.4  # of one shape or one file format
_FORMATS = "format "
ACTION = (
    "prepare both splits from the same originals by the same script, or give the images without splits and let "
    "wellfit divide them"
)


def split_mismatch(
    source: Source,
    inspection: Inspection,
    store: PixelStore,
    usable: np.ndarray,
    splits: np.ndarray,
    opened: PixelStore | None = None,
) -> list[Finding]:
    """One finding for each held-out split that was prepared otherwise than the training split.

    usable: bool, splits: text ("train", "validation", "test"), one an image. opened: a store of test images; None
    leaves that split sealed.
    """
    training = np.flatnonzero(usable & (splits == "train"))
    findings = []
    for name in HELD_OUT:
        other = np.flatnonzero(usable & (splits == name))
        if len(training) and len(other):
            labels = np.array(source.labels, dtype=object)
            pair = _chosen(labels, training, name), _chosen(labels, other, name)
            findings += _compare(source, inspection, store, opened, pair, name)
    return findings


def _chosen(labels: np.ndarray, rows: np.ndarray, name: str) -> np.ndarray:
    """Up to IMAGES rows, taken in turn from each class, at random from the one seed there is."""
    rows = rows[generator(0, "split-mismatch", name).permutation(len(rows))]
    _, of_class = np.unique(labels[rows].astype(str), return_inverse=True)
    order = np.argsort(of_class, kind="stable")
    turn = np.empty(len(rows), np.int64)
    starts = np.searchsorted(of_class[order], of_class[order])
    turn[order] = np.arange(len(rows)) - starts
    return np.sort(rows[np.argsort(turn, kind="stable")[:IMAGES]])


def _compare(
    source: Source,
    inspection: Inspection,
    store: PixelStore,
    opened: PixelStore | None,
    pair: tuple[np.ndarray, np.ndarray],
    name: str,
) -> list[Finding]:
    looks = [_sample(source, inspection, store, opened, rows) for rows in pair]
    if not len(np.intersect1d(looks[0].classes, looks[1].classes)):
        # Other classes look otherwise: then only the files are compared, all of them as one class.
        looks = [Sample([], np.zeros(len(look.classes)), look.shown) for look in looks]
    measures = {**FILE_MEASURES, **_shapes(looks), **_formats(looks)}
    found, mistake = contrasts(looks[0], looks[1], measures)
    return [] if not found else [mismatch_finding(found, mistake, name, [len(look.classes) for look in looks])]


def mismatch_finding(found: list[Contrast], mistake: str, name: str, images: list[int]) -> Finding:
    """What differs, in words. found: largest effect first. images: how many were looked at, training and held out."""
    listed = "; ".join(f"{c.measure}: {c.training:.3g} in training, {c.other:.3g} in {name}" for c in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    cause = f"; {mistake} on one side would explain it" if mistake else ""
    return Finding(
        "train-val-mismatch",
        "warning",
        f"the {name} images were prepared otherwise than the training images ({listed}{more}){cause}",
        {
            "split": name,
            "images": images,
            "differences": [c.as_dict() for c in found],
            "explained_by": mistake or None,
        },
        ACTION,
        "SPEC D3, D5",
    )


def _sample(
    source: Source, inspection: Inspection, store: PixelStore, opened: PixelStore | None, rows: np.ndarray
) -> Sample:
    images: list[np.ndarray] = []
    kept: list[int] = []
    sealed = opened is None and bool((store.row_of[rows] < 0).any())
    files: dict[str, list[float]] = {"quality": []}
    formats: list[str] = []
    grey: list[float] = []
    for index in rows.tolist():
        try:
            data = source.reader.read(index)
        except Undecodable:
            continue
        if not sealed:
            pixels = _stored(index, store, opened)
            if not pixels.size:
                continue
            images.append(np.float32(1 / 255) * pixels)
            grey.append(float((pixels == pixels[:, :, :1]).all()))
        kept.append(index)
        formats.append(sniff(data).format if isinstance(data, bytes) else "pixels")
        files["quality"].append(jpeg_coarseness(data) if isinstance(data, bytes) else 0.0)
    chosen = np.array(kept, dtype=np.int64)
    width, height = inspection.widths[chosen], inspection.heights[chosen]
    shown = {
        "short side": np.log(np.maximum(1, np.minimum(width, height))),
        "aspect": np.log(np.maximum(1, width) / np.maximum(1, height)),
        "square": (width == height).astype(float),
        "width": width,
        "height": height,
        _FORMATS: np.array(formats, dtype=object),
        "quality": np.array(files["quality"]),
    }
    if not sealed:
        shown["grey"] = np.array(grey)
    classes = np.array([source.labels[i] for i in kept], dtype=str)
    return Sample(images, classes, shown)


def _stored(index: int, store: PixelStore, opened: PixelStore | None) -> np.ndarray:
    row = int(store.row_of[index])
    if row >= 0 or opened is None:
        return store.image(row)
    return opened.image(int(opened.row_of[index]))


def _shapes(looks: list[Sample]) -> dict[str, Measure]:
    """One measure for the commonest shape of each side: one of them may have been made equal in size."""
    measures = {}
    shapes = [
        list(zip(look.shown.pop("width").tolist(), look.shown.pop("height").tolist(), strict=True)) for look in looks
    ]
    for shape in {Counter(side).most_common(1)[0][0] for side in shapes if side}:
        key = f"{shape[0]}×{shape[1]}"
        measures[key] = Measure(f"share of {key} images", _SHARE)
        for look, side in zip(looks, shapes, strict=True):
            look.shown[key] = np.array([float(s == shape) for s in side])
    return measures


def _formats(looks: list[Sample]) -> dict[str, Measure]:
    """One measure for each file format."""
    measures = {}
    formats = [look.shown.pop(_FORMATS) for look in looks]
    for name in sorted({*formats[0].tolist(), *formats[1].tolist()}):
        measures[name] = Measure(f"share of {name} files", _SHARE)
        for look, side in zip(looks, formats, strict=True):
            look.shown[name] = (side == name).astype(float)
    if any((side != "JPEG").any() for side in formats):
        for look in looks:
            look.shown.pop("quality")
    return measures


def jpeg_coarseness(data: bytes) -> float:
    """Logarithm of the mean step of a JPEG's first quantisation table, 0 where there is none: higher is coarser."""
    at = 2
    try:
        while data[at] == 0xFF and data[at + 1] not in (0xDA, 0xD9):
            length = struct.unpack_from(">H", data, at + 2)[0]
            if data[at + 1] == 0xDB:
                wide = data[at + 4] >> 4
                steps = np.frombuffer(data, ">u2" if wide else np.uint8, 64, at + 5)
                return float(np.log(max(1.0, float(steps.mean()))))
            at += 2 + length
    except (IndexError, struct.error, ValueError):
        return 0.0
    return 0.0

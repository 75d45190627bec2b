"""The features of a run's training images, computed once and kept beside its arrays.

`arrays/features.npy` (float16 N×F, memory-mapped when read) and `arrays/features.json` (whose they are).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors

from wellfit.data.batches import EvaluationBatches
from wellfit.errors import UserError
from wellfit.inference.evaluate import softmax
from wellfit.inference.features import Features
from wellfit.inference.neighbours import nearest
from wellfit.record import RunFolder, write_atomically

SCHEMA = 1
LARGEST_STORED = 64.0  # of the first batch: float16 then holds values a thousand times as large, and small ones well


class OutOfTime(Exception):
    """The features would not be ready by the deadline. seconds: what is missing."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"{seconds:.1f} s more are needed")


@dataclass
class FeatureBank:
    """features: float16 N×F, each value times `scale`; files: names, one an image; labels: class numbers, int64 N."""

    features: np.ndarray
    scale: float
    layer: str
    files: list[str]
    labels: np.ndarray
    classes: list[str]

    def __len__(self) -> int:
        return len(self.files)

    def stored(self, features: np.ndarray) -> np.ndarray:
        """Features as the bank holds them, rounding included: a training image is at distance 0 from itself."""
        return np.clip(features * self.scale, -65504, 65504).astype(np.float16)

    def nearest(self, features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(positions Q×k, L2 distances Q×k) of the training images nearest to features Q×F, nearest first."""
        positions, distances = nearest(self.stored(features), self.features, k)
        return positions, distances / self.scale


def features_file(folder: RunFolder) -> Path:
    return folder.arrays / "features.npy"


def _about(folder: RunFolder) -> Path:
    return folder.arrays / "features.json"


def read_bank(folder: RunFolder) -> FeatureBank | None:
    """The kept features; None where there are none, where they are damaged, or those of another model."""
    try:
        about = json.loads(_about(folder).read_text(encoding="utf-8"))
        if about["schema"] != SCHEMA or about["model"] != model_digest(folder):
            return None
        features = np.load(features_file(folder), mmap_mode="r", allow_pickle=False)
        labels = np.asarray(about["labels"], dtype=np.int64)
        bank = FeatureBank(
            features, float(about["scale"]), about["layer"], about["files"], labels, list(about["classes"])
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    whole = features.dtype == np.float16 and features.ndim == 2 and len(features) == len(bank.files) == len(labels)
    return bank if whole else None


def build_bank(
    folder: RunFolder,
    features: Features,
    batches: EvaluationBatches,
    files: Sequence[str],
    classes: Sequence[str],
    *,
    progress: Callable[[int], None] = lambda done: None,
    in_time: Callable[[int, int], None] = lambda done, width: None,
) -> tuple[FeatureBank, np.ndarray]:
    """Compute and keep the features of all images; (bank, N probabilities of each image's own label).

    batches: the training split, its targets the class numbers. progress: told how many images are done. in_time:
    told the same and the features' number, and may raise OutOfTime. UserError where the folder cannot be written to.
    """
    path = features_file(folder)
    aside = path.with_name(".features.npy")
    own = np.empty(batches.images)
    stored, scale = None, 1.0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for positions, rows, logits in features.over(batches):
            if stored is None:
                scale = _scale(rows)
                shape = (batches.images, rows.shape[1])
                stored = np.lib.format.open_memmap(aside, mode="w+", dtype=np.float16, shape=shape)
            stored[positions] = np.clip(rows * scale, -65504, 65504).astype(np.float16)
            own[positions] = softmax(logits)[np.arange(len(positions)), batches.targets[positions]]
            progress(int(positions[-1]) + 1)
            in_time(int(positions[-1]) + 1, rows.shape[1])
        if stored is None:
            raise UserError("neighbours are looked for among training images, and this run has none; fit again")
        stored.flush()
        del stored
        aside.replace(path)
    except OSError as error:
        raise UserError(
            f"the features of the training images cannot be kept in '{path.parent}' ({error.strerror}); make room or "
            "make the folder writable"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    about = {
        "schema": SCHEMA,
        "model": model_digest(folder),
        "layer": features.layer,
        "scale": scale,
        "classes": list(classes),
        "labels": batches.targets.tolist(),
        "files": list(files),
    }
    write_atomically(_about(folder), json.dumps(about))
    bank = read_bank(folder)
    assert bank is not None
    return bank, own


def model_digest(folder: RunFolder) -> str | None:
    """The checksum that the model file carries."""
    with safetensors.safe_open(folder.model_weights, framework="numpy") as file:
        return (file.metadata() or {}).get("sha256")


def _scale(features: np.ndarray) -> float:
    """A power of two that brings the largest value near LARGEST_STORED, so that no bit is lost to the scaling."""
    largest = float(np.abs(features).max(initial=0.0))
    return 2.0 ** math.floor(math.log2(LARGEST_STORED / largest)) if 0 < largest < math.inf else 1.0

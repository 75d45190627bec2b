"""What a run answered on its test images, kept beside the record: two runs are compared without opening them again.

`arrays/answers-SPLIT.npz`: `images` (N×16 bytes, content hashes), `targets` and `predicted` (N class numbers) and
`seen` (M×16 bytes, the images that the run was trained or chosen on).

`arrays/held-out.npz`, of a linear classifier that was fitted on validation images too: `images` (N×16 bytes) and
`answers` (float32 N×C log probabilities, classes as in model.json), each by a classifier fitted without that image.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wellfit.data.inspect import HASH_BYTES
from wellfit.errors import UserError
from wellfit.record import RunFolder, write_atomically

if TYPE_CHECKING:
    from wellfit.recipe.prepare import Prepared

HELD_OUT = "held-out.npz"


@dataclass
class Answers:
    """images: content hashes, one an image; targets, predicted: class numbers; seen: what the run learnt from."""

    images: list[bytes]
    targets: np.ndarray
    predicted: np.ndarray
    seen: set[bytes]


def keep_answers(
    folder: RunFolder,
    split: str,
    data: Prepared,
    indices: np.ndarray,
    predicted: np.ndarray,
    also_seen: Iterable[bytes] = (),
) -> None:
    """Write the answers on a split. indices: source indices of its images; predicted: class numbers, one each.

    also_seen: content hashes of images beside the training and validation split that the model learnt from.
    """
    hashes = data.inspection.content_hash
    learnt = np.concatenate([data.split.train, data.split.validation])
    content = io.BytesIO()
    np.savez_compressed(
        content,
        images=_table([hashes[i] for i in indices.tolist()]),
        targets=data.targets(indices).astype(np.int32),
        predicted=predicted.astype(np.int32),
        seen=_table(sorted({*(hashes[i] for i in learnt.tolist()), *also_seen})),
    )
    write_atomically(folder.arrays / f"answers-{split}.npz", content.getvalue())


def read_answers(folder: RunFolder, split: str = "test") -> Answers | None:
    """The kept answers; None where the run has none. UserError where the file is damaged."""
    path = folder.arrays / f"answers-{split}.npz"
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, seen = _rows(arrays["images"]), set(_rows(arrays["seen"]))
            targets, predicted = arrays["targets"].astype(np.int64), arrays["predicted"].astype(np.int64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"'{path}' is damaged ({error}); copy it again, or give images to compare on") from error
    if not len(images) == len(targets) == len(predicted):
        raise UserError(f"'{path}' is damaged: its lists differ in length; copy it again, or give images to compare on")
    return Answers(images, targets, predicted, seen)


@dataclass
class HeldOut:
    """images: content hashes; answers: N×C log probabilities, each by the model's like that had not seen the image."""

    images: list[bytes]
    answers: np.ndarray


def keep_held_out(folder: RunFolder, data: Prepared, indices: np.ndarray, answers: np.ndarray) -> None:
    """Write what was said of images that were held out in turn. indices: their source indices."""
    hashes = data.inspection.content_hash
    content = io.BytesIO()
    np.savez_compressed(
        content, images=_table([hashes[i] for i in indices.tolist()]), answers=answers.astype(np.float32)
    )
    folder.arrays.mkdir(parents=True, exist_ok=True)
    write_atomically(folder.arrays / HELD_OUT, content.getvalue())


def read_held_out(folder: RunFolder) -> HeldOut | None:
    """What was kept; None where the run has none. UserError where the file is damaged."""
    path = folder.arrays / HELD_OUT
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, answers = _rows(arrays["images"]), arrays["answers"].astype(np.float32)
        if answers.ndim != 2 or len(images) != len(answers):
            raise ValueError(f"{len(images)} images have answers of shape {answers.shape}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"'{path}' is damaged ({error}); copy it again, or leave its run out") from error
    return HeldOut(images, answers)


def _table(hashes: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, HASH_BYTES)


def _rows(table: np.ndarray) -> list[bytes]:
    if table.dtype != np.uint8 or table.ndim != 2 or table.shape[1] != HASH_BYTES:
        raise ValueError(f"content hashes are N×{HASH_BYTES} bytes, got {table.shape} of {table.dtype}")
    content = np.ascontiguousarray(table).tobytes()
    return [content[i : i + HASH_BYTES] for i in range(0, len(content), HASH_BYTES)]

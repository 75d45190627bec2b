"""Splits that were prepared otherwise are told, by pixels and by files; honest ones are not."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import encoded, listed, open_rows, scene
from wellfit.data.audit import audit
from wellfit.data.inspect import inspect
from wellfit.data.sources import Source
from wellfit.data.split_mismatch import jpeg_coarseness
from wellfit.data.store import build_store
from wellfit.findings import Finding

PICTURES = [scene(seed, 40, 48) for seed in range(160)]
WARM = np.array([1.1, 1.0, 0.75])  # photographs have more red than blue


def tinted(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels * WARM, 0, 255).astype(np.uint8)


def split_source(
    change: Callable[[np.ndarray], bytes], held_out: int = 60, split: str = "validation", training: int = 100
) -> Source:
    """Pictures of two classes; `change` makes the held-out files, the training's are plain PNG."""
    items = [encoded(tinted(p)) for p in PICTURES[:training]]
    items += [change(tinted(p)) for p in PICTURES[100 : 100 + held_out]]
    splits = ["train"] * training + [split] * held_out
    return listed(items, splits=splits, names=[f"{i}.img" for i in range(len(items))])


def mismatches(source: Source, *, open_test: bool = False) -> list[Finding]:
    inspection = inspect(source)
    store = build_store(source, inspection, open_rows(source, inspection), short_side=320)
    sealed = np.setdiff1d(np.flatnonzero(inspection.usable), open_rows(source, inspection))
    opened = build_store(source, inspection, sealed, short_side=320) if open_test else None
    return [f for f in audit(source, inspection, store, opened).findings if f.id == "train-val-mismatch"]


def resized(width: int, height: int) -> Callable[[np.ndarray], bytes]:
    return lambda x: encoded(np.asarray(Image.fromarray(x).resize((width, height), Image.Resampling.BILINEAR)))


def blurred(x: np.ndarray) -> bytes:
    small = Image.fromarray(x).resize((x.shape[1] // 3, x.shape[0] // 3), Image.Resampling.BOX)
    return encoded(np.asarray(small.resize((x.shape[1], x.shape[0]), Image.Resampling.BILINEAR)))


PLANTED: dict[str, tuple[Callable[[np.ndarray], bytes], str]] = {
    "blue and red swapped": (lambda x: encoded(x[:, :, ::-1].copy()), "red less blue"),
    "grey": (lambda x: encoded(np.repeat(x.mean(2, keepdims=True).astype(np.uint8), 3, 2)), "share of grey images"),
    "inverted": (lambda x: encoded(255 - x), "red less blue"),
    "darker": (lambda x: encoded((x * 0.5).astype(np.uint8)), "brightness"),
    "flat": (lambda x: encoded((100 + 0.3 * x).astype(np.uint8)), "contrast"),
    "blurred": (blurred, "sharpness"),
    "smaller": (resized(24, 20), "short side in pixels"),
    "squeezed square": (resized(40, 40), "share of square images"),
    "cropped square": (lambda x: encoded(x[:, 4:44].copy()), "share of square images"),
    "JPEG": (lambda x: encoded(x, "JPEG", quality=95), "share of JPEG files"),
    "all but black": (lambda x: encoded((x / 255).astype(np.uint8)), "brightness"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_held_out_split_prepared_otherwise_is_told(name: str) -> None:
    change, measure = PLANTED[name]
    (found,) = mismatches(split_source(change))
    assert found.severity == "warning"
    assert measure in [d["measure"] for d in found.evidence["differences"]]
    assert "validation" in found.message
    assert found.action
    assert found.evidence["images"] == [100, 60]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda x: encoded(x[:, :, ::-1].copy()), "RGB and BGR"),
        (lambda x: encoded(255 - x), "inverted"),
    ],
)
def test_one_mistake_that_explains_it_is_named(change: Callable[[np.ndarray], bytes], cause: str) -> None:
    (found,) = mismatches(split_source(change))
    assert cause in found.evidence["explained_by"]
    assert cause in found.message


def test_honest_splits_do_not_alarm() -> None:
    assert mismatches(split_source(encoded)) == []


def test_small_honest_splits_do_not_alarm() -> None:
    for start in range(0, 80, 10):
        items = [encoded(tinted(p)) for p in PICTURES[start : start + 60]]
        assert mismatches(listed(items, splits=["train"] * 40 + ["validation"] * 20)) == []


def test_other_shares_of_bright_and_dark_classes_do_not_alarm() -> None:
    pixels = [p // 2 if i % 2 else p for i, p in enumerate(PICTURES)]
    rare = [i for i in range(100) if i % 2 or i % 10 == 0]  # training holds five dark pictures for each bright one
    chosen = [*rare, *(i for i in range(100, 160) if not i % 2 or i % 10 == 1)]
    splits = ["train"] * len(rare) + ["validation"] * (len(chosen) - len(rare))
    source = listed([encoded(pixels[i]) for i in chosen], labels=["ab"[i % 2] for i in chosen], splits=splits)
    assert mismatches(source) == []


def test_classes_without_a_common_name_are_compared_by_their_files_alone() -> None:
    dark = [encoded((p * 0.4).astype(np.uint8)) for p in PICTURES[100:]]
    labels = ["ab"[i % 2] for i in range(100)] + ["cd"[i % 2] for i in range(60)]
    plain = [encoded(p) for p in PICTURES[:100]]
    splits = ["train"] * 100 + ["validation"] * 60
    assert mismatches(listed(plain + dark, labels=labels, splits=splits)) == []
    small = [resized(24, 20)(p) for p in PICTURES[100:]]
    assert mismatches(listed(plain + small, labels=labels, splits=splits)) != []


def test_a_sealed_test_split_is_judged_by_its_files_and_an_opened_one_by_its_pixels() -> None:
    swapped = split_source(PLANTED["blue and red swapped"][0], split="test")
    assert mismatches(swapped) == []
    (found,) = mismatches(swapped, open_test=True)
    assert found.evidence["split"] == "test"
    (found,) = mismatches(split_source(resized(24, 20), split="test"))
    assert "short side" in found.message


def test_splits_that_wellfit_makes_itself_are_not_compared() -> None:
    source = split_source(PLANTED["inverted"][0])
    source.splits = [""] * len(source.splits)
    assert mismatches(source) == []


def test_a_picture_that_cannot_be_decoded_does_not_end_the_comparison() -> None:
    source = split_source(PLANTED["darker"][0], split="test")
    items = source.reader.items  # type: ignore[attr-defined]
    items[-1] = items[-1][: len(items[-1]) // 2]
    assert len(mismatches(source, open_test=True)) == 1


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_coarseness_of_a_jpeg_is_that_of_its_table(quality: int) -> None:
    buffer = io.BytesIO()
    picture = Image.fromarray(PICTURES[0])
    picture.save(buffer, "JPEG", quality=quality)
    table = Image.open(io.BytesIO(buffer.getvalue())).quantization[0]  # type: ignore[attr-defined]
    assert jpeg_coarseness(buffer.getvalue()) == pytest.approx(np.log(np.mean(table)))
    assert jpeg_coarseness(buffer.getvalue()[:3]) == 0.0


def test_real_photographs_as_they_are_and_with_their_channels_swapped(real_data: Path) -> None:
    items: dict[str, list[bytes]] = {"train": [], "val": []}
    labels: dict[str, list[str]] = {"train": [], "val": []}
    swapped = []
    with tarfile.open(real_data / "ants-bees.tar") as archive:
        for member in archive:
            place = Path(member.name).parts
            if not member.name.endswith(".jpg") or labels[place[-3]].count(place[-2]) >= 40:
                continue
            data = archive.extractfile(member).read()  # type: ignore[union-attr]
            items[place[-3]].append(data)
            labels[place[-3]].append(place[-2])
            if place[-3] == "val":
                with Image.open(io.BytesIO(data)) as image:
                    swapped.append(encoded(np.asarray(image.convert("RGB"))[:, :, ::-1].copy(), "JPEG", quality=92))
    splits = ["train"] * len(items["train"]) + ["validation"] * len(items["val"])
    named = [*labels["train"], *labels["val"]]
    assert mismatches(listed([*items["train"], *items["val"]], labels=named, splits=splits)) == []
    (found,) = mismatches(listed([*items["train"], *swapped], labels=named, splits=splits))
    assert "RGB and BGR" in found.message

"""Sources made in memory, and pictures that differ as photographs do."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wellfit.data.headers import Undecodable
from wellfit.data.inspect import Inspection, inspect
from wellfit.data.sources import Source
from wellfit.data.store import PixelStore, build_store


@dataclass
class ListReader:
    """Gives the items of a list, and notes which were asked for. An item that is an exception is raised."""

    items: list[Any]
    read_rows: list[int] = field(default_factory=list)

    def read(self, index: int) -> bytes | np.ndarray:
        self.read_rows.append(index)
        if isinstance(self.items[index], Exception):
            raise self.items[index]
        return self.items[index]

    def stamp(self, index: int) -> tuple[int, int]:
        if isinstance(self.items[index], Exception):
            raise self.items[index]
        return len(self.items[index]), 1


def listed(
    items: Sequence[Any],
    labels: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Source:
    """A source over a list of encoded files or arrays; classes "a" and "b" in turn unless given."""
    count = len(items)
    return Source(
        location="made up",
        kind="memory",
        names=list(names or [f"{i}.png" for i in range(count)]),
        labels=list(labels or ["ab"[i % 2] for i in range(count)]),
        splits=list(splits or [""] * count),
        groups=None if groups is None else list(groups),
        reader=ListReader(list(items)),
    )


def encoded(pixels: np.ndarray, format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_, **options)
    return buffer.getvalue()


def noise(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    """Random pixels: another picture for each seed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A picture with structure at every scale and faint colours, as photographs have."""
    draw = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (2, 4, 8, 16, 32):
        coarse = draw.normal(size=(cells, cells, 1)) + 0.3 * draw.normal(size=(cells, cells, 3))
        for channel in range(3):
            layer = Image.fromarray(coarse[:, :, channel].astype(np.float32)).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            total[:, :, channel] += np.asarray(layer) * (60 / cells**0.6)
    return np.clip(total + draw.uniform(90, 160), 0, 255).astype(np.uint8)


def open_rows(source: Source, inspection: Inspection) -> np.ndarray:
    """The usable images outside the test split."""
    is_open = np.array([split != "test" for split in source.splits], dtype=bool)
    return np.flatnonzero(is_open & inspection.usable)


@pytest.fixture
def look() -> Callable[..., tuple[Inspection, PixelStore]]:
    """Inspect a source and store the images outside its test split."""

    def both(source: Source, short_side: int = 320) -> tuple[Inspection, PixelStore]:
        inspection = inspect(source)
        return inspection, build_store(source, inspection, open_rows(source, inspection), short_side=short_side)

    return both


@pytest.fixture
def gone() -> Undecodable:
    return Undecodable("cannot be read (No such file or directory)")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("WELLFIT_CACHE", str(folder))
    for name in ("WELLFIT_MAX_UNPACKED", "WELLFIT_CACHE_LIMIT"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; skips where there is none."""
    given = os.environ.get("WELLFIT_TEST_DATA")
    if not given or not (Path(given) / "data").is_dir():
        pytest.skip("needs real data: set WELLFIT_TEST_DATA to a folder with data/ants-bees.tar in it")
    return Path(given) / "data"

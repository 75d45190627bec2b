"""Small data sets on disk."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def png(seed: int, size: int = 8) -> bytes:
    """A small random picture, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """tree("a/1.png", "b/2.png", top="photos") writes these files with a picture in each and returns the folder."""

    def write(*files: str, top: str = "photos") -> Path:
        root = tmp_path / top
        root.mkdir(parents=True, exist_ok=True)
        for seed, file in enumerate(files):
            path = root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(seed))
        return root

    return write


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("WELLFIT_CACHE", str(folder))
    monkeypatch.delenv("WELLFIT_MAX_UNPACKED", raising=False)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; skips where there is none."""
    given = os.environ.get("WELLFIT_TEST_DATA")
    if not given or not (Path(given) / "data").is_dir():
        pytest.skip("needs real data: set WELLFIT_TEST_DATA to a folder with data/ants-bees.tar in it")
    return Path(given) / "data"


def counts(labels: Iterable[str]) -> dict[str, int]:
    """How often each label occurs."""
    found: dict[str, int] = {}
    for label in labels:
        found[label] = found.get(label, 0) + 1
    return found

"""Small data sets on disk."""

from __future__ import annotations

import io
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


def counts(labels: Iterable[str]) -> dict[str, int]:
    """How often each label occurs."""
    found: dict[str, int] = {}
    for label in labels:
        found[label] = found.get(label, 0) + 1
    return found

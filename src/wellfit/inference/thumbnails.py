"""Small pictures for the report: re-encoded from pixels, so that no EXIF, place or author travels with them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from wellfit.record import write_atomically

SIDE = 96


def save_thumbnail(image: np.ndarray, path: Path) -> None:
    """Write an H×W×3 uint8 image as a JPEG of at most 96 pixels a side; small images are enlarged in whole steps."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    longest = max(picture.size)
    if longest > SIDE:
        picture.thumbnail((SIDE, SIDE))
    elif longest * 2 <= SIDE:
        factor = SIDE // longest
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    write_atomically(path, content.getvalue())

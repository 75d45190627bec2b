from __future__ import annotations

import base64
import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wellfit.randomness import generator
from wellfit.report.thumbnails import Thumbnails


def picture(path: Path, side: int, kind: str) -> bytes:
    pixels = generator(0, "thumbnail").integers(0, 256, (side, side, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, kind)
    return path.read_bytes()


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.split(",", 1)[1])


@pytest.mark.parametrize(("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_small_pictures_are_taken_as_they_are(tmp_path: Path, kind: str, mime: str) -> None:
    data = picture(tmp_path / "a", 32, kind)
    uri = Thumbnails(tmp_path).uri("a")
    assert uri is not None
    assert uri.startswith(f"data:{mime};base64,")
    assert decoded(uri) == data


def test_large_and_foreign_pictures_are_made_small(tmp_path: Path) -> None:
    picture(tmp_path / "large.png", 700, "PNG")
    picture(tmp_path / "b.webp", 300, "WEBP")
    for file in ("large.png", "b.webp"):
        uri = Thumbnails(tmp_path).uri(file)
        assert uri is not None
        with Image.open(io.BytesIO(decoded(uri))) as image:
            assert image.format == "JPEG"
            assert max(image.size) <= 128


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    picture(tmp_path / "secret.png", 16, "PNG")
    picture(tmp_path / "arrays" / "a.png", 16, "PNG")
    with contextlib.suppress(OSError):  # not every system lets everyone make links
        (tmp_path / "arrays" / "link.png").symlink_to(tmp_path / "secret.png")
    thumbnails = Thumbnails(tmp_path / "arrays")
    assert thumbnails.uri("a.png") is not None
    for file in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "", None, 7, "a\x00b", "nothing.png", "."):
        assert thumbnails.uri(file) is None


def test_broken_pictures_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("<svg onload=alert(1)>", encoding="utf-8")
    large = picture(tmp_path / "c.png", 200, "PNG")
    (tmp_path / "c.png").write_bytes(large[: len(large) // 2])
    thumbnails = Thumbnails(tmp_path)
    assert thumbnails.uri("text.png") is None
    assert thumbnails.uri("c.png") is None


def test_the_limit_holds_for_all_pictures_together(tmp_path: Path) -> None:
    for i in range(20):
        picture(tmp_path / f"{i}.png", 32, "PNG")
    thumbnails = Thumbnails(tmp_path, limit=20_000)
    uris = [uri for i in range(20) if (uri := thumbnails.uri(f"{i}.png"))]
    assert 1 < len(uris) < 20
    assert sum(map(len, uris)) < 21_000
    # What was handed out already costs nothing the second time.
    assert thumbnails.uri("0.png") == uris[0]

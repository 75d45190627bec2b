"""Headers: every format's size, and a reason for what is no image."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from wellfit.data.headers import Undecodable, jpeg_layout, sniff


def encoded(name: str, size: tuple[int, int] = (37, 21), mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, name, **options)
    return buffer.getvalue()


FORMATS = {
    "JPEG": [
        {},
        {"progressive": True},
        {"mode": "L"},
        {"mode": "CMYK"},
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"},
    ],
    "PNG": [{}, {"mode": "P"}, {"mode": "RGBA"}, {"mode": "1"}],
    "WEBP": [{}, {"lossless": True}, {"mode": "RGBA"}, {"quality": 10}],
    "GIF": [{"mode": "P"}],
    "BMP": [{}, {"mode": "1"}],
    "TIFF": [{}, {"mode": "F"}, {"compression": "tiff_lzw"}],
    "PPM": [{}, {"mode": "L"}],
}


@pytest.mark.parametrize(("name", "options"), [(n, o) for n, many in FORMATS.items() for o in many])
def test_format_and_size(name: str, options: dict) -> None:
    assert sniff(encoded(name, **options)) == (name, 37, 21)


@pytest.mark.parametrize(("name", "length"), [("JPEG", 20), ("PNG", 22), ("WEBP", 28), ("GIF", 9), ("BMP", 20)])
def test_a_header_cut_short_is_truncated(name: str, length: int) -> None:
    with pytest.raises(Undecodable, match=r"^truncated$"):
        sniff(encoded(name)[:length])


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
def test_every_prefix_of_a_file_gives_a_header_or_a_reason() -> None:
    for name in FORMATS:
        data = encoded(name, size=(9, 5))
        for length in range(min(len(data), 700)):
            assert sniffed(data[:length]) in (name, "truncated", "not an image", "empty file") or name in (
                "TIFF",
                "PPM",
            )


def sniffed(data: bytes) -> str:
    """The format, or the reason why not; anything but Undecodable is let through and fails the test."""
    try:
        return sniff(data).format
    except Undecodable as error:
        return error.reason


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
def test_random_bytes_after_a_signature_never_raise_anything_else() -> None:
    rng = np.random.default_rng(1)
    starts = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF1234WEBPVP8 ", b"BM", b"II*\0", b"P6 ", b"P3\n"]
    for i in range(400):
        data = starts[i % len(starts)] + rng.bytes(int(rng.integers(0, 300)))
        try:
            header = sniff(data)
        except Undecodable:
            continue
        assert header.width > 0
        assert header.height > 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
            "Git LFS pointer; run `git lfs pull`",
        ),
        (b"<!DOCTYPE html><html>not found</html>", "not an image"),
        (b"BMW is a maker of cars", "not an image"),
        (b"P6 or not P6", "PPM that cannot be read"),
        (bytes(5000), "not an image (only zero bytes)"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC is not supported; convert it to JPEG or PNG"),
        (b"\xff\xd8\xff\xd9", "JPEG without a frame header"),
    ],
)
def test_what_is_no_image_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Undecodable) as caught:
        sniff(data)
    assert caught.value.reason.startswith(reason)


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def test_a_bomb_is_refused_by_its_header_and_its_size_is_said() -> None:
    with pytest.raises(Undecodable, match=r"60000×60000 pixels, above the limit of 300 megapixels"):
        sniff(png_header(60_000, 60_000))
    assert sniff(png_header(20_000, 15_000)) == ("PNG", 20_000, 15_000)  # exactly at the limit
    with pytest.raises(Undecodable):
        sniff(png_header(20_000, 15_001))


def test_jpeg_layout_sees_components_and_app1() -> None:
    assert jpeg_layout(encoded("JPEG")) == (37, 21, 3, False)
    assert jpeg_layout(encoded("JPEG", mode="L")).components == 1
    assert jpeg_layout(encoded("JPEG", mode="CMYK")).components == 4
    assert jpeg_layout(encoded("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")).app1

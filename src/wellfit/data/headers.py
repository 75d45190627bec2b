"""What an encoded image says of itself in its first bytes: format and size, with no pixel decoded.

Written by hand because every file of a data set passes here: some 3 µs for a JPEG where Pillow's `open` takes 27,
and a file that claims 60,000 × 60,000 pixels is turned down before anything is allocated for it.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import NamedTuple

PIXEL_LIMIT = 300_000_000
"""Images above 300 megapixels are left out: decoded they would take 0.9 GB each."""

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset([0x01, *range(0xD0, 0xD9)])
_HEIF_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"heif": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"avif": "AVIF"}


class Undecodable(Exception):
    """These bytes give no image; `reason` is a short phrase for people, e.g. "truncated"."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Header(NamedTuple):
    """format: JPEG, PNG, WEBP, GIF, BMP, TIFF or PPM; width, height: pixels as stored, before any EXIF turn."""

    format: str
    width: int
    height: int


class JpegLayout(NamedTuple):
    """width, height: pixels; components: 1 grey, 3 colour, 4 CMYK; app1: EXIF or XMP is there (it may rotate)."""

    width: int
    height: int
    components: int
    app1: bool


def sniff(data: bytes) -> Header:
    """Format and size from the header alone, whatever the file is called.

    Raises Undecodable for an empty file, a Git LFS pointer, something that is no image, a header cut short,
    and an image of more than PIXEL_LIMIT pixels. That the pixels are whole is not looked at.
    """
    try:
        header = _read(data)
    except (struct.error, IndexError):
        raise Undecodable("truncated") from None
    if header.width <= 0 or header.height <= 0:
        raise Undecodable(f"{header.format} header without a size")
    if header.width * header.height > PIXEL_LIMIT:
        raise Undecodable(too_large(header.width, header.height))
    return header


def too_large(width: int, height: int) -> str:
    """The reason given for an image above PIXEL_LIMIT."""
    return f"{width}×{height} pixels, above the limit of {PIXEL_LIMIT // 1_000_000} megapixels"


def jpeg_layout(data: bytes) -> JpegLayout:
    """Walk the segments of a JPEG up to its frame header (ITU T.81, annex B). struct.error where it ends too early."""
    at, app1 = 2, False
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            raise struct.error
        marker = data[at + 1]
        if marker in (0xFF, 0x00) or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
        elif marker in _START_OF_FRAME:
            height, width, components = struct.unpack_from(">HHB", data, at + 5)
            return JpegLayout(width, height, components, app1)
        elif marker in (0xD9, 0xDA):
            raise Undecodable("JPEG without a frame header")
        else:
            app1 = app1 or marker == 0xE1
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _read(data: bytes) -> Header:
    if data.startswith(b"\xff\xd8\xff"):
        layout = jpeg_layout(data)
        return Header("JPEG", layout.width, layout.height)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return Header("PNG", *struct.unpack_from(">II", data, 16))
    if data.startswith((b"GIF87a", b"GIF89a")):
        return Header("GIF", *struct.unpack_from("<HH", data, 6))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return Header("WEBP", *_webp_size(data))
    if data.startswith(b"BM") and data[14:18] in _BMP_HEADERS:
        width, height = struct.unpack_from("<HH" if data[14] == 12 else "<ii", data, 18)
        return Header("BMP", width, abs(height))  # a negative height means rows from the top
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _by_pillow(data, "TIFF")
    if data[:1] == b"P" and data[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6") and data[2:3].isspace():
        return _by_pillow(data, "PPM")
    raise Undecodable(_why_not(data))


_BMP_HEADERS = frozenset(struct.pack("<I", size) for size in (12, 16, 40, 52, 56, 64, 108, 124))


def _webp_size(data: bytes) -> tuple[int, int]:
    # WebP container specification (RFC 9649): extended, lossless and lossy bitstreams.
    kind = data[12:16]
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        return (high_w << 16 | low_w) + 1, (high_h << 16 | low_h) + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _by_pillow(data: bytes, name: str) -> Header:
    from PIL import PpmImagePlugin, TiffImagePlugin

    plugin = TiffImagePlugin.TiffImageFile if name == "TIFF" else PpmImagePlugin.PpmImageFile
    try:
        with plugin(BytesIO(data)) as image:
            return Header(name, *image.size)
    except Exception as error:  # Pillow's plugins raise a dozen types on odd headers
        raise Undecodable(f"{name} that cannot be read ({str(error) or 'cut short'})") from None


def _why_not(data: bytes) -> str:
    if not data:
        return "empty file"
    if data.startswith(_LFS_POINTER):
        return "Git LFS pointer; run `git lfs pull`"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return f"{_HEIF_BRANDS[data[8:12]]} is not supported; convert it to JPEG or PNG"
    if not any(data[:4096]):
        return "not an image (only zero bytes)"
    return "not an image"

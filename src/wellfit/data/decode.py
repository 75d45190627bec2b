"""Encoded image → H×W×3 uint8 RGB, the way a viewer shows it.

- EXIF orientation is applied; embedded colour profiles are not.
- Transparent parts are laid on white, as web pages and documents show them.
- 16-bit greyscale is scaled by its full range (65535 → 255). Floating-point greyscale is taken as 0-1, 0-255 or
  0-65535, whichever is the narrowest range that holds it; anything else has no known scale and is undecodable.
- GIF, WEBP, TIFF: the first frame or page.

Shrinking is antialiased (bicubic over the source pixels, `data.resize`). As long as twice the wanted size
remains, a JPEG is first decoded at 1/2, 1/4 or 1/8 of its size (half the time for photos, 45 dB from the slow way on
average); anything else is averaged over blocks of pixels, strip by strip, so that a large image needs little memory
beside what Pillow decodes it into.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from wellfit.data.headers import PIXEL_LIMIT, Header, Undecodable, jpeg_layout, sniff, too_large
from wellfit.data.resize import resized

if TYPE_CHECKING:
    from PIL import Image as PillowImage

try:  # a few times faster on small JPEGs, the same libjpeg-turbo, the same pixels (tested); Pillow does without it
    from simplejpeg import decode_jpeg as _fast_jpeg
except ImportError:
    _fast_jpeg = None

__all__ = ["PIXEL_LIMIT", "Header", "Undecodable", "decode", "from_pillow", "sniff"]

_ORIENTATION = 0x0112
_RESERVE = 2.0
_STRIP = 1 << 18  # pixels that are turned into RGB at a time
_pillow_limit_lock = threading.Lock()


def decode(data: bytes | np.ndarray, short_side: int | None = None) -> np.ndarray:
    """Pixels of one image, H×W×3 uint8 RGB, writable.

    data: an encoded file, or pixels H×W, H×W×1 or H×W×3 as uint8.
    short_side: the shorter side is reduced to this many pixels, aspect kept; never enlarged.
    Raises Undecodable with a short reason; safe to call from many threads.
    """
    if isinstance(data, np.ndarray):
        return _from_pixels(data, short_side)
    header = sniff(data)
    try:
        if header.format == "JPEG":
            layout = jpeg_layout(data)
            if _fast_jpeg is not None and not layout.app1 and layout.components in (1, 3):
                pixels = _small_jpeg(data, header, short_side)
                if pixels is not None:
                    return pixels
        return _by_pillow(data, header, short_side)
    except Undecodable:
        raise
    except MemoryError:
        raise Undecodable(f"{header.width}×{header.height} pixels do not fit into memory") from None
    except Exception as error:  # a codec may raise anything on odd bytes; a bad file must never end a run
        raise Undecodable(_reason(header, error)) from None


def from_pillow(image: PillowImage.Image) -> np.ndarray:
    """Pixels of a Pillow image, H×W×3 uint8 RGB, by the same rules as a file's. Raises Undecodable."""
    try:
        image.load()
        return _turn(_pixels(image, 1), _orientation(image))
    except Undecodable:
        raise
    except Exception as error:  # the file behind a lazily opened image may be damaged
        raise Undecodable(f"the image cannot be decoded ({error})") from None


def _from_pixels(pixels: np.ndarray, short_side: int | None) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        raise Undecodable(f"pixels of shape {pixels.shape} and type {pixels.dtype}; H×W, H×W×1 or H×W×3 uint8 needed")
    height, width = pixels.shape[:2]
    if not height or not width:
        raise Undecodable("no pixels")
    if height * width > PIXEL_LIMIT:
        raise Undecodable(too_large(width, height))
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    target = _target(width, height, short_side)
    block = _block(width, height, target)
    if block > 1:
        from PIL import Image

        pixels = _averaged(lambda top, bottom: Image.fromarray(pixels[top:bottom]), width, height, block)
    elif pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return _shrink(pixels, target)


def _target(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    short = min(width, height)
    if short_side is None or short <= short_side:
        return width, height
    scale = short_side / short
    return max(short_side, round(width * scale)), max(short_side, round(height * scale))


def _jpeg_factor(width: int, height: int, target: tuple[int, int]) -> int:
    """How far libjpeg itself may reduce: 1, 2, 4 or 8, leaving at least _RESERVE times the target."""
    room = _block(width, height, target)
    return next((factor for factor in (8, 4, 2) if room >= factor), 1)


def _block(width: int, height: int, target: tuple[int, int]) -> int:
    """The side of the largest blocks of pixels, each averaged, that leave at least _RESERVE times the target."""
    return max(1, int(min(width / target[0], height / target[1]) / _RESERVE))


def _small_jpeg(data: bytes, header: Header, short_side: int | None) -> np.ndarray | None:
    width, height = header.width, header.height
    target = _target(width, height, short_side)
    factor = _jpeg_factor(width, height, target)
    try:
        assert _fast_jpeg is not None
        pixels = _fast_jpeg(data, "RGB", min_height=-(-height // factor), min_width=-(-width // factor))
    except ValueError:  # odd or damaged: Pillow has the last word
        return None
    return _shrink(pixels, target)


def _shrink(pixels: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    if (pixels.shape[1], pixels.shape[0]) == target:
        return pixels if pixels.flags.writeable and pixels.flags.c_contiguous else pixels.copy()
    return resized(pixels, target[1], target[0], "bicubic")


def _pixels(image: PillowImage.Image, block: int) -> np.ndarray:
    """H×W×3 of a loaded image in any mode, averaged over blocks of that side; ⌈H/block⌉×⌈W/block⌉ remain."""
    if image.mode.startswith(("I", "F")):  # the scale follows from all values
        image = _eight_bit(image)
    width, height = image.size
    return _averaged(lambda top, bottom: _eight_bit(image.crop((0, top, width, bottom))), width, height, block)


def _averaged(strip: Callable[[int, int], PillowImage.Image], width: int, height: int, block: int) -> np.ndarray:
    """Means over blocks, strip by strip, of an image whose rows from top to bottom are `strip(top, bottom)`, L or RGB.

    A whole image in RGB takes four bytes a pixel, and as much again for every step on the way to an array.
    """
    out = np.empty((-(-height // block), -(-width // block), 3), np.uint8)
    rows = block * max(1, _STRIP // (block * width))
    for top in range(0, height, rows):
        part = strip(top, min(height, top + rows))
        values = np.asarray(part.reduce(block) if block > 1 else part)
        out[top // block : top // block + len(values)] = values if values.ndim == 3 else values[:, :, None]
    return out


def _by_pillow(data: bytes, header: Header, short_side: int | None) -> np.ndarray:
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    guard = _without_pillow_limit() if limit and header.width * header.height > limit else nullcontext()
    with guard, _open(data, header.format) as image:
        target, block = _target(*image.size, short_side), 1
        if header.format == "JPEG":
            factor = _jpeg_factor(*image.size, target)
            if factor > 1:
                image.draft(None, (image.width // factor, image.height // factor))
        image.load()
        if header.format != "JPEG":
            target = _target(*image.size, short_side)  # a TIFF turns itself while it loads
            block = _block(*image.size, target)
        return _turn(_shrink(_pixels(image, block), target), _orientation(image))


def _open(data: bytes, name: str) -> PillowImage.Image:
    # The plugin's class, not Image.open: no search over formats, and none of Pillow's size warnings.
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    plugins: dict[str, Callable[[BytesIO], PillowImage.Image]] = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "PPM": PpmImagePlugin.PpmImageFile,
    }
    return plugins[name](BytesIO(data))


@contextmanager
def _without_pillow_limit() -> Iterator[None]:
    # Some plugins hold images against Pillow's own, lower limit; `sniff` has already held them against ours.
    from PIL import Image

    with _pillow_limit_lock:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _orientation(image: PillowImage.Image) -> int:
    if not {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"} & image.info.keys():
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the eight EXIF orientations (Exif 2.32, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _eight_bit(image: PillowImage.Image) -> PillowImage.Image:
    """The same picture in mode L or RGB."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scaled(np.asarray(image), image.mode))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _scaled(values: np.ndarray, mode: str) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Undecodable("pixel values that are not finite")
    if low < 0 or high > 65535:
        raise Undecodable(f"pixel values from {low:g} to {high:g} have no known scale")
    if mode == "F" and high <= 1:
        factor = 255.0
    elif mode == "F" and high <= 255:
        factor = 1.0
    else:
        factor = 1 / 257
    return (values.astype(np.float32) * np.float32(factor) + np.float32(0.5)).astype(np.uint8)


def _reason(header: Header, error: Exception) -> str:
    text = str(error)
    if isinstance(error, EOFError) or any(
        word in text.lower() for word in ("truncated", "unexpected end", "too short")
    ):
        return "truncated"
    return f"{header.format} that cannot be decoded" + (f" ({text})" if text else "")

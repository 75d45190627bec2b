"""Small pictures of a run folder's arrays/ as data URIs, within a limit for the whole page."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

_SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"))
_AS_IT_IS = 12_000  # bytes up to which a picture is taken as stored; larger ones are made smaller
_LARGEST_FILE = 20_000_000
_SIDE = 128


class Thumbnails:
    """Hands out data URIs until `limit` bytes of pictures are used up; None after that, and for unusable files."""

    def __init__(self, arrays: Path, limit: int = 2_000_000) -> None:
        self._arrays = arrays
        self._left = limit
        self._known: dict[str, str | None] = {}

    def uri(self, file: object) -> str | None:
        """The picture `file` of arrays/ as a data URI. A name that leads out of arrays/ is not followed."""
        if not isinstance(file, str) or not file:
            return None
        if file not in self._known:
            self._known[file] = self._encode(file)
        return self._known[file]

    def _encode(self, file: str) -> str | None:
        try:
            folder, path = self._arrays.resolve(), (self._arrays / file).resolve()
            if not path.is_relative_to(folder) or not path.is_file() or path.stat().st_size > _LARGEST_FILE:
                return None
            data = path.read_bytes()
        except (OSError, ValueError):
            return None
        kind = next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)
        if kind is None or len(data) > _AS_IT_IS:
            shrunk = shrink(data)
            if shrunk is None:
                return None
            data, kind = shrunk, "jpeg"
        encoded = base64.b64encode(data).decode("ascii")
        if len(encoded) > self._left:
            return None
        self._left -= len(encoded)
        return f"data:image/{kind};base64,{encoded}"


def shrink(data: bytes) -> bytes | None:
    """A picture as a JPEG of at most 128 pixels a side, of its pixels alone: no EXIF, comment or profile goes with it.

    None for what is no picture, and for one that claims to be far too large.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.draft("RGB", (_SIDE, _SIDE))
                small = image.convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            small.info = {}
            out = io.BytesIO()
            small.save(out, "JPEG", quality=82)
            return out.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None

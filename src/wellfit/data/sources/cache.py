"""Where wellfit keeps what it can make again, and the limits on what an archive may unpack to."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from wellfit.errors import UserError

UNPACKED_LIMIT = 64 * 1000**3
"""Bytes that one archive may unpack to; WELLFIT_MAX_UNPACKED overrides it ("200GB", "500MB", or bytes)."""

RATIO_LIMIT = 200
"""An archive that unpacks to more than this many times its size is taken for a bomb …"""

RATIO_FLOOR = 100 * 1000**2
"""… unless it stays below this many bytes."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)


def cache_folder() -> Path:
    """$WELLFIT_CACHE, or the user's cache folder of this system."""
    if given := os.environ.get("WELLFIT_CACHE"):
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("wellfit"))


def limit_from(variable: str, default: int) -> int:
    """Bytes that an environment variable names ("200GB", "500MB", or bytes), or the default. UserError for others."""
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    match = _SIZE.fullmatch(text)
    limit = float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ") if match else 0.0
    if not 1 <= limit < math.inf:
        raise UserError(f"{variable} is a size such as 50GB or 500MB, got '{text}'; correct or unset it")
    return int(limit)


def unpacked_limit() -> int:
    """The limit in bytes, after WELLFIT_MAX_UNPACKED."""
    return limit_from("WELLFIT_MAX_UNPACKED", UNPACKED_LIMIT)


def check_unpacked(size: int, packed: int, location: str) -> None:
    """UserError when `size` bytes out of `packed` are above the limit or look like a decompression bomb."""
    limit = unpacked_limit()
    if size > limit:
        raise UserError(
            f"'{location}' unpacks to more than {limit / 1e9:g} GB, the declared limit; "
            "unpack it yourself, or raise the limit with WELLFIT_MAX_UNPACKED=200GB"
        )
    if size > RATIO_FLOOR and size > RATIO_LIMIT * packed:
        raise UserError(
            f"'{location}' unpacks to more than {RATIO_LIMIT} times its size, as decompression bombs do; "
            "if you trust it, unpack it yourself and give the folder"
        )

"""Counts and bytes for people."""

from __future__ import annotations

FLOAT32 = 4  # bytes of one number


def in_bytes(count: float) -> str:
    """In powers of 1000, to two digits or three.

    >>> in_bytes(60_950_432), in_bytes(4_198_284), in_bytes(36)
    ('61 MB', '4.2 MB', '36 bytes')
    """
    if count < 999.5:
        return f"{count:.0f} bytes"
    size, unit = next(
        ((size, unit) for size, unit in ((10**3, "kB"), (10**6, "MB")) if count < 999.5 * size), (10**9, "GB")
    )
    value = count / size
    return f"{value:.{1 if value < 9.95 else 0}f} {unit}"


def in_units(count: int) -> str:
    """To three digits.

    >>> in_units(138_357_544), in_units(3_628_146_688), in_units(833)
    ('138 M', '3.63 G', '833')
    """
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= 0.9995 * size:
            value = count / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return str(count)

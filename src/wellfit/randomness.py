"""Every random draw comes from a generator keyed by (seed, purpose, …), never by worker or rank.

Two draws with different keys are independent; the same key gives the same numbers in any process,
so that a killed run can be resumed to the same bytes.
"""

from __future__ import annotations

import hashlib

import numpy as np


def key_to_integer(seed: int, purpose: str, *key: int | str) -> int:
    """A 63-bit integer from the key, stable across processes, platforms and versions."""
    text = "\x1f".join([str(int(seed)), purpose, *map(str, key)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *key: int | str) -> np.random.Generator:
    """A numpy generator for one purpose, e.g. `generator(seed, "flip", epoch)`."""
    return np.random.Generator(np.random.Philox(key_to_integer(seed, purpose, *key)))

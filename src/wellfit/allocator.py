"""What the process does with freed memory.

A training step frees hundreds of megabytes of activations and asks for as many again. glibc hands large blocks back
to the system at once, and every page of the next step is mapped and cleared anew: a tenth of a step's time and more.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

# Of malloc.h: how many blocks may be mapped one by one, where all others come from the heap; and a heap is handed back
# where more than the second is free.
_MOST_MAPPED, _TRIM_THRESHOLD = -4, -1
LARGEST = 2**31 - 1  # the largest C int
SWITCH = "WELLFIT_KEEP_FREED_MEMORY"  # "0": no


@cache
def keep_freed_memory() -> bool:
    """Let the process keep the memory it frees for its next step; whether that could be had.

    It can on Linux with glibc, where neither WELLFIT_KEEP_FREED_MEMORY=0 nor the user's own settings of glibc
    (MALLOC_… variables, glibc.malloc… in GLIBC_TUNABLES) say otherwise and no other allocator is preloaded. Elsewhere
    the allocator is left as it is. It holds for the whole process, to its end: blocks that are freed stay with it.
    """
    own = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    other = "malloc" in os.environ.get("LD_PRELOAD", "")
    if sys.platform != "linux" or own or other or os.environ.get(SWITCH) == "0":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(_MOST_MAPPED, 0) == 1 and library.mallopt(_TRIM_THRESHOLD, LARGEST) == 1)


def freed_memory_is_kept() -> bool:
    """Whether this process was told to keep it, and does."""
    return keep_freed_memory.cache_info().currsize > 0 and keep_freed_memory()

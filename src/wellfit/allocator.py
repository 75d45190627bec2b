"""What the process does with freed memory.

A training step frees hundreds of megabytes of activations and asks for as many again. glibc hands large blocks back
to the system at once, and every page of the next step is mapped and cleared anew: a tenth of a step's time and more.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

# Of malloc.h: blocks below the first come from the heap; a heap is handed back where more than the second is free.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
LARGEST = 2**31 - 1  # the largest C int
EARLIER = 32 * 2**20  # the largest threshold that earlier versions of glibc take


@cache
def keep_freed_memory() -> bool:
    """Let the process keep the memory it frees for its next step; whether that could be had.

    It can on Linux with glibc, where the user's own MALLOC_… variables do not say otherwise and no other allocator is
    preloaded. Elsewhere the allocator is left as it is. The switch holds for the whole process, to its end: large
    blocks that are freed stay with it.
    """
    others = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("LD_PRELOAD", "")
    if sys.platform != "linux" or others:
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    kept = library.mallopt(_MMAP_THRESHOLD, LARGEST) == 1 or library.mallopt(_MMAP_THRESHOLD, EARLIER) == 1
    return bool(kept and library.mallopt(_TRIM_THRESHOLD, LARGEST) == 1)


def freed_memory_is_kept() -> bool:
    """Whether this process was told to keep it, and does."""
    return keep_freed_memory.cache_info().currsize > 0 and keep_freed_memory()

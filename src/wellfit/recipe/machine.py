"""The machine that a run was made on, as its record keeps it."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from wellfit.allocator import freed_memory_is_kept
from wellfit.cores import usable_cores


def machine() -> dict[str, Any]:
    """What a reader needs to judge the speeds: processor, cores, system, Python, what becomes of freed memory."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "freed_memory": "kept" if freed_memory_is_kept() else "left to the system's allocator",
    }


def _processor() -> str:
    try:  # platform.processor() is empty on most Linux systems
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

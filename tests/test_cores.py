"""How many cores a process may use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from wellfit.cores import usable_cores

BOUND = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from wellfit.cores import usable_cores
print(usable_cores())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to cores")
def test_a_process_bound_to_one_core_has_one() -> None:
    assert subprocess.run([sys.executable, "-c", BOUND], capture_output=True, text=True, check=True).stdout == "1\n"


def test_where_python_cannot_tell_they_are_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 48)
    assert usable_cores() == 48
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1

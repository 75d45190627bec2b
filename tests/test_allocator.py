"""What the process does with freed memory: read off its page faults, in processes of their own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from wellfit.allocator import freed_memory_is_kept, keep_freed_memory

SETTINGS = ("MALLOC_", "GLIBC_TUNABLES", "WELLFIT_KEEP_FREED_MEMORY")
FAULTS = """
import resource, torch
from wellfit.allocator import keep_freed_memory
from wellfit.engine import Engine

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        held = [torch.ones(10_000_000) for _ in range(3)]
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
Engine(threads=1).activate()
faults()
print(before, faults(), keep_freed_memory())
"""


def counted(**environment: str) -> tuple[int, int, str]:
    """Page faults of the same work before and after an engine was activated, and whether memory is kept."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=plain | environment, capture_output=True, text=True, check=True
    )
    before, after, kept = done.stdout.split()
    return int(before), int(after), kept


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc, and has no switch for it")
def test_freed_memory_is_not_mapped_anew() -> None:
    """Twelve blocks of 40 MB, which glibc maps anew each time: 10,000 pages each, or 20 where pages are large."""
    before, after, kept = counted()
    assert kept == "True"
    assert before > 100
    assert after < before / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc, and keeps nothing anyway")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072"),
        ("WELLFIT_KEEP_FREED_MEMORY", "0"),
    ],
)
def test_the_users_own_setting_is_left_alone(name: str, value: str) -> None:
    assert counted(**{name: value})[2] == "False"


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is not glibc's to keep, whatever glibc answers. Preloading is decided at a process's start."""
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2")
    keep_freed_memory.cache_clear()
    try:
        assert keep_freed_memory() is False
    finally:
        keep_freed_memory.cache_clear()


def test_asking_whether_memory_is_kept_does_not_change_it() -> None:
    keep_freed_memory.cache_clear()
    try:
        assert freed_memory_is_kept() is False
        assert keep_freed_memory.cache_info().currsize == 0
        kept = keep_freed_memory()
        assert freed_memory_is_kept() is kept
    finally:
        keep_freed_memory.cache_clear()


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_freed_memory.cache_clear()
    monkeypatch.setattr("wellfit.allocator.sys.platform", "darwin")
    try:
        assert keep_freed_memory() is False
    finally:
        keep_freed_memory.cache_clear()

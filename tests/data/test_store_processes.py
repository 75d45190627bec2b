"""The store under a kill half-way, and under two processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import encoded, noise
from wellfit.data.sources import open_source
from wellfit.data.store_cache import Lease, in_use

IMAGES = 1200

PROGRAM = """
import os, sys
import numpy as np
from wellfit.data import store_build
from wellfit.data.inspect import inspect
from wellfit.data.sources import open_source
from wellfit.data.store import build_store

store_build.SHARD_IMAGES = 256
kill_at = int(sys.argv[2])
decode, count = store_build.decode, 0

def counting(*args):
    global count
    count += 1
    return decode(*args)

store_build.decode = counting
store_build.usable_cores = lambda: 1

def progress(done, total):
    if kill_at and done >= kill_at:
        os._exit(9)

source = open_source(sys.argv[1])
inspection = inspect(source)
if len(sys.argv) > 3:  # wait for the others
    print("ready", flush=True)
    sys.stdin.readline()
store = build_store(source, inspection, np.arange(len(source.names)), short_side=320, progress=progress)
print("decoded", count, int(store.usable.sum()))
"""


def start(folder: Path, cache: Path, kill_at: int = 0, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "WELLFIT_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(folder), str(kill_at), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment)


def contents(cache: Path) -> dict[str, bytes]:
    stores = [path for path in (cache / "stores").iterdir() if path.is_dir() and not path.suffix]
    return {f"{store.name}/{path.name}": path.read_bytes() for store in stores for path in store.iterdir()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in "ab":
        (folder / name).mkdir()
    for i in range(IMAGES):
        (folder / "ab"[i % 2] / f"{i}.bmp").write_bytes(encoded(noise(i, 4, 4), "BMP"))
    return folder


@pytest.fixture(scope="module")
def untouched(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    cache = tmp_path_factory.mktemp("untouched")
    assert start(photos, cache).communicate()[0] == f"decoded {IMAGES} {IMAGES}\n"
    return contents(cache)


def test_killed_twice_then_built(photos: Path, untouched: dict[str, bytes], tmp_path: Path) -> None:
    first = start(photos, tmp_path, 400)
    first.communicate()
    assert first.returncode == 9
    assert contents(tmp_path) != untouched
    second = start(photos, tmp_path, 900)
    second.communicate()
    assert second.returncode == 9
    output = start(photos, tmp_path).communicate()[0].split()
    assert output[2] == str(IMAGES)
    assert int(output[1]) < IMAGES - 700  # what the killed ones had finished was kept
    assert contents(tmp_path) == untouched


@pytest.mark.skipif(not hasattr(os, "kill") or sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_killed_from_outside(photos: Path, untouched: dict[str, bytes], tmp_path: Path) -> None:
    import signal
    import time

    building = start(photos, tmp_path)

    def marks() -> list[Path]:
        return list((tmp_path / "stores").glob("*/store.json"))

    while building.poll() is None and not marks():
        time.sleep(0.001)
    if building.poll() is None:
        building.send_signal(signal.SIGKILL)
    building.communicate()
    assert start(photos, tmp_path).communicate()[0].split()[2] == str(IMAGES)
    assert contents(tmp_path) == untouched


def test_two_processes_build_it_once(photos: Path, untouched: dict[str, bytes], tmp_path: Path) -> None:
    both = [start(photos, tmp_path, 0, "wait") for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate()[0].split() for process in both]
    assert sum(int(output[1]) for output in outputs) == IMAGES
    assert [output[2] for output in outputs] == [str(IMAGES)] * 2
    assert contents(tmp_path) == untouched


def test_what_was_built_elsewhere_is_read_here(photos: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wellfit.data import store_build
    from wellfit.data.inspect import inspect
    from wellfit.data.store import build_store

    start(photos, own_cache).communicate()
    monkeypatch.setattr(store_build, "decode", None)
    source = open_source(photos)
    store = build_store(source, inspect(source), np.arange(IMAGES), short_side=320)
    assert (store.image(0) == noise(int(Path(source.names[0]).stem), 4, 4)).all()


def test_a_lease_ends_with_its_process(tmp_path: Path) -> None:
    folder = tmp_path / "stores" / "key"
    folder.mkdir(parents=True)
    program = (
        "import sys, os; from pathlib import Path; from wellfit.data.store_cache import Lease; "
        "lease = Lease(Path(sys.argv[1])); print('held', flush=True); sys.stdin.readline(); os._exit(9)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    assert in_use(folder)
    other.communicate("die\n")
    assert not in_use(folder)
    assert list((tmp_path / "stores" / "key.users").iterdir()) == []
    mine = Lease(folder)
    assert in_use(folder)
    mine.release()
    assert not in_use(folder)

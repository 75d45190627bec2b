"""The programs that measure growth, memory and the first pass, in their smallest sizes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import first_pass
import growth
import memory
import pytest
from PIL import Image
from spread import spread

from wellfit.search.rounds import Round


def test_spread_is_median_and_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00-3.00)"
    assert spread([1000.0], 0) == "1,000 (1,000-1,000)"


def test_every_stage_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WELLFIT_CACHE", str(tmp_path / "cache"))
    times = growth.data_stages(tmp_path, 300, 3)
    assert list(times) == [
        *("listing", "inspection", "store", "near-duplicates", "audit", "split", "preprocessing", "an epoch's batches")
    ]
    assert min(times.values()) >= 0
    trials, times = growth.search_stages(tmp_path, 10)
    assert trials == 10
    assert list(times) == ["search bookkeeping", "winner", "report"]


@pytest.mark.parametrize("asked", [7, 100, 201])
def test_trials_are_as_many_as_asked_in_rounds(asked: int) -> None:
    plan, trials, rounds = growth.Rounds(asked), [], 0
    while isinstance(step := plan.next(trials), Round):
        come = [growth.pretended(task) for task in step.tasks]
        assert plan.next([*trials, *come[: len(come) // 2]]) == step  # an open round is given whole
        trials += come
        rounds += 1
    assert [trial.number for trial in trials] == list(range(asked))
    assert rounds == -(-asked // growth.ROUND)
    assert len({trial.settings["lr"] for trial in trials}) == asked


def test_the_exponent_is_that_of_the_larger_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    def line(size: int, linear: float, square: float) -> dict[str, object]:
        return {"asked": size, "size": size, "times": {"linear": linear, "square": square, "short": 0.01}}

    growth.print_axis("images", [line(10, 1.3, 1.0), line(100, 3.0, 2.0), line(1000, 30.0, 200.0)])
    rows = {row.split()[0]: row for row in capsys.readouterr().out.splitlines() if row.startswith("  ")}
    assert "exponent  1.00" in rows["linear"]
    assert "above" not in rows["linear"]
    assert "exponent  2.00 (whole  1.15) <- above linear" in rows["square"]
    assert "too short" in rows["short"]


def test_memory_is_read_with_that_of_children() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("reads /proc, which this system has not")
    # Processes of their own: in this one, garbage may be given back between the two looks.
    holding = "input(); held = bytearray(b'x' * 30_000_000); print('held', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holding!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", f"print('begun', flush=True); {parent}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        before = memory.anonymous(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "held\n"
        assert memory.anonymous(process.pid) - before > 0.9 * 30_000_000
        process.stdin.write("\n")
    assert memory.anonymous(2**22 + 1) == 0


def test_synthetic_photographs_are_made_once_and_a_tenth_of_them_lie_on_their_side(tmp_path: Path) -> None:
    photos = first_pass.make_photos(tmp_path, 20, 60, 40)
    files = sorted(photos.rglob("*.jpg"))
    turned = [file for file in files if Image.open(file).getexif().get(0x0112) == 6]
    assert (len(files), len(turned)) == (20, 2)
    when = files[0].stat().st_mtime_ns
    assert Image.open(files[0]).size == (60, 40)
    assert first_pass.make_photos(tmp_path, 20, 60, 40) == photos
    assert files[0].stat().st_mtime_ns == when
    assert len(list(memory.make_images(tmp_path / "memory", 12).rglob("*.jpg"))) == 12


def test_both_passes_have_a_speed(tmp_path: Path) -> None:
    photos = first_pass.make_photos(tmp_path, 70, 500, 375)
    with first_pass.empty_cache(tmp_path):
        first, later = first_pass.passes(photos)
    assert first > 0
    assert later > 0

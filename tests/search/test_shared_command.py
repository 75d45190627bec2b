"""`wellfit search` itself on PostgreSQL: two commands in two folders share a study, and one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.search.conftest import Server
from wellfit.record import read_record
from wellfit.search.standing import Claim
from wellfit.search.study import NoStudy, Study

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals that pause a process")

TRIALS = 16
CONFIG = """
[training]
epochs = 0.2
[model]
name = "lenet5"
[engine]
device = "cpu"
dtype = "float32"
layout = "contiguous"
threads = 1
"""
PATIENCE = 900.0  # seconds: the machine may be busy
# The command itself, in which a worker counts as dead after ten seconds of silence and not after twenty.
COMMAND = """
from wellfit.search import heartbeat
heartbeat.INTERVAL, heartbeat.GRACE = 1.0, 10.0
from wellfit.cli import main
main()
"""


def wait_until(there: Callable[[], Any], *alive: subprocess.Popen[bytes]) -> Any:
    until = time.monotonic() + PATIENCE
    while not (found := there()):
        assert time.monotonic() < until, "waited in vain"
        for process in alive:
            assert process.poll() is None, "a command ended before its time"
        time.sleep(0.1)
    return found


def command(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """`wellfit …` as a process of its own; what it says stands in out.txt and err.txt of the folder."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with (folder / "out.txt").open("wb") as out, (folder / "err.txt").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments], cwd=folder, env=environment, stdout=out, stderr=err
        )


def answer(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out.txt").read_text().splitlines()[-1])


def test_two_commands_share_a_study_and_the_one_that_lives_finishes_it(postgresql: Server, tmp_path: Path) -> None:
    storage = postgresql.database()
    (tmp_path / "c.toml").write_text(CONFIG)
    (tmp_path / "space.toml").write_text("[lr]\nlog_uniform = [1e-3, 1e-2]\n")
    shared = ("--storage", storage, "--study", "digits")
    asked = ("search", "digits", "../space.toml", "--config", "../c.toml", "--trials", str(TRIALS), "--workers", "1")

    def founded() -> Study | None:
        try:
            return Study.existing(storage, "digits", say=lambda _: None)
        except NoStudy:
            return None

    def claims() -> list[Claim]:
        return study._reader.read()

    def session_of(folder: Path) -> str | None:
        """Of the command whose run is in the folder: whoever told the first trial that its record has."""
        own = [line["trial"] for line in read_record(folder / "s" / "record.jsonl") if line["kind"] == "trial"]
        ended = [claim.session for claim in claims() if claim.trial is not None and claim.task.number in own[:1]]
        return ended[0] if ended else None

    # Both begin at once: one founds the study, the other takes over its plan.
    doomed = command(tmp_path / "a", *asked, *shared, "--out", "s")
    other = command(tmp_path / "b", *asked, *shared, "--out", "s", "--json")
    begun, study = [doomed, other], None
    try:
        study = wait_until(founded, doomed, other)
        first = wait_until(lambda: session_of(tmp_path / "a"), doomed, other)
        wait_until(lambda: [claim for claim in claims() if claim.session != first], doomed, other)

        def in_the_midst() -> list[Claim]:
            """The claim of the doomed one, which stands still meanwhile."""
            doomed.send_signal(signal.SIGSTOP)
            held = [claim for claim in claims() if claim.running and claim.session == first]
            if not held:
                doomed.send_signal(signal.SIGCONT)
            return held

        (unfinished,) = wait_until(in_the_midst, other)
        doomed.kill()
        assert doomed.wait() == -signal.SIGKILL
        assert other.wait(timeout=PATIENCE) == 0, (tmp_path / "b" / "err.txt").read_text()

        # Each trial of the whole study was finished once, the one that was under way too, by the one that lives.
        ended = [claim for claim in claims() if claim.trial is not None]
        assert Counter(claim.task.number for claim in ended) == dict.fromkeys(range(TRIALS), 1)
        assert {claim.session == first for claim in ended} == {True, False}
        (taken,) = [claim for claim in ended if claim.task.number == unfinished.task.number]
        assert taken.session != first
        assert f"trial {unfinished.task.number} of worker 1 is taken up: it was not" in (
            tmp_path / "b" / "err.txt"
        ).read_text().replace("\n", " ")
        said = answer(tmp_path / "b")
        assert (said["trials"], said["finished"]) == (TRIALS, TRIALS)

        # The folder of the one that was killed comes to the same.
        resumed = command(tmp_path / "a", "resume", "s", "--json")
        begun.append(resumed)
        assert resumed.wait(timeout=PATIENCE) == 0, (tmp_path / "a" / "err.txt").read_text()
        again = answer(tmp_path / "a")
        same = ("best", "trials", "finished", "pruned", "failed", "stages", "importance")
        assert {name: again[name] for name in same} == {name: said[name] for name in same}
        assert (tmp_path / "a" / "s" / "best.toml").read_text() == (tmp_path / "b" / "s" / "best.toml").read_text()
    finally:
        if study is not None:
            study.close()
        for process in begun:
            process.kill()
            process.wait()

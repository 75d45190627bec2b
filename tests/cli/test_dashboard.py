"""`wellfit dashboard` on the command line: it says where it is, and refuses in a sentence."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from wellfit.dashboard import serve


def test_it_says_where_it_is_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "wellfit", "dashboard", "some", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"dashboard of (.*some): http://127\.0\.0\.1:(\d+)/", line)
        assert found, line
        connection = http.client.HTTPConnection("127.0.0.1", int(found[2]), timeout=20)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200
        assert b"wellfit dashboard" in answer.read()
        connection.close()
    finally:
        process.send_signal(signal.SIGINT) if sys.platform != "win32" else process.terminate()
        _, said = process.communicate(timeout=30)
    assert "Traceback" not in said
    assert process.returncode in (0, 130) or sys.platform == "win32"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nowhere",), "'nowhere' is no folder; check the path"),
        ((".", "--host", "0.0.0.0"), "needs a token; give one, such as --token"),
        ((".", "--token", "short"), "at least 8 characters, got 5"),
        ((".", "--port", "70000"), "from 0 (any that is free) to 65535, got 70000"),
        ((".", "--host", "no such host", "--token", "long enough"), "'no such host' is none"),
    ],
)
def test_mistakes_are_one_sentence(wellfit: Command, arguments: tuple[str, ...], sentence: str) -> None:
    ended = wellfit("dashboard", *arguments)
    assert ended.code == 2
    assert sentence in ended.sentence


def test_a_missing_extra_is_one_sentence(wellfit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else object())
    ended = wellfit("dashboard", ".")
    assert ended.code == 2
    assert "uvicorn is not installed; install them with `pip install 'wellfit[dashboard]'`" in ended.sentence


def test_the_folder_of_runs_may_be_made_later(wellfit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(serve, "serve", lambda folder, **how: asked.append((folder, how["host"], how["token"])))
    monkeypatch.setenv("WELLFIT_DASHBOARD_TOKEN", "from the environment")
    assert wellfit("dashboard").code == 0
    assert asked == [("runs", "127.0.0.1", "from the environment")]

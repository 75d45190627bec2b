"""What the person who waits sees: plain lines into a pipe, one live line in a terminal of any width."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest
from rich.console import Console

from wellfit.cli.progress import ProgressDisplay

STEP: dict[str, Any] = {"step": 5, "of": 10, "epoch": 0.5, "loss": 1.25, "images_per_second": 1234.5}
EPOCH = {"epoch": 1.0, "train_loss": 1.0, "train_accuracy": 0.5, "validation_loss": 1.1, "validation_accuracy": 0.625}
CHECK = {"check": "initial-loss", "message": "as guessing costs"}


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as display:
        display("begin", {"name": "train"})
        display("step", STEP)
        display("epoch", EPOCH)
        display("step", STEP)  # within ten seconds of the last: left out
        display("recipe_step", {"name": "train", "status": "done", "seconds": 2.0, "reason": "10 steps", "gain": None})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "  epoch 0.5: loss 1.250, 1,234 images/s",
        "  epoch 1.0: train loss 1.000 accuracy 0.500; validation loss 1.100 accuracy 0.6250",
        "✓ train         2.0 s  10 steps",
    ]


@pytest.mark.parametrize(("passed", "finished", "mark"), [(True, True, "✓"), (False, True, "✗"), (False, False, "?")])
def test_a_check_that_ran_out_of_time_is_not_a_failed_one(
    passed: bool, finished: bool, mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay() as display:
        display("check", {**CHECK, "passed": passed, "finished": finished})
    assert capsys.readouterr().err == f"  {mark} initial-loss: as guessing costs\n"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_terminal_gets_one_live_line_that_fits(width: int) -> None:
    shown = io.StringIO()
    display = ProgressDisplay(deadline=time.monotonic() + 3600)
    display.console = Console(file=shown, force_terminal=True, width=width, color_system=None, legacy_windows=False)
    with display:
        display("epoch", EPOCH)
        display("step", STEP)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue()))
    live = next(line for line in reversed(lines) if "loss 1.250" in line)
    assert len(live.rstrip()) <= width
    assert live.startswith("epoch 0.5 ")
    assert (" left" in live) == (width >= 60)
    assert "…" not in live
    assert ("images/s" in live) == (width >= 80)


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as display:
        display("say", {"text": "a\x1b]0;owned\x07 [bold]b[/bold]\nsecond line"})
    assert capsys.readouterr().err == "a\ufffd]0;owned\ufffd [bold]b[/bold]\nsecond line\n"

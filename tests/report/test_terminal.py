from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from tests.report.conftest import RunMaker
from wellfit.record import Record
from wellfit.report.curves import confusion
from wellfit.report.history import read_history
from wellfit.report.terminal import closing, show, sparkline


def test_sparkline_of_eight_even_steps() -> None:
    assert sparkline(range(8)) == "▁▂▃▄▅▆▇█"


def test_sparkline_is_at_most_as_wide_as_asked_and_follows_the_series() -> None:
    line = sparkline(np.linspace(5, -5, 1000), width=30)
    assert len(line) == 30
    assert line == "".join(sorted(line, reverse=True))


def test_sparkline_of_little() -> None:
    assert sparkline([]) == ""
    assert sparkline([math.nan, math.nan]) == "  "
    assert len(set(sparkline([3.0, 3.0, 3.0]))) == 1
    assert sparkline([0, math.inf, 1]) == "▁ █"


def test_show_tells_the_whole_run(make_run: RunMaker) -> None:
    folder = make_run(steps=100)
    text = show(folder)
    for words in (
        "resnet18, done in 9 min 43 s",
        "1,000 test images",
        "6,000 images in 10 classes",
        "11,173,962 parameters",
        "checks            3 passed",
        "12 trials",
        "averaged weights",
        "[warning] overfitting:",
        "the budget leaves no time",
        str(folder.model_weights),
    ):
        assert words in text, words
    assert max(len(line) for line in text.splitlines() if str(folder.path) not in line) <= 110
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_show_fits_the_terminal(make_run: RunMaker, width: int) -> None:
    folder = make_run(steps=100)
    lines = show(folder, width).splitlines()
    assert max(len(line) for line in lines if str(folder.path) not in line) <= width
    assert [line.split("  ")[0] for line in lines[2:] if line.startswith(("how", "what"))] == [
        "how good",
        "how sure",
        "what next",
    ]


def test_show_names_the_most_frequent_mistakes(make_run: RunMaker) -> None:
    folder = make_run(steps=5)
    matrix = confusion(read_history(folder))
    assert matrix is not None
    (true, answer, images, _), *_ = matrix.worst_pairs(1)
    assert f"confused          {true} taken for {answer} {images}× (" in show(folder)


def test_steps_that_were_skipped_for_the_same_reason_stand_together(make_run: RunMaker) -> None:
    folder = make_run(steps=5)
    record = Record(folder.record)
    for name in ("averages", "ensemble"):
        record.write("recipe_step", name=name, status="skipped", seconds=0.0, reason="there is no time", gain=None)
    record.write("recipe_step", name="save", status="failed", seconds=0.1, reason="disk full", gain=None)
    record.close()
    lines = show(folder).splitlines()
    assert "  averages, ensemble: there is no time" in lines[lines.index("skipped") :]
    assert any(line.startswith("  save ") and line.endswith("FAILED; disk full") for line in lines)


@pytest.mark.parametrize("until", ["audit", "plan", "trial", "epoch", "evaluation"])
def test_show_of_an_unfinished_run_says_so(make_run: RunMaker, until: str) -> None:
    text = show(make_run(steps=12, trials=3, until=until))
    assert "unfinished" in text
    assert "wellfit resume" in text
    assert "nan" not in text


def test_names_cannot_steer_the_terminal(make_run: RunMaker) -> None:
    classes = ["a\x1b]0;owned\x07", "b\r\nfake line"]
    assert "\x1b" not in show(make_run(steps=12, classes=classes, trials=2))


def test_closing_lines_are_the_verdict_and_where_things_are(make_run: RunMaker) -> None:
    folder = make_run(steps=30)
    text = closing(folder)
    assert "of the time" in text
    assert str(folder.model_weights) in text
    assert f"wellfit predict {folder.path} FILES" in text
    assert "report" not in text.split("model ")[-1].split("record")[0]  # there is no report.html yet
    folder.report.write_text("page", encoding="utf-8")
    assert str(folder.report) in closing(folder)


def test_the_summary_needs_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, wellfit.report.terminal\n"
        "heavy = {'torch', 'matplotlib', 'pandas', 'sklearn', 'PIL'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

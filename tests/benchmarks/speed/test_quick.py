"""Programs that measure speed run from end to end in their smallest size, and print a row of what they measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import augmentation_share
import engine_probe
import peak_share
import pytest
import training_step
from kept_lines import KeptLines

Main = Callable[[list[str] | None], None]


@pytest.mark.parametrize(
    ("main", "arguments", "row"),
    [
        pytest.param(
            augmentation_share.main,
            ["whitened-32"],
            r"\| whitened-32 \| .*batch 8 \| [\d.]+ \(.*mixup -?[\d.]+; n = 1 \|",
            id="augmentation_share",
        ),
        pytest.param(training_step.main, ["resnet18-32"], r"\| resnet18-32.*\|", id="training_step"),
        pytest.param(peak_share.main, ["--case", "resnet18-32"], r"BatchNorm \| [\d.]+ \|", id="peak_share"),
        pytest.param(engine_probe.main, ["whitened-32"], r"whitened-32 \| .*bfloat16.* \| [\d.]+ ", id="engine_probe"),
    ],
)
def test_a_program_runs_and_prints_its_row(
    main: Main, arguments: list[str], row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.jsonl"
    main([*arguments, "--quick", "--out", str(kept)])
    said = capsys.readouterr().out
    assert re.search(row, said), said
    assert "torch" in said.splitlines()[0]
    assert KeptLines(kept).rows
    before = kept.read_text()
    main([*arguments, "--quick", "--out", str(kept)])
    assert kept.read_text() == before  # nothing is measured twice
    assert re.search(row, capsys.readouterr().out)

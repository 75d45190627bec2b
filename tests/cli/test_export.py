"""`wellfit export`: what it prints; the files are tried in tests/inference/test_export.py."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command

KEYS = {"schema", "run", "to", "file", "bytes", "input", "output", "classes", "views", "checked", "notes"}


def test_in_words_and_as_json(wellfit: Command, finished_run: Path, tmp_path: Path) -> None:
    ended = wellfit("export", finished_run, "--to", "torchscript", "--out", tmp_path / "m.pt")
    assert ended.code == 0
    assert "uint8 N×3×H×W, RGB" in ended.out
    assert "probabilities agree with the network's within" in ended.out
    assert "deprecated" in ended.err
    ended = wellfit("export", finished_run, "--to", "safetensors", "--out", tmp_path / "w.safetensors", "--json")
    assert ended.out.count("\n") == 1
    assert ended.json.keys() == KEYS
    assert ended.json["bytes"] == (tmp_path / "w.safetensors").stat().st_size


def test_a_slip_in_the_format_names_the_nearest(wellfit: Command, finished_run: Path) -> None:
    ended = wellfit("export", finished_run, "--to", "onxx")
    assert ended.code == 2
    assert "did you mean 'onnx'?" in ended.sentence


def test_no_run_is_said(wellfit: Command, tmp_path: Path) -> None:
    ended = wellfit("export", tmp_path / "nothing", "--to", "onnx", "--json")
    assert ended.code == 2
    assert "is no folder" in ended.json["error"]["message"]

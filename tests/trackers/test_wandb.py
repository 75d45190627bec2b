"""Runs written by the real wandb, offline, and read back from its files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.trackers.conftest import STEPS, Play, lines, trials

pytest.importorskip("wandb", reason="logging into Weights & Biases is tested with it: pip install wandb")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))


def read(folder: Path) -> list[Any]:
    """The records of every session of the run, in order. wandb's own process writes them, a little after the run."""
    until = time.monotonic() + 20
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    records = [parsed(file) for file in files]
    while not all(any(r.WhichOneof("record_type") == "exit" for r in session) for session in records):
        assert time.monotonic() < until, "wandb has not written the end of the run"
        time.sleep(0.05)
        records = [parsed(file) for file in files]
    return [record for session in records for record in session]


def parsed(file: Path) -> list[Any]:
    """The records of a file: Protocol Buffers in a log of LevelDB's format.

    After 7 bytes of heading, in blocks of 32 KiB: checksum (4 bytes), length (2), kind (1: whole, 2: first part, 3:
    middle, 4: last), then so many bytes; less than 7 bytes at the end of a block are filling.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    records: list[Any] = []
    data, at, parts = file.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts, at = parts + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4) and at <= len(data):
            records.append(Record.FromString(parts))
            parts = b""
    return records


def rows(records: list[Any]) -> list[dict[str, Any]]:
    found = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = ((item.key or ".".join(item.nested_key), item.value_json) for item in record.history.item)
            found.append({key: json.loads(value) for key, value in items})
    return found


def test_a_run_is_read_back(play: Play, tmp_path: Path) -> None:
    heard = play("wandb", lines())
    assert len(heard) == 1
    assert "kept offline; `wandb sync " in heard[0]
    records = read(tmp_path / "first")
    history = rows(records)
    assert [row["step"] for row in history if "loss" in row] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in history if row["step"] == 2 and "loss" in row] == [0.5]
    assert [row["validation/accuracy"] for row in history if "validation/accuracy" in row] == [0.5]
    begun = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (begun.project, begun.display_name) == ("wellfit", "first")
    summary: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for record in records:
        kind = record.WhichOneof("record_type")
        items = record.summary.update if kind == "summary" else record.config.update if kind == "config" else ()
        for item in items:
            (summary if kind == "summary" else config)[item.key or ".".join(item.nested_key)] = json.loads(
                item.value_json
            )
    assert summary["test/accuracy"] == 0.8
    assert summary["finding/overfitting"].startswith("warning: <b>0.75</b>")
    assert config["optimizer.lr"] == 0.25


def test_a_resumed_run_has_the_same_id_and_trials_are_rows(play: Play, tmp_path: Path) -> None:
    play("wandb", [*lines()[:2], lines()[-1]])
    play("wandb", trials())
    first = json.loads((tmp_path / "first" / "logged.json").read_text(encoding="utf-8"))["wandb"]["id"]
    play("wandb", lines(first=6, spent=1.0))
    again = json.loads((tmp_path / "first" / "logged.json").read_text(encoding="utf-8"))["wandb"]["id"]
    assert first == again
    scores = [row for row in rows(read(tmp_path / "first")) if "trial/number" in row]
    assert [(row["trial/number"], row["trial/lr"], row["trial/validation_accuracy"]) for row in scores] == [
        (0, 0.1, 0.5),
        (1, 0.01, 0.6),
    ]

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellfit.errors import UserError
from wellfit.record import SCHEMA, Record, RunFolder, read_record, write_atomically


def lines_of(path: Path) -> list[dict]:
    return list(read_record(path))


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    for step in range(5):
        record.write("step", step=step, loss=1 / (step + 1))
    record.close()
    assert lines_of(record.path) == [{"kind": "step", "step": i, "loss": 1 / (i + 1)} for i in range(5)]


def test_a_line_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    record.write("step", step=1)
    assert len(lines_of(record.path)) == 1  # not closed: a kill now would lose nothing
    record.close()


@given(cut=st.integers(0, 200))
def test_cut_anywhere_the_whole_lines_before_are_kept_and_later_ones_start_afresh(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "record.jsonl"
    record = Record(path)
    for step in range(6):
        record.write("step", step=step, text="äß")
    record.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n") + (cut < len(whole) and whole[cut : cut + 1] == b"\n")
    assert [line["step"] for line in read_record(path)] == list(range(complete))
    again = Record(path)
    again.write("end", status="done")
    again.close()
    kinds = [line["kind"] for line in read_record(path)]
    assert kinds == ["step"] * complete + ["end"]


def test_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_bytes(b'[1, 2]\n{"no": "kind"}\n\xff\xfe broken\n\n{"kind": "end"}\n')
    assert lines_of(path) == [{"kind": "end"}]


def test_values_of_numpy_and_paths_become_json(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    record.write(
        "x",
        scalar=np.float32(0.5),
        count=np.int64(3),
        flag=np.bool_(True),
        array=np.arange(3),
        nested={"p": Path("a/b"), 1: (1, 2)},
    )
    record.close()
    assert lines_of(record.path) == [
        {
            "kind": "x",
            "scalar": 0.5,
            "count": 3,
            "flag": True,
            "array": [0, 1, 2],
            "nested": {"p": str(Path("a/b")), "1": [1, 2]},
        }
    ]


def test_numbers_that_json_lacks_come_back_through_float(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    record.write("step", loss=[math.nan, math.inf, -math.inf, np.float64("nan")])
    record.close()
    text = record.path.read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    values = [float(value) for value in lines_of(record.path)[0]["loss"]]
    assert math.isnan(values[0])
    assert values[1:3] == [math.inf, -math.inf]
    assert math.isnan(values[3])


def test_the_listener_hears_every_line_and_what_is_only_told(tmp_path: Path) -> None:
    heard: list[tuple[str, dict]] = []
    record = Record(tmp_path / "record.jsonl", lambda kind, fields: heard.append((kind, fields)))
    record.write("step", step=1)
    record.tell("progress", done=3)
    record.close()
    assert heard == [("step", {"step": 1}), ("progress", {"done": 3})]
    assert [line["kind"] for line in read_record(record.path)] == ["step"]


def test_a_full_disk_is_the_users_to_mend(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")

    class Full:
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None: ...

        def close(self) -> None: ...

    record._file.close()
    record._file = Full()
    with pytest.raises(UserError, match=r"No space left on device.*wellfit resume"):
        record.write("step", step=1)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "plan.toml"
    write_atomically(path, "old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["plan.toml"]


def test_atomic_writes_make_their_folder_and_replace(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.bin"
    for content in (b"\x00\x01", b"\xff"):
        write_atomically(path, content)
        assert path.read_bytes() == content


def test_opening_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        RunFolder.open(tmp_path / "missing")
    with pytest.raises(UserError, match=r"is no run: it has no record\.jsonl"):
        RunFolder.open(tmp_path)


def test_a_run_of_a_newer_wellfit_is_refused(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    record.write("run", schema=SCHEMA + 1)
    record.close()
    with pytest.raises(UserError, match=f"record schema {SCHEMA + 1}, this one reads {SCHEMA}"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("schema", [None, "1", 1.5, True, [], {}])
def test_a_schema_that_is_no_whole_number_is_refused(tmp_path: Path, schema: object) -> None:
    record = Record(tmp_path / "record.jsonl")
    record.write("run", schema=schema)
    record.close()
    with pytest.raises(UserError, match="a record's schema is a whole number"):
        RunFolder.open(tmp_path)


def test_a_run_of_this_wellfit_opens(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    record.write("run", schema=SCHEMA)
    record.close()
    folder = RunFolder.open(str(tmp_path))
    assert folder.path == tmp_path
    assert folder.checkpoint.parent.parent == tmp_path

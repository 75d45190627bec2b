"""Whole lines, each once, in order, however the file is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wellfit.dashboard.tail import Tail


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b"")), max_size=20),
    cuts=st.lists(st.integers(0, 600), max_size=12),
    most=st.integers(1, 50),
)
def test_every_line_once_whatever_the_pieces(tmp_path: Path, lines: list[bytes], cuts: list[int], most: int) -> None:
    content = b"".join(line + b"\n" for line in lines)
    path = tmp_path / "record.jsonl"
    path.write_bytes(b"")
    tail, read = Tail(path, most), []
    ends = [*sorted(min(cut, len(content)) for cut in cuts), len(content)]
    written = 0
    for end in ends:
        with path.open("ab") as file:
            file.write(content[written:end])
        written = end
        new, _ = tail.read()
        read += new
        whole = content[:written].rpartition(b"\n")[0].split(b"\n") if b"\n" in content[:written] else []
        assert read == whole[: len(read)]
    for _ in range(len(lines) + 1):
        read += tail.read()[0]
    assert read == lines
    assert not tail.behind


def test_a_torn_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(b"one\ntw")
    tail = Tail(path)
    assert tail.read() == ([b"one"], True)
    assert tail.read() == ([], False)
    with path.open("ab") as file:
        file.write(b"o\nthree\n")
    assert tail.read() == ([b"two", b"three"], False)


def test_a_file_that_was_replaced_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(b"one\ntwo\n")
    tail = Tail(path)
    tail.read()
    other = tmp_path / "s"
    other.write_bytes(b"three\nfour\nfive\n")
    other.replace(path)
    assert tail.read() == ([b"three", b"four", b"five"], True)
    path.write_bytes(b"a\n")  # the same file, cut
    assert tail.read() == ([b"a"], True)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Tail(tmp_path / "none").read()

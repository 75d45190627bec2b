"""Wishes left in a run's folder: what was asked before a session is old, what is asked during it counts once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wellfit.errors import UserError
from wellfit.record import RunFolder
from wellfit.request import LONGEST_NOTE, Request, Requests, ask_to_stop, leave_note, read_request, request_file


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def folder_at(path: Path) -> RunFolder:
    path.mkdir(exist_ok=True)
    return RunFolder(path)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    assert read_request(folder) == Request()
    first = leave_note(folder, "colder rate <b>next</b>\nÄrger")
    assert read_request(folder) == first
    second = ask_to_stop(folder)
    assert second.note == first.note
    assert second.stop
    assert ask_to_stop(folder).stop != second.stop


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe", b"null", b'{"stop": 3, "note": {"a": 1}, "changed": "x"}', b"[" * 90_000],
)
def test_a_damaged_file_asks_for_nothing(tmp_path: Path, content: bytes) -> None:
    folder = folder_at(tmp_path)
    request_file(folder).write_bytes(content)
    assert read_request(folder) == Request()


def test_an_old_wish_is_not_obeyed_and_a_new_one_is(tmp_path: Path) -> None:
    folder, clock, told = folder_at(tmp_path), Clock(), []
    ask_to_stop(folder)
    leave_note(folder, "from before")
    requests = Requests(folder, lambda: told.append("stop"), told.append, clock)
    clock.now += 10
    assert not requests.stop()
    leave_note(folder, "during")
    clock.now += 10
    assert not requests.stop()
    ask_to_stop(folder)
    assert not requests.stop()  # looked at this second
    clock.now += 1
    assert requests.stop()
    clock.now += 10
    assert requests.stop()
    assert told == ["during", "stop"]


def test_a_wish_that_came_stays_though_its_file_goes(tmp_path: Path) -> None:
    folder, clock = folder_at(tmp_path), Clock()
    requests = Requests(folder, clock=clock)
    ask_to_stop(folder)
    clock.now += 1
    assert requests.stop()
    request_file(folder).unlink()
    clock.now += 1
    assert requests.stop()


def test_a_note_has_its_limit(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    leave_note(folder, "x" * LONGEST_NOTE)
    with pytest.raises(UserError, match="at most 4,000 characters, got 4,001"):
        leave_note(folder, "x" * (LONGEST_NOTE + 1))
    assert read_request(folder).note == "x" * LONGEST_NOTE


def test_a_folder_that_is_gone_is_the_users_matter(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(UserError, match="could not be written"):
        ask_to_stop(RunFolder(blocked))


def test_the_file_is_json_that_names_its_schema(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    leave_note(folder, "a")
    value = json.loads(request_file(folder).read_text(encoding="utf-8"))
    assert value["schema"] == 1
    assert set(value) == {"schema", "stop", "note", "changed"}

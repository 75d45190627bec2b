from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command
from tests.report.conftest import write_run


def test_runs_are_listed_plainly_where_nobody_looks(wellfit: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "first", steps=30)
    write_run(tmp_path / "runs" / "second", steps=30, until="evaluation")
    ended = wellfit("runs", "--sort", "name")
    assert ended.code == 0
    heading, first, second = ended.out.splitlines()[:3]
    assert heading.startswith("run ")
    assert first.split()[:3] == ["first", "finished", "87.3%"]
    assert second.split()[:2] == ["second", "running"]
    assert "\x1b" not in ended.out


def test_runs_as_json(wellfit: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "a", steps=30)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "record.jsonl").write_text('{"kind": "run", "schema": 99}\n', encoding="utf-8")
    values = wellfit("runs", ".", "--sort", "accuracy", "--json").json
    assert [run["state"] for run in values["runs"]] == ["finished", "unreadable"]
    assert values["runs"][0]["accuracy"] == 0.873
    assert values["runs"][1]["accuracy"] is None


def test_where_there_is_nothing_to_list(wellfit: Command, tmp_path: Path) -> None:
    assert "wellfit runs DIR" in wellfit("runs").sentence
    assert wellfit("runs", ".").out.startswith("no run in '.'")
    assert wellfit("runs", "missing").code == 2
    assert "did you mean 'accuracy'" in wellfit("runs", ".", "--sort", "acuracy").sentence

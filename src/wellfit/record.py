"""The run folder and its append-only record: the one place that training writes and reports read.

RUN/
  config.toml        what was asked, in full
  plan.toml          what was decided, in counts; and what was done
  record.jsonl       one JSON object a line, each with a "kind"; a torn last line is legal
  arrays/            *.npz and thumbnails without EXIF
  model.safetensors, model.json
  checkpoint/        one safetensors file, written aside and renamed
  report.html
A search has also:
  best.toml          the best settings, for `wellfit train`
  search.sqlite      the study, unless it is kept elsewhere
  trials/N/          checkpoints that a longer trial may go on from
  workers/*.jsonl    what worker processes wrote: records of their own, so that no line of one tears another's
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from wellfit.errors import UserError

SCHEMA = 1
Listener = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class RunFolder:
    """Names the files of one run. Creating the object touches nothing on disk."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def plan(self) -> Path:
        return self.path / "plan.toml"

    @property
    def record(self) -> Path:
        return self.path / "record.jsonl"

    @property
    def arrays(self) -> Path:
        return self.path / "arrays"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint" / "training.safetensors"

    @property
    def search(self) -> Path:
        return self.path / "search.sqlite"

    @property
    def best(self) -> Path:
        return self.path / "best.toml"

    @property
    def workers(self) -> Path:
        return self.path / "workers"

    def worker_records(self) -> list[Path]:
        """The records of worker processes, in the order of their names."""
        return sorted(self.workers.glob("*.jsonl"))

    @property
    def model_weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def model_card(self) -> Path:
        return self.path / "model.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run; UserError when the folder is missing, is no run, is damaged, or is from a newer wellfit."""
        path = Path(path)
        if not path.is_dir():
            raise UserError(f"a run is a folder that `wellfit fit` made, but '{path}' is no folder; check the path")
        folder = cls(path)
        if not folder.record.is_file():
            raise UserError(
                f"'{path}' is no run: it has no record.jsonl; give the folder that `wellfit fit` printed at its end"
            )
        schema = next((line.get("schema", SCHEMA) for line in read_record(folder.record)), SCHEMA)
        if not isinstance(schema, int) or isinstance(schema, bool):
            raise UserError(
                f"a record's schema is a whole number, but that of '{path}' is {schema!r}, so the record was changed "
                "or damaged; restore record.jsonl, or fit anew"
            )
        if schema > SCHEMA:
            raise UserError(
                f"'{path}' was written by a newer wellfit (record schema {schema}, this one reads {SCHEMA}); "
                "upgrade wellfit to open it"
            )
        return folder


class Record:
    """Appends lines to `record.jsonl`; every line is flushed, so a kill loses at most a torn last one.

    listener: called with (kind, fields) of every line, in memory: how the terminal shows progress.
    follower: called likewise, of lines that are written alone, and of the trials that worker processes wrote.
    """

    def __init__(self, path: Path, listener: Listener | None = None, follower: Listener | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend_torn_line(path)
        self.path = path
        self._listener, self._follower = listener, follower
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, kind: str, **fields: Any) -> None:
        """Append one line and tell the listener."""
        try:
            self._file.write(json.dumps({"kind": kind, **_json_safe(fields)}, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"the record '{self.path}' could not be written ({error.strerror}); "
                "make room there and go on with `wellfit resume`"
            ) from error
        if self._follower is not None and kind != "trial":
            self._follower(kind, fields)
        self.tell(kind, **fields)

    def tell(self, kind: str, **fields: Any) -> None:
        """Tell the listener alone: for what is worth seeing and not worth keeping, or is kept elsewhere."""
        if self._follower is not None and kind == "trial":  # a worker process keeps its own in a record of its own
            self._follower(kind, fields)
        if self._listener is not None:
            self._listener(kind, fields)

    def close(self) -> None:
        self._file.close()


def read_record(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the record's lines in order; a torn last line is left out, a torn middle line too."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and "kind" in value:
                yield value


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write beside `path`, flush to disk, rename: readers see the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _mend_torn_line(path: Path) -> None:
    # A kill can leave half a line; what is appended next must start on a line of its own.
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _json_safe(value: Any) -> Any:
    # NaN and infinity are not JSON: a diverged loss is written as a string that float() reads back.
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _json_safe(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return _json_safe(value.item())
    if hasattr(value, "tolist"):
        return _json_safe(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return value

"""Rows of figures in a file, one JSON object a line, so that a benchmark that was killed goes on after its last row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class KeptLines:
    """The rows of `path`; without a path they are kept in memory alone. A torn last line is dropped."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.rows = path, list[dict[str, Any]]()
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        self.rows = [json.loads(line) for line in whole.splitlines()]
        if whole != text:
            path.write_text(whole, encoding="utf-8")

    def has(self, **key: Any) -> bool:
        """Whether there is a row with these values."""
        return bool(self.of(**key))

    def of(self, **key: Any) -> list[dict[str, Any]]:
        return [row for row in self.rows if all(row.get(name) == value for name, value in key.items())]

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

"""What a run keeps of its place in other tools, so that a resumed run goes on there: `logged.json` in its folder."""

from __future__ import annotations

import json
from typing import Any

from wellfit.record import RunFolder, write_atomically

FILE = "logged.json"


def remembered(folder: RunFolder, tool: str) -> dict[str, Any]:
    """What `remember` kept; {} where there is nothing that can be read."""
    try:
        values = json.loads((folder.path / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    kept = values.get(tool) if isinstance(values, dict) else None
    return kept if isinstance(kept, dict) else {}


def remember(folder: RunFolder, tool: str, **values: Any) -> None:
    """Keep the values for the tool; those of the others stay."""
    tools = ("wandb", "mlflow")
    kept = {name: remembered(folder, name) for name in tools} | {tool: values}
    write_atomically(folder.path / FILE, json.dumps({name: value for name, value in kept.items() if value}) + "\n")

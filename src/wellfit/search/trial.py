"""One short run of the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One short run. score: what is maximised, on validation; None when it was broken off or failed."""

    stage: str
    number: int
    settings: dict[str, Any]
    state: str  # "finished", "pruned" or "failed"
    score: float | None = None
    error: float = 0.0  # standard error of the score, from the number of validation images
    loss: float | None = None

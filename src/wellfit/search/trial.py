"""One run of the search: what is to be done, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """One run that is to be done. Numbers count over the whole study; a promotion is a task of its own.

    epochs: length from the start of training; one that continues another trains the difference alone.
    continues: number of the trial whose checkpoint is taken up; None starts anew.
    """

    number: int
    stage: str
    settings: dict[str, Any]
    epochs: float
    rung: int = 0
    continues: int | None = None


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
    rung: int = 0
    epochs: float = 0.0  # trained in all, the trial that it continues included
    continues: int | None = None
    images: int = 0  # trained on by this trial alone: its cost
    seconds: float = 0.0
    training: float = 0.0  # seconds of them in which it trained: building the network and judging it left out
    ended: float = 0.0  # seconds of the search until it ended, by the study's clock
    worker: str = ""
    reason: str = ""  # of a trial that did not finish, or that was not run as asked
    findings: tuple[str, ...] = ()  # ids of what the rules see on its curve

    def __post_init__(self) -> None:
        object.__setattr__(self, "findings", tuple(self.findings))  # JSON has lists

"""A claim, and how all claims of a study stand, kept up one by one: what is asked at a task does not grow with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from wellfit.search.trial import Task, Trial


@dataclass(frozen=True)
class Claim:
    """One worker's hold on a task.

    key: Optuna's trial id; number: place among the trials of the study, the older the lower.
    session: of the one process and the one call that made it; host: the machine.
    beat: grows while the worker lives. trial: what came of it, where it is finished. dead: void since its worker was
    given up, and not since it was taken back.
    """

    key: int
    number: int
    task: Task
    worker: str
    session: str
    host: str
    void: bool
    beat: int = 0
    trial: Trial | None = None
    begun: datetime | None = None
    dead: bool = False

    @property
    def running(self) -> bool:
        return self.trial is None and not self.void


class Standing:
    """All claims as they were last read.

    claims: by their number, in the order in which they were made. running: those that are worked at.
    trials: what came of the tasks that ended, by number of the task.
    """

    def __init__(self) -> None:
        self.claims: dict[int, Claim] = {}
        self.running: dict[int, Claim] = {}
        self.trials: dict[int, Trial] = {}
        self._numbers: dict[int, list[int]] = {}

    def take(self, claim: Claim) -> None:
        """A claim that is new, or that changed: a running one may have a new beat, or have ended."""
        if claim.number not in self.claims:
            self._numbers.setdefault(claim.task.number, []).append(claim.number)
        self.claims[claim.number] = claim
        if claim.running:
            self.running[claim.number] = claim
        else:
            self.running.pop(claim.number, None)
        if claim.trial is not None:
            self.trials[claim.task.number] = claim.trial

    def of(self, task: int) -> list[Claim]:
        """The claims on a task, by its number, in the order in which they were made."""
        return [self.claims[number] for number in self._numbers.get(task, ())]

"""What a schedule answers: a round of tasks, or that the search is over."""

from __future__ import annotations

from dataclasses import dataclass

from wellfit.findings import Finding
from wellfit.search.space import Space
from wellfit.search.trial import Task, Trial


@dataclass(frozen=True)
class Round:
    """Tasks that may run in any order, on any worker. The next round opens when each of them has a trial.

    space: what the tasks were drawn from; reason: in words, why these.
    findings: what came up between the round before and this one.
    """

    stage: str
    rung: int
    tasks: tuple[Task, ...]
    space: Space
    reason: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Finished:
    """The search is over. best: the trial to train with; None where none finished."""

    reason: str
    findings: tuple[Finding, ...]
    best: Trial | None

"""A job: one run in progress. What was asked, where it is written, and how much time is left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wellfit.config import Config
from wellfit.errors import Interrupted
from wellfit.findings import Finding
from wellfit.recipe.budget import Budget
from wellfit.record import Record, RunFolder

if TYPE_CHECKING:
    from wellfit.training.distributed import Group


@dataclass
class Outcome:
    """How one step of the recipe went; it fills in `reason` and `gain` itself."""

    name: str
    status: str = "done"
    seconds: float = 0.0
    reason: str = ""
    gain: float | None = None

    def skip(self, reason: str) -> None:
        self.status, self.reason = "skipped", reason


@dataclass
class Job:
    """Handed from step to step; holds no tensors and decides nothing."""

    data: Any
    config: Config
    folder: RunFolder
    record: Record
    budget: Budget
    force: bool = False
    stop: Callable[[], bool] = lambda: False  # asked to stop, in whatever way
    stop_now: Callable[[], bool] = lambda: False  # asked not to wait for the end of the epoch
    outcomes: list[Outcome] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    group: Group | None = None  # the processes that share this run's trainings, where there are several

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Outcome]:
        """Time a step of the recipe and write down how it went, also when it fails."""
        if self.stop():
            raise Interrupted(f"stopped before '{name}'; go on with `wellfit resume {self.folder.path}`")
        outcome = Outcome(name)
        begun = time.monotonic()
        self.record.write("begin", name=name)
        try:
            yield outcome
        except BaseException:
            outcome.status = "failed"
            raise
        finally:
            outcome.seconds = round(time.monotonic() - begun, 2)
            self.outcomes.append(outcome)
            self.record.write("recipe_step", **vars(outcome))

    def skip(self, name: str, reason: str) -> None:
        """Write down that a step of the recipe is left out, and why."""
        outcome = Outcome(name, "skipped", reason=reason)
        self.outcomes.append(outcome)
        self.record.write("recipe_step", **vars(outcome))

    def report(self, *findings: Finding, step: int | None = None) -> None:
        """Keep findings and write them into the record."""
        for finding in findings:
            self.findings.append(finding)
            self.record.write("finding", step=step, **finding.as_dict())

    def say(self, text: str) -> None:
        """A sentence for the person who watches."""
        self.record.write("say", text=text)

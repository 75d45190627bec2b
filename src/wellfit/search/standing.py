"""How the claims of a study stand, kept up claim by claim: what is asked at each task does not grow with the study."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wellfit.search.claims import Claim
    from wellfit.search.trial import Trial


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

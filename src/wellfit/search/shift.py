"""One worker at its study: rounds are opened, tasks claimed and run, those of the dead taken up, results told."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from wellfit.randomness import key_to_integer
from wellfit.search.claims import Claims
from wellfit.search.heartbeat import Heartbeat
from wellfit.search.outage import FAILURES, Patience
from wellfit.search.presence import Presence
from wellfit.search.schedule import Finished, Round
from wellfit.search.standing import Claim, Standing
from wellfit.search.trial import Task, Trial

Answer = TypeVar("Answer")


class Plan(Protocol):
    """What a study works through: `wellfit.search.schedule.Schedule`, or another pure function of the trials."""

    def next(self, trials: list[Trial], /) -> Round | Finished: ...


@dataclass
class Shift:
    """One worker at work: from the first claim to the last."""

    patience: Patience
    claims: Claims
    presence: Presence
    heartbeat: Heartbeat
    worker: str
    stop: Callable[[], bool]
    deaths: int | None = None

    def work(
        self, schedule: Plan, run: Callable[[Task], Trial], opened: Callable[[Round], None], poll: float
    ) -> Finished | None:
        current: Round | None = None
        while not self.stop():
            standing = self._look()
            ended = standing.trials
            # The schedule is asked between rounds alone: within one, what it says cannot change.
            if current is None or all(task.number in ended for task in current.tasks):
                step = schedule.next([ended[number] for number in sorted(ended)])
                if isinstance(step, Finished):
                    return step
                if all(task.number in ended for task in step.tasks):
                    raise ValueError(
                        f"the schedule opened round {step.rung} of {step.stage}, whose trials are all done"
                    )
                current = step
                opened(current)
            task = self._free_task(current, standing)
            if task is None:
                time.sleep(poll)
            elif (claim := self._claim(task)) is not None:
                self._run(claim, run)
        return None

    def _look(self) -> Standing:
        return self.patience.until(self.claims.look, stop=self.stop)

    def _free_task(self, current: Round, standing: Standing) -> Task | None:
        """A task of the round that nobody holds; where others are at work, not the one that they reach for too."""
        running = list(standing.running.values())
        dead = {claim.task.number for claim in running if self._is_dead(claim)}
        held = {claim.task.number for claim in running} - dead
        others = any(claim.session != self.claims.session for claim in running)
        free = [task for task in current.tasks if task.number not in held and task.number not in standing.trials]
        if not free:
            return None
        made = len(standing.claims)
        return free[key_to_integer(made, "claim", self.claims.session) % len(free) if others else 0]

    def _is_dead(self, claim: Claim) -> bool:
        elsewhere = claim.host != self.claims.host or claim.session == self.claims.session
        gone = not elsewhere and self.presence.is_dead(claim.session)
        if not gone and not self.heartbeat.silence.too_long(claim.key):
            return False
        silence = self.heartbeat.silence.of(claim.key)
        if self._until(lambda: self.claims.give_up(claim, dead=True)):
            why = "its process is gone" if gone else f"it was not heard of for {silence:.0f} s"
            self.patience.say(f"trial {claim.task.number} of worker {claim.worker} is taken up: {why}")
        return True

    def _claim(self, task: Task) -> Claim | None:
        self._until(lambda: self.claims.make(task, self.worker))
        return self.patience.until(lambda: self.claims.settle(task))

    def _run(self, claim: Claim, run: Callable[[Task], Trial]) -> None:
        self.heartbeat.held = claim.key
        try:
            try:
                trial = self._not_again(claim.task) or run(claim.task)
            except BaseException:
                with suppress(*FAILURES):  # the error is told; where this fails too, the heartbeat's end frees the task
                    self.claims.give_up(claim)
                raise
            if trial.number != claim.task.number:
                raise ValueError(f"task {claim.task.number} came back as trial {trial.number}")
            self._tell(claim, trial if trial.worker else replace(trial, worker=self.worker))
        finally:
            self.heartbeat.held = None

    def _not_again(self, task: Task) -> Trial | None:
        """A failed trial for a task that so many workers died of that it is taken for the cause; else None."""
        if self.deaths is None:
            return None
        died = sum(claim.void and claim.dead for claim in self._look().of(task.number))
        if died < self.deaths:
            return None
        reason = f"its worker died {died} times, as happens where memory runs out"
        self.patience.say(f"trial {task.number} is given up: {reason}")
        return Trial(
            task.stage, task.number, task.settings, "failed", rung=task.rung, continues=task.continues, reason=reason
        )

    def _tell(self, claim: Claim, trial: Trial) -> None:
        # A result is told however long the storage is away, also where the worker is asked to stop: it is paid for.
        if self.patience.until(lambda: self.claims.finish(claim, trial)):
            return
        self.patience.until(lambda: self.claims.make(claim.task, self.worker))
        again = self.patience.until(lambda: self.claims.settle(claim.task))
        self.heartbeat.held = None if again is None else again.key
        if again is None or not self.patience.until(lambda: self.claims.finish(again, trial)):
            self.patience.say(
                f"trial {trial.number} was taken up by another worker while this one, {self.worker}, was not heard of; "
                "its result here is left out"
            )

    def _until(self, action: Callable[[], Answer]) -> Answer:
        return self.patience.until(action, stop=self.stop)

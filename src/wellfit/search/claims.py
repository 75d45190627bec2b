"""Which worker is at which task: claims, kept as Optuna's trials, of which one alone can be finished.

A claim is a trial of Optuna's that is RUNNING and carries its task. It ends as COMPLETE (with a score), as PRUNED
(without one: broken off, or failed; the kept result says which) or as FAIL, and FAIL means void, whatever else the
trial carries. No claim leaves one of these three again.

Why no task is finished twice: Optuna numbers the trials of a study under a lock, and a trial is there for all to read
when the lock is given free. A worker that has made a claim reads all claims on that task; where an older one is not
void, it takes its own back before it trains. Let two claims on one task be finished, the younger by a worker that read
the older as void. A void claim stays void: the older one was not finished.

Why none is lost: a task is free as long as all claims on it are void, and the void ones are those that were taken back
and those whose worker was not heard of (`heartbeat.py`, `presence.py`). A worker that was wrongly given up, since it
was only asleep, finds its claim void when it tells the result: ending a claim is one compare-and-set, by Optuna's row
lock on PostgreSQL and by the one writer at a time that SQLite has (`place.py`). It may then claim anew and tell the
result it has; where another worker holds the task by then, the result is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from wellfit.search.standing import Claim, Standing
from wellfit.search.trial import Task, Trial

CLAIM, BEAT, RESULT, DEAD = "claim", "beat", "trial", "dead"  # names of Optuna's user attributes


class Claims:
    """The claims of one study, as one session of a worker reads and makes them."""

    def __init__(self, study: optuna.Study, storage: optuna.storages.RDBStorage, session: str, host: str) -> None:
        self._study, self._storage, self.session, self.host = study, storage, session, host
        self._id = storage.get_study_id_from_name(study.study_name)
        self._standing = Standing()
        self._seen = 0  # trials of Optuna's that were looked at
        self._open: list[int] = []  # places of those among them that had not ended

    def look(self) -> Standing:
        """How all claims stand now. Optuna reads what changed; what had ended at the last look is not looked at again.

        The answer is one and the same object at each call, brought up to date.
        """
        kept = self._study.get_trials(deepcopy=False)  # by number: new ones come at the end
        places = [*self._open, *range(self._seen, len(kept))]
        for place in places:
            if CLAIM in kept[place].user_attrs:
                self._standing.take(_claim(kept[place]))
        self._open = [place for place in places if not kept[place].state.is_finished()]
        self._seen = len(kept)
        return self._standing

    def read(self) -> list[Claim]:
        """All claims as they stand now, in the order in which they were made."""
        return list(self.look().claims.values())

    def running(self) -> list[Claim]:
        """The claims that are worked at, past what was read before; may be called from another thread."""
        kept = self._storage.get_all_trials(self._id, deepcopy=False, states=(TrialState.RUNNING,))
        return [_claim(trial) for trial in kept if CLAIM in trial.user_attrs]

    def make(self, task: Task, worker: str) -> None:
        """Claim the task; `settle` says whether that held."""
        who = {"task": asdict(task), "worker": worker, "session": self.session, "host": self.host}
        self._storage.create_new_trial(self._id, create_trial(state=TrialState.RUNNING, user_attrs={CLAIM: who}))

    def settle(self, task: Task) -> Claim | None:
        """The claim by which this session holds the task, or None where an older claim holds it.

        This session's other claims on it are taken back: also a second one, made when the answer to the first was lost.
        """
        held = [claim for claim in self.look().of(task.number) if not claim.void]
        mine = [claim for claim in held if claim.session == self.session and claim.running]
        first = mine[0] if mine and held[0] is mine[0] else None
        for claim in mine:
            if claim is not first:
                self.give_up(claim)
        return first

    def beat(self, key: int, beat: int) -> bool:
        """Say that the worker of this claim lives. False where the claim is no longer held."""
        try:
            self._storage.set_trial_user_attr(key, BEAT, beat)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        return True

    def give_up(self, claim: Claim, *, dead: bool = False) -> bool:
        """Make a claim void, whoever made it; False where it had ended already. dead: its worker is taken for dead."""
        if dead:
            try:
                self._storage.set_trial_user_attr(claim.key, DEAD, True)
            except optuna.exceptions.UpdateFinishedTrialError:
                return False
        return self._end(claim, TrialState.FAIL)

    def finish(self, claim: Claim, trial: Trial) -> bool:
        """Keep what came of the claim; False where it was made void meanwhile, and nothing is kept.

        May be repeated where the answer to an earlier call was lost.
        """
        scored = trial.score is not None and math.isfinite(trial.score)
        try:
            self._storage.set_trial_user_attr(claim.key, RESULT, asdict(trial))
        except optuna.exceptions.UpdateFinishedTrialError:
            return self._is_finished(claim)
        ended = self._end(
            claim, TrialState.COMPLETE if scored else TrialState.PRUNED, [trial.score] if scored else None
        )
        return ended or self._is_finished(claim)

    def _is_finished(self, claim: Claim) -> bool:
        # Only the holder ends a claim otherwise than as void: it was this session, and its answer was lost.
        return self._storage.get_trial(claim.key).state in (TrialState.COMPLETE, TrialState.PRUNED)

    def _end(self, claim: Claim, state: TrialState, values: Any = None) -> bool:
        try:
            return self._storage.set_trial_state_values(claim.key, state, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False


def results(claims: Iterable[Claim]) -> list[Trial]:
    """The trials that ended, in the order of their numbers."""
    return sorted((claim.trial for claim in claims if claim.trial is not None), key=lambda trial: trial.number)


def _claim(kept: FrozenTrial) -> Claim:
    who = kept.user_attrs[CLAIM]
    ended = kept.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return Claim(
        key=kept._trial_id,
        number=kept.number,
        task=Task(**who["task"]),
        worker=who["worker"],
        session=who["session"],
        host=who["host"],
        void=kept.state == TrialState.FAIL,
        beat=kept.user_attrs.get(BEAT, 0),
        trial=Trial(**kept.user_attrs[RESULT]) if ended else None,
        begun=kept.datetime_start,
        dead=kept.user_attrs.get(DEAD, False),
    )

"""The schedule: which trials come next, as a pure function of what was asked and of the trials so far (SPEC S1-S5).

Stages: coarse, fine, fine 2, … Each is a ladder of successive halving (`search/halving.py`); the space of a fine stage
is narrowed from the best trials of all stages before it (`search/stages.py`).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wellfit.errors import UserError
from wellfit.findings import Finding
from wellfit.search.halving import ETA, Ladder, Wish, ladder
from wellfit.search.samplers import check_sampler, grid, settings_of
from wellfit.search.smoothing import chain_ends, smoothed
from wellfit.search.space import Fixed, Integer, Kind, LogUniform, Space, Uniform, check_conditions
from wellfit.search.space_file import space_from_dict, space_to_dict
from wellfit.search.stages import narrow, ranked
from wellfit.search.trial import Task, Trial

COARSE_SHARE = 0.5  # of the cost goes into the coarse stage
TRIES = 3  # of a stage in which no trial finished, each with lower rates
TPE_BATCH = 8  # settings that are drawn at once, so that those after them can learn from them


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


@dataclass(frozen=True)
class Schedule:
    """What was asked of a search; make one by `Schedule.plan`. `next` says what follows from the trials so far."""

    space: Space
    seed: int
    longest: float
    shortest: float
    budget_epochs: float | None = None
    trials: int | None = None
    sampler: str = "random"
    first: tuple[dict[str, Any], ...] = field(default=())

    @classmethod
    def plan(
        cls,
        space: Space,
        *,
        seed: int,
        longest: float,
        budget_epochs: float | None = None,
        trials: int | None = None,
        shortest: float | None = None,
        sampler: str = "random",
        first: Sequence[Mapping[str, Any]] = (),
    ) -> Schedule:
        """A schedule for a total cost, a number of trials, or both; the first limit reached ends the search.

        longest: epochs of the training that the search is for; no trial is longer.
        budget_epochs: epochs that all trials may train together.
        trials: how many there may be in the whole study; a run that is continued for longer is one more.
        shortest: epochs below which a score says nothing; a hundredth of `longest` where it is not given.
        first: settings of the first trials; what they do not name is drawn.

        How lengths and counts follow: half of what there is goes into the coarse stage. It wants 12 settings, and 6
        more for each setting of the space beyond one, on three rungs of which each is three times as long as the one
        before and takes the best third: from at most 1 epoch to at most 5 (SPEC S1). Below that, length is given up
        before settings, down to `shortest`; above it there are more settings, up to 100 (SPEC S2). A fine stage wants
        half as many settings on two rungs, the first as long as the coarse stage's second and up to 10 epochs, the last
        up to 20. It takes half of what is left where another fine stage can follow, and else all of it. Trials that
        were broken off give back what they did not use. The search ends with what it was given, or with a fine stage in
        which no new settings are expected to score higher than the best before it by more than is doubtful.
        Raises UserError for limits within which no trial can run.
        """
        check_conditions(space)
        check_sampler(sampler)
        if budget_epochs is None and trials is None:
            raise UserError("a search needs a limit, got neither; give a number of trials, a budget, or both")
        if not 0 < longest < math.inf:
            raise UserError(f"the longest trial has a positive number of epochs, got {longest:g}; correct it")
        shortest = longest / 100 if shortest is None else min(shortest, longest)
        if trials is not None and trials < 1:
            raise UserError(f"a search has at least one trial, got {trials}; give a number above 0")
        if budget_epochs is not None and not shortest <= budget_epochs:
            raise UserError(
                f"a search needs the time of its shortest trial, {shortest:.3g} epochs, got {budget_epochs:.3g} in "
                "all; give more time, or train with the defaults"
            )
        return cls(space, seed, longest, shortest, budget_epochs, trials, sampler, tuple(dict(f) for f in first))

    def next(self, trials: Sequence[Trial]) -> Round | Finished:
        """The round that is open, or what the search came to.

        Trials may be given in any order, those of the open round among them; they change nothing before the round is
        complete. A round that is open is given whole: its tasks that have a trial are not to be run again.
        """
        known = {trial.number: trial for trial in trials}
        step: Round | Finished
        for step in _Search(self, known).rounds():
            if isinstance(step, Finished) or any(task.number not in known for task in step.tasks):
                break
        return step

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, as the first worker writes it into the study."""
        return {
            "space": space_to_dict(self.space),
            "seed": self.seed,
            "longest": self.longest,
            "shortest": self.shortest,
            "budget_epochs": self.budget_epochs,
            "trials": self.trials,
            "sampler": self.sampler,
            "first": [dict(given) for given in self.first],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schedule:
        """What `to_dict` gave."""
        return cls(
            space_from_dict(values["space"]),
            int(values["seed"]),
            float(values["longest"]),
            float(values["shortest"]),
            values["budget_epochs"],
            values["trials"],
            values["sampler"],
            tuple(dict(given) for given in values["first"]),
        )


class _Search:
    """A search replayed from its trials: each round is made from the trials of those before it alone."""

    def __init__(self, asked: Schedule, known: Mapping[int, Trial]) -> None:
        self.asked, self.known = asked, known
        self.done: list[Trial] = []  # those of complete rounds, by number
        self.number = 0  # of the next task
        self.spent = 0.0  # epochs
        self.space = self.explored = asked.space
        self.reason = "the space as given"
        self.findings: list[Finding] = []

    def rounds(self) -> Iterator[Round | Finished]:
        """Every round, and at last what the search came to; to be asked on only while each round's trials are known."""
        coarse = yield from self._coarse()
        if coarse is None:
            yield self._finished("no trial finished" if self.done else "there is no room for a trial")
            return
        fine, first = 1, coarse.epochs[min(1, len(coarse.epochs) - 1)]
        while True:
            self._narrow("coarse" if fine == 1 else _name("fine", fine - 1))
            made = self._ladder_of_fine(first)
            if made is None:
                yield self._finished("the limit of the search is reached")
                return
            before = len(self.done)
            yield from self._stage(_name("fine", fine), made)
            gain, doubt = self._gain(before)
            said = f"{_name('fine', fine)} is expected to bring {gain:+.3f} (± {doubt:.3f})"
            if gain <= doubt:
                self._narrow(_name("fine", fine))
                yield self._finished(f"{said}, which is no gain beyond doubt")
                return
            fine += 1

    def _left(self) -> tuple[float, float]:
        epochs = math.inf if self.asked.budget_epochs is None else self.asked.budget_epochs - self.spent
        trials = math.inf if self.asked.trials is None else self.asked.trials - self.number
        return epochs, trials

    def _coarse(self) -> Generator[Round, None, Ladder | None]:
        asked = self.asked
        varied = sum(not isinstance(kind, Fixed) for kind in asked.space.values())
        enough = 6 + 6 * max(1, varied)
        wish = Wish(min(enough, 60), 100, 3, 1.0, min(5.0, asked.longest))
        for attempt in range(1, TRIES + 1):
            epochs, trials = self._left()
            share = COARSE_SHARE if trials >= 8 else 1.0
            made = ladder(wish, epochs=epochs * share, trials=trials * share, shortest=asked.shortest)
            made = made or ladder(wish, epochs=epochs, trials=trials, shortest=asked.shortest)
            if made is None:
                return None
            yield from self._stage(_name("coarse", attempt), made)
            if any(trial.score is not None for trial in self.done):
                return made
            before = self.space
            self._narrow(_name("coarse", attempt))
            if self.space == before:
                return None
        return None

    def _ladder_of_fine(self, first: float) -> Ladder | None:
        asked = self.asked
        varied = sum(not isinstance(kind, Fixed) for kind in self.space.values())
        if not varied:
            return None
        first = min(first, asked.longest)
        wish = Wish(
            min(3 + 3 * varied, 30), 40, 2, max(first, min(10.0, asked.longest / ETA)), min(20.0, asked.longest)
        )
        epochs, trials = self._left()
        half = ladder(wish, epochs=epochs / 2, trials=trials / 2, shortest=max(first, min(1.0, asked.longest / ETA)))
        if half is not None and half.settings[0] >= wish.settings:
            return half
        made = ladder(wish, epochs=epochs, trials=trials, shortest=first)
        return made if made is not None and made.settings[0] >= 2 else None

    def _stage(self, stage: str, made: Ladder) -> Iterator[Round]:
        for tasks in self._first_rung(stage, made):
            yield self._round(stage, 0, tasks, self.reason)
            self._take(tasks)
        for rung in range(1, len(made.settings)):
            tasks = self._promoted(stage, made, rung)
            if tasks:
                numbers = ", ".join(str(task.continues) for task in tasks)
                said = f"the best of {len(self.done)} trials go on to {made.epochs[rung]:.3g} epochs: trials {numbers}"
                yield self._round(stage, rung, tasks, said)
                self._take(tasks)

    def _round(self, stage: str, rung: int, tasks: Sequence[Task], reason: str) -> Round:
        findings, self.findings = tuple(self.findings), []
        return Round(stage, rung, tuple(tasks), self.space, reason, findings)

    def _take(self, tasks: Sequence[Task]) -> None:
        by_number = {trial.number: trial for trial in self.done}
        for task in tasks:
            trial = self.known[task.number]
            parent = by_number.get(-1 if trial.continues is None else trial.continues)
            # A trial that was broken off has used less than planned; one that says nothing counts as planned.
            reached = trial.epochs if trial.epochs > 0 else task.epochs
            self.spent += max(0.0, reached - (parent.epochs if parent is not None else 0.0))
            self.done.append(trial)

    def _first_rung(self, stage: str, made: Ladder) -> Iterator[list[Task]]:
        """Tasks of the first rung, in the batches in which they are drawn."""
        tasks = self._carried(stage, made)
        given = list(self.asked.first) if not self.done else []
        wanted = made.settings[0] - len(tasks)
        given = given[:wanted]
        if self.asked.sampler == "grid":
            wanted = min(wanted, len(given) + len(grid(self.space, max(1, wanted - len(given)))))
        for place in range(wanted):
            settings = settings_of(
                self.asked.sampler,
                self.space,
                seed=self.asked.seed,
                number=self.number,
                trials=self.done,
                given=given[place] if place < len(given) else None,
                place=place - len(given),
                count=max(1, wanted - len(given)),
            )
            tasks.append(self._task(stage, settings, made.epochs[0], 0))
            if self.asked.sampler == "tpe" and len(tasks) >= TPE_BATCH:
                yield tasks
                tasks = []
        if tasks:
            yield tasks

    def _carried(self, stage: str, made: Ladder) -> list[Task]:
        """The first settings given and the best so far go on in the new stage, so that all are judged alike."""
        order = ranked(self.done, self.explored)
        begun = [i for i in order if self.asked.first and self._origin(self.done[i]) == 0]
        places = list(dict.fromkeys([*begun, *order[:1]]))[: made.settings[0]]
        return [self._continued(stage, self.done[i], made, 0) for i in places if self.done[i].epochs < made.epochs[0]]

    def _promoted(self, stage: str, made: Ladder, rung: int) -> list[Task]:
        """The best runs so far that have come as far as the rung below; those among them that are long enough stay."""
        reached = made.epochs[rung - 1] * (1 - 1e-9)
        able = [i for i in ranked(self.done, self.explored) if self.done[i].epochs >= reached]
        best = [self.done[i] for i in able[: made.settings[rung]]]
        return [
            self._continued(stage, trial, made, rung) for trial in best if trial.epochs < made.epochs[rung] * (1 - 1e-9)
        ]

    def _continued(self, stage: str, trial: Trial, made: Ladder, rung: int) -> Task:
        return self._task(stage, trial.settings, made.epochs[rung], rung, trial.number)

    def _task(
        self, stage: str, settings: Mapping[str, Any], epochs: float, rung: int, continues: int | None = None
    ) -> Task:
        task = Task(self.number, stage, dict(settings), epochs, rung, continues)
        self.number += 1
        return task

    def _origin(self, trial: Trial) -> int:
        """Number of the trial that a run began with."""
        by_number = {each.number: each for each in self.done}
        while trial.continues is not None and trial.continues in by_number:
            trial = by_number[trial.continues]
        return trial.number

    def _narrow(self, stage: str) -> None:
        narrowed = narrow(self.space, self.done, stage, self.explored)
        self.space, self.reason = narrowed.space, narrowed.reason
        self.findings += narrowed.findings
        self.explored = {**self.explored, **{n: hull(self.explored[n], kind) for n, kind in self.space.items()}}

    def _gain(self, before: int) -> tuple[float, float]:
        """How much higher the best settings of the last stage are expected to score than those before it; ± what."""
        expected = smoothed(self.done, self.explored)
        fresh = {trial.number for trial in self.done[before:]}
        new = [
            i for i in chain_ends(self.done) if self._origin(self.done[i]) in fresh and self.done[i].score is not None
        ]
        old = [
            i
            for i in chain_ends(self.done)
            if self._origin(self.done[i]) not in fresh and self.done[i].score is not None
        ]
        if not new or not old:
            return (0.0, 0.0) if not new else (math.inf, 0.0)
        best, earlier = (max((expected[i] for i in places), key=lambda pair: pair[0]) for places in (new, old))
        return best[0] - earlier[0], math.hypot(best[1], earlier[1])

    def _finished(self, reason: str) -> Finished:
        order = ranked(self.done, self.explored)
        longest = max((self.done[i].epochs for i in order), default=0.0)
        long = [i for i in order if self.done[i].epochs >= longest / ETA]
        return Finished(reason, tuple(self.findings), self.done[long[0]] if long else None)


def hull(a: Kind, b: Kind) -> Kind:
    """The range that holds both; where one is a choice or fixed, the first."""
    if isinstance(a, Integer) and isinstance(b, Integer):
        return replace(a, low=min(a.low, b.low), high=max(a.high, b.high))
    if isinstance(a, LogUniform | Uniform) and isinstance(b, LogUniform | Uniform):
        return replace(a, low=min(a.low, b.low), high=max(a.high, b.high))
    return a


def _name(stage: str, count: int) -> str:
    return stage if count == 1 else f"{stage} {count}"

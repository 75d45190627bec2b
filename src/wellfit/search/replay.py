"""A search replayed from its trials: what `Schedule.next` says, and why."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from wellfit.findings import Finding
from wellfit.search.asked import Asked
from wellfit.search.halving import ETA, Ladder, finalists
from wellfit.search.lengths import (
    FINALISTS,
    LAST,
    MOST_FINALISTS,
    anew,
    coarse_ladder,
    fewer_rungs,
    fine_ladder,
    for_finalists,
)
from wellfit.search.pacing import corrected
from wellfit.search.rounds import Finished, Round
from wellfit.search.samplers import grid, settings_of
from wellfit.search.smoothing import expectations
from wellfit.search.space import Integer, Kind, LogUniform, Uniform
from wellfit.search.stages import best_trial, narrow, ranked, ranked_by
from wellfit.search.trial import Task, Trial

FINAL = "final"
ATTEMPTS = 8  # to draw settings that were not run yet
DRAWN = {
    "random": "drawn at random",
    "qmc": "drawn from Sobol's sequence",
    "tpe": "drawn by TPE from the trials so far",
    "grid": "on a grid",
}
TRIES = 3  # of a stage in which no trial finished, each with lower rates
FEW = 8  # trials that are run before the length of the search is settled
TPE_BATCH = 8  # settings that are drawn at once, so that those after them can learn from them


class Replay:
    """Each round is made from the trials of those before it alone, so that a replay of any part goes on alike.

    It can be asked again and again while trials come in, and goes on from where it stood; where a trial that it rests
    on has changed (`holds`), a new one must begin.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.known: Mapping[int, Trial] = {}
        self.done: list[Trial] = []  # those of complete rounds, by number
        self.number = 0  # of the next task
        self.spent = 0.0  # epochs
        self.space = self.explored = asked.space
        self.reason = "the space as given"
        self.findings: list[Finding] = []
        self.corrections: list[str] = []  # of the budget, in words, since the last round
        self.measured = 0  # trials whose speed the budget rests on
        self.kept = for_finalists(self.asked)
        self._steps = self._rounds()
        self._step: Round | Finished = next(self._steps)
        self.rounds: list[Round] = []  # those that are complete

    def holds(self, known: Mapping[int, Trial]) -> bool:
        """Whether all trials that it rests on are among the known ones, as they were."""
        return all(known.get(trial.number) == trial for trial in self.done)

    def step(self, known: Mapping[int, Trial]) -> Round | Finished:
        """The first round that lacks a trial, or what the search came to."""
        self.known = known
        while isinstance(self._step, Round) and all(task.number in known for task in self._step.tasks):
            self.rounds.append(self._step)
            self._step = next(self._steps)
        return self._step

    def _rounds(self) -> Iterator[Round | Finished]:
        """Every round, and at last what the search came to; asked on only once the trials of each round are known."""
        coarse = yield from self._coarse()
        if coarse is None:
            yield self._finished("no trial finished" if self.done else "there is no room for a trial")
            return
        fine, first = 1, coarse.epochs[min(1, len(coarse.epochs) - 1)]
        while True:
            self._narrow("coarse" if fine == 1 else _name("fine", fine - 1))
            self._correct()
            made = fine_ladder(self.asked, self.space, first, *self._left())
            if made is None:
                yield from self._final()
                yield self._finished("the limit of the search is reached")
                return
            before = len(self.done)
            yield from self._stage(_name("fine", fine), made)
            gain, doubt = self._gain(before)
            said = f"{_name('fine', fine)} is expected to bring {gain:+.3f} (± {doubt:.3f})"
            if gain <= doubt:
                self._narrow(_name("fine", fine))
                yield from self._final()
                yield self._finished(f"{said}, which is no gain beyond doubt")
                return
            fine += 1

    def _left(self) -> tuple[float, float]:
        """Epochs and trials that are left, what is kept for the finalists apart."""
        epochs = math.inf if self.asked.budget_epochs is None else self.asked.budget_epochs - self.spent
        trials = math.inf if self.asked.trials is None else self.asked.trials - self.number
        return epochs - self.kept[0], trials - self.kept[1]

    def _final(self) -> Iterator[Round]:
        """The best runs of all stages go on to full length, by halving: short runs do not tell them apart for certain.

        They favour higher rates than long trainings bear, and do not show what decay and dropout do.
        """
        self._correct()
        if not self.kept[0]:
            return
        self.kept = 0.0, 0.0
        epochs, trials = self._left()
        order = ranked(self.done, self.explored)
        reached = [self.done[i].epochs for i in order]
        made = finalists(
            reached, longest=min(LAST, self.asked.longest), epochs=epochs, trials=trials, least=FINALISTS,
            most=MOST_FINALISTS,
        )  # fmt: skip
        if made is not None:
            yield from self._rungs(FINAL, made, 0)

    def _coarse(self) -> Generator[Round, None, Ladder | None]:
        for attempt in range(1, TRIES + 1):
            made = coarse_ladder(self.asked, *self._left())
            if made is None:
                return None
            stage = _name("coarse", attempt)
            if attempt == 1 and self.asked.time is not None and self.asked.sampler != "grid":
                made = yield from self._paced(stage, made)
            else:
                yield from self._begin(stage, made)
            yield from self._rungs(stage, made, 1)
            if any(trial.score is not None for trial in self.done):
                return made
            before = self.space
            self._narrow(stage)
            if self.space == before:
                return None
        return None

    def _paced(self, stage: str, made: Ladder) -> Generator[Round, None, Ladder]:
        """The first rung in two parts: a few trials, then as many more as there is time for by their speed."""
        few = min(FEW, made.settings[0])
        yield from self._begin(stage, Ladder((few,), made.epochs[:1]))
        if self._correct() is not None:
            epochs, trials = self._left()
            made = anew(self.asked, made, few, epochs + self.spent, trials + self.number, self.spent)
        if made.settings[0] > few:
            self.reason = "the first rung goes on"
            yield from self._begin(stage, Ladder((made.settings[0] - few,), made.epochs[:1]))
            if self._correct() is False:
                made = fewer_rungs(made, self._left()[0])
        return made

    def _correct(self) -> bool | None:
        """Count the epochs of the budget anew, by the speed of the trials since it was last counted.

        Whether there are more of them now; None where they stay as they were.
        """
        fresh, self.measured = self.done[self.measured :], len(self.done)
        found = corrected(self.asked, self.done, fresh, self.spent)
        if found is None:
            return None
        self.asked = found.asked
        self.kept = for_finalists(self.asked)
        self.corrections.append(found.reason)
        return found.raised

    def _stage(self, stage: str, made: Ladder) -> Iterator[Round]:
        yield from self._begin(stage, made)
        yield from self._rungs(stage, made, 1)

    def _begin(self, stage: str, made: Ladder) -> Iterator[Round]:
        """The first rung."""
        for tasks in self._first_rung(stage, made):
            yield self._round(stage, 0, tasks, self.reason)
            self._take(tasks)

    def _rungs(self, stage: str, made: Ladder, first: int) -> Iterator[Round]:
        """The rungs from `first` on: of the runs there are, the best go on."""
        for rung in range(first, len(made.settings)):
            tasks = self._promoted(stage, made, rung)
            if tasks:
                numbers = ", ".join(str(task.continues) for task in tasks)
                said = f"the best of {len(self.done)} trials go on to {made.epochs[rung]:.3g} epochs: trials {numbers}"
                yield self._round(stage, rung, tasks, said)
                self._take(tasks)

    def _round(self, stage: str, rung: int, tasks: Sequence[Task], reason: str) -> Round:
        findings, self.findings = tuple(self.findings), []
        said, self.corrections = "; ".join([*self.corrections, reason]), []
        return Round(stage, rung, tuple(tasks), self.space, said, findings)

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
        given = [] if self.done else list(self.asked.first[: made.settings[0]])
        drawn = made.settings[0] - len(tasks) - len(given)
        if self.asked.sampler == "grid" and drawn:
            drawn = len(grid(self.space, drawn))
        if drawn:
            self.reason += f"; {drawn} {'setting is' if drawn == 1 else 'settings are'} {DRAWN[self.asked.sampler]}"
        seen = {_key(trial.settings) for trial in self.done} | {_key(task.settings) for task in tasks}
        for place in range(-len(given), drawn):
            start = given[place + len(given)] if place < 0 else None
            settings = self._new_settings(seen, start, place, drawn)
            if settings is None:
                continue
            seen.add(_key(settings))
            tasks.append(self._task(stage, settings, made.epochs[0], 0))
            if self.asked.sampler == "tpe" and len(tasks) >= TPE_BATCH:
                yield tasks
                tasks = []
        if tasks:
            yield tasks

    def _new_settings(
        self, seen: set[Any], given: Mapping[str, Any] | None, place: int, count: int
    ) -> dict[str, Any] | None:
        """Settings that were not run yet; None where there seem to be none, as in a space of a few choices."""
        for again in range(ATTEMPTS):
            settings = settings_of(
                self.asked.sampler if given is None else "random",
                self.space,
                seed=self.asked.seed,
                number=self.number,
                trials=self.done,
                given=given,
                place=max(0, place),
                count=max(1, count),
                again=again,
            )
            if _key(settings) not in seen:
                return settings
        return None

    def _carried(self, stage: str, made: Ladder) -> list[Task]:
        """The first settings given and the best so far go on in the new stage, so that all are judged alike."""
        order = ranked(self.done, self.explored)
        begun = [i for i in order if self.asked.first and self._origin(self.done[i]) == 0]
        places = list(dict.fromkeys([*begun, *order[:1]]))[: made.settings[0]]
        return [self._continued(stage, self.done[i], made, 0) for i in places if self.done[i].epochs < made.epochs[0]]

    def _promoted(self, stage: str, made: Ladder, rung: int) -> list[Task]:
        """The best runs so far that have come as far as the rung below; those among them that are long enough stay."""
        reached = made.epochs[rung - 1] * (1 - 1e-9) if rung else 0.0
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
        found = expectations(self.done, self.explored)
        fresh = {trial.number for trial in self.done[before:]}
        ends = ranked_by(self.done, found.each)
        new = [i for i in ends if self._origin(self.done[i]) in fresh]
        old = [i for i in ends if self._origin(self.done[i]) not in fresh]
        if not new or not old:
            return (0.0, 0.0) if not new else (math.inf, 0.0)
        return found.lead(new[0], old[0])

    def _finished(self, reason: str) -> Finished:
        order = ranked(self.done, self.explored)
        longest = max((self.done[i].epochs for i in order), default=0.0)
        # Who did not come into the final has lost it.
        length = longest if any(trial.stage == FINAL for trial in self.done) else longest / ETA
        long = [self.done[i] for i in order if self.done[i].epochs >= length * (1 - 1e-9)]
        # Where every run broke off in the end, the best of what it had come to is all there is.
        best = front_runner(long, min(LAST, self.asked.longest)) if long else best_trial(self.done, self.explored)
        return Finished(reason, tuple(self.findings), best)


def front_runner(runs: Sequence[Trial], full: float) -> Trial:
    """The first of the runs; where it is one of several of `full` epochs, the one that scored higher beyond doubt.

    runs: by expected score, to which shorter runs, their own and their neighbours', have added. What they have come to
    at full length says more, where it is clear.
    """
    first = runs[0]
    if first.epochs < full * (1 - 1e-9):
        return first
    best = max((run for run in runs if run.epochs >= first.epochs), key=lambda run: run.score or 0.0)
    gain = (best.score or 0.0) - (first.score or 0.0)
    return best if gain > math.hypot(best.error, first.error) else first


def hull(a: Kind, b: Kind) -> Kind:
    """The range that holds both; where one is a choice or fixed, the first."""
    if isinstance(a, Integer) and isinstance(b, Integer):
        return replace(a, low=min(a.low, b.low), high=max(a.high, b.high))
    if isinstance(a, LogUniform | Uniform) and isinstance(b, LogUniform | Uniform):
        return replace(a, low=min(a.low, b.low), high=max(a.high, b.high))
    return a


def _key(settings: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(settings.items()))


def _name(stage: str, count: int) -> str:
    return stage if count == 1 else f"{stage} {count}"

"""From what the monitor, the checks and the audit said to the figures: hits, false alarms, how early.

A hit: the planted id, as a warning or an error, is first or second of the findings of warning or above, in the order
in which they are given; findings of severity info are skipped when places are counted. `still-improving` is an info
by its nature: it counts as one, and the warnings before it take places.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from faults.case import Case, Ground, Half
from faults.outcomes import Outcome
from wellfit.diagnosis.history import History
from wellfit.findings import Finding
from wellfit.inference.metrics import wilson_interval

Judge = Callable[[History], tuple[list[Finding], dict[str, str]]]

PLACES = 2
EVERY = 10
INFO_COUNTS = {"still-improving"}
# Who is to see which id (the ids that are public and stable).
STEP_BY_STEP = [
    *("nan", "exploding", "lr-too-high", "lr-too-low", "not-learning", "vanishing-gradient", "dead-relu", "saturated"),
    *("bad-initialisation", "unnormalised-input", "constant-output", "frozen-parameters", "updates-too-small"),
    *("updates-too-large", "gradients-accumulate", "double-softmax", "wrong-batchnorm-mode", "oscillating"),
    *("loss-spike", "decayed-too-early"),
]
WITH_TARGETS = ["class-collapsed", "imbalance-ignored"]
BY_EPOCH = ["labels-shuffled", "overfitting", "underfitting", "plateau", "still-improving"]
BEFORE_TRAINING = [
    *("train-val-leak", "imbalanced-classes", "train-val-mismatch", "initial-loss", "regularisation-inert"),
    *("cannot-overfit-small-sample", "gradient-wrong", "input-ignored", "batch-leak", "no-good-lr"),
]
ALL_IDS = [*STEP_BY_STEP, *WITH_TARGETS, *BY_EPOCH, *BEFORE_TRAINING]


# Shares of a healthy training at which a user might look, besides its end.
LOOKS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@dataclass(frozen=True)
class Judged:
    """One case against what was said of it at its end.

    alarms: ids of warning or above, in order. on_the_way: those that a healthy training had at any of LOOKS before its
    end, whatever was said in the end. hit: whether the planted id counts as named; undecided: it was not
    named, and what judges it said that it lacked something. named_at: share of the run after which it was first
    named, 1 or below; None where never, and for checks and audits. healthy: False where a healthy case missed its
    `at_least`. error: the last line of what a case died of.
    """

    name: str
    fault: str
    ground: Ground
    half: Half
    alarms: tuple[str, ...] = ()
    on_the_way: tuple[str, ...] = ()
    hit: bool = False
    undecided: bool = False
    named_at: float | None = None
    healthy: bool = True
    error: str = ""
    seconds: float = 0.0


def counted(findings: Iterable[Finding], fault: str = "") -> list[str]:
    """Ids that take a place, in order: warnings and errors, and the planted id where an info counts."""
    return [f.id for f in findings if f.severity != "info" or (f.id == fault and fault in INFO_COUNTS)]


def named(findings: Iterable[Finding], fault: str) -> bool:
    """Whether the planted id is first or second."""
    return fault in counted(findings, fault)[:PLACES]


def first_named(history: History, fault: str, judge: Judge, every: int = EVERY) -> float | None:
    """Share of the run after which the id was first named, asked every `every` steps and at the end; None: never."""
    steps = len(history.losses)
    for step in [*range(every, steps, every), steps]:
        if named(judge(history.until(step))[0], fault):
            return step / steps
    return None


def said_on_the_way(history: History, judge: Judge) -> tuple[str, ...]:
    """Ids of warning or above that were said at any of LOOKS, by what was known then."""
    steps = [int(share * len(history.losses)) for share in LOOKS]
    return tuple(sorted({name for step in steps if step for name in counted(judge(history.until(step))[0])}))


def judge_outcome(case: Case, half: Half, outcome: Outcome, judge: Judge) -> Judged:
    """Judge what the case gave by the rules as they are now."""
    findings: Sequence[Finding] = outcome.findings
    unjudged: dict[str, str] = {}
    named_at, healthy = None, True
    on_the_way: tuple[str, ...] = ()
    if outcome.error:
        last = outcome.error.strip().splitlines()[-1]
        return Judged(case.name, case.fault, case.ground, half, healthy=False, error=last, seconds=outcome.seconds)
    if outcome.watched is not None:
        findings, unjudged = judge(outcome.watched.history)
        if case.fault:
            named_at = first_named(outcome.watched.history, case.fault, judge)
        else:
            on_the_way = said_on_the_way(outcome.watched.history, judge)
        healthy = case.at_least is None or outcome.watched.validation_accuracy >= case.at_least
    hit = bool(case.fault) and named(findings, case.fault)
    return Judged(
        name=case.name,
        fault=case.fault,
        ground=case.ground,
        half=half,
        alarms=tuple(counted(findings)),
        on_the_way=on_the_way,
        hit=hit,
        undecided=not hit and case.fault in unjudged,
        named_at=named_at,
        healthy=healthy,
        seconds=outcome.seconds,
    )


@dataclass(frozen=True)
class Row:
    """The figures of one planted id. Undecided cases are misses too. named_at: median share of the run; a training
    in which the id was never named counts as 1, and None says that no case is a training."""

    fault: str
    cases: int
    hits: int
    undecided: int
    named_at: float | None

    @property
    def misses(self) -> int:
        return self.cases - self.hits

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.hits, self.cases)


def rows(judged: Iterable[Judged]) -> list[Row]:
    """One row a planted id, in the order of `ALL_IDS`; ids that no case plants have none."""
    by_fault: dict[str, list[Judged]] = {}
    for case in judged:
        if case.fault:
            by_fault.setdefault(case.fault, []).append(case)
    order = {fault: place for place, fault in enumerate(ALL_IDS)}
    return [
        Row(fault, len(cases), sum(c.hit for c in cases), sum(c.undecided for c in cases), _median(cases))
        for fault, cases in sorted(by_fault.items(), key=lambda item: order.get(item[0], len(order)))
    ]


def _median(cases: Iterable[Judged]) -> float | None:
    shares = [1.0 if c.named_at is None else c.named_at for c in cases if c.ground == "training"]
    return median(shares) if shares else None


@dataclass(frozen=True)
class Alarms:
    """False alarms on the healthy cases of one ground: how many cases had any, and which ids."""

    ground: Ground
    cases: int
    alarmed: int
    ids: Counter[str]

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.alarmed, self.cases)


def alarms(judged: Iterable[Judged]) -> list[Alarms]:
    """By ground, those that have healthy cases."""
    found = []
    healthy = [case for case in judged if not case.fault]
    grounds: tuple[Ground, ...] = ("training", "check", "audit")
    for ground in grounds:
        cases = [case for case in healthy if case.ground == ground]
        if cases:
            ids = Counter(name for case in cases for name in set(case.alarms))
            found.append(Alarms(ground, len(cases), sum(bool(case.alarms) for case in cases), ids))
    return found


def alarms_on_the_way(judged: Iterable[Judged]) -> Alarms:
    """The healthy trainings of which anything was said at any of LOOKS or at the end."""
    cases = [case for case in judged if not case.fault and case.ground == "training"]
    said = [set(case.alarms) | set(case.on_the_way) for case in cases]
    return Alarms("training", len(cases), sum(map(bool, said)), Counter(name for ids in said for name in ids))


@dataclass(frozen=True)
class Bound:
    """A figure that the benchmark must show."""

    text: str
    value: float
    met: bool


def bounds(judged: Sequence[Judged], *, whole: bool = True) -> list[Bound]:
    """The bounds that have cases to be judged on. whole: every public id must have cases, not only those that do."""
    found: list[Bound] = []
    table = rows(judged)
    if table:
        cases, hits = sum(row.cases for row in table), sum(row.hits for row in table)
        found.append(Bound("share of sick cases named, at least 0.95", hits / cases, hits / cases >= 0.95))
        wanted = set(ALL_IDS) if whole else {row.fault for row in table}
        empty = wanted - {row.fault for row in table if row.hits}
        found.append(Bound("ids without a hit, 0", len(empty), not empty))
        shares = [1.0 if c.named_at is None else c.named_at for c in judged if _step_by_step(c)]
        if shares:
            found.append(Bound("median share of a run until named, below 0.20", median(shares), median(shares) < 0.2))
    for row in alarms(judged):
        share = row.alarmed / row.cases
        found.append(Bound(f"share of healthy {row.ground}s with an alarm, at most 0.03", share, share <= 0.03))
    lacking = sum(not case.healthy for case in judged)
    found.append(Bound("cases that failed, or healthy ones that did not learn, 0", lacking, not lacking))
    return [bound for bound in found if not math.isnan(bound.value)]


def _step_by_step(case: Judged) -> bool:
    return case.ground == "training" and case.fault in STEP_BY_STEP

"""Find a learning rate at which the loss falls clearly within about a hundred iterations (SPEC row C6)."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wellfit.checks.result import CheckResult
from wellfit.checks.sandbox import Context, Criterion, copy_of, own_randomness, scores
from wellfit.errors import UserError
from wellfit.findings import Finding, GateFailed, Severity

CANDIDATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
CLEAR_FALL = 0.03  # share of the starting loss
ROUNDS = 4
KEPT = (None, 4, 2)  # how many candidates go on after the first, second and third round; None: all that are finite
FEWEST_STEPS = 10  # below this nothing is concluded
# A fall beyond so many standard errors has begun: it is given as many iterations again, so often.
BEGUN, AGAIN = 5.0, 3


@dataclass
class Candidate:
    """One learning rate on a copy of its own."""

    lr: float
    network: nn.Module
    optimizer: torch.optim.Optimizer
    losses: list[float] = field(default_factory=list)
    alive: bool = True

    @property
    def tail(self) -> list[float]:
        """The last quarter of the losses: early spikes do not count."""
        return self.losses[self.last_quarter.start :]

    @property
    def last_quarter(self) -> range:
        """The iterations of the tail."""
        done = len(self.losses)
        return range(max(0, done - max(3, done // 4)), done)

    @property
    def score(self) -> float:
        """Median loss of the tail; infinite where any of it is not finite, and before the first step."""
        return statistics.median(self.tail) if self.losses and all(map(math.isfinite, self.tail)) else math.inf


def lr_range(
    module: nn.Module,
    criterion: Criterion,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    optimizer: Callable[[nn.Module, float], torch.optim.Optimizer],
    *,
    candidates: Sequence[float] = CANDIDATES,
    iterations: int = 100,
    context: Context = contextlib.nullcontext,
    deadline: float | None = None,
    any_rate: bool = False,
    seed: int = 0,
) -> CheckResult:
    """Train a copy at each candidate rate on the same batches and take the rate with the lowest loss at the end.

    batches(i): inputs and targets of iteration i, the same at every call. optimizer(module, lr): the run's optimizer.
    deadline: on time.monotonic's scale; what was seen by then decides, if it was enough (`finished` is False then).
    value: the rate, None when at no rate the loss falls clearly. A round of a quarter of the iterations at a time,
    the worst candidates are left behind; each candidate's loss is its median over its last quarter. Where none falls
    clearly but some have begun to, beyond chance, these get three times as many iterations again.
    any_rate: end with the first round, of the second on, after which the loss falls clearly at some rate.
    """
    if not candidates or min(candidates) <= 0 or iterations < FEWEST_STEPS:
        raise UserError(
            f"a range of learning rates needs positive rates and at least {FEWEST_STEPS} iterations, "
            f"got {list(candidates)} and {iterations}; 1e-1 to 1e-5 and 100 are usual"
        )
    begun = time.monotonic()
    runs = []
    for lr in candidates:
        network = copy_of(module).train()
        runs.append(Candidate(lr, network, optimizer(network, lr)))
    finished = True
    with own_randomness(module, seed, "no-good-lr"):
        start = Start(copy_of(module).train(), criterion, batches, context)
        for turn in range(ROUNDS):
            steps = range(iterations * turn // ROUNDS, iterations * (turn + 1) // ROUNDS)
            finished = _advance([r for r in runs if r.alive], criterion, batches, steps, context, deadline)
            alive = sorted((r for r in runs if r.alive and math.isfinite(r.score)), key=lambda r: r.score)
            keep = alive[: KEPT[turn]] if turn < len(KEPT) else alive
            for run in runs:
                run.alive = any(run is kept for kept in keep)
            settled = any_rate and turn > 0 and any(_falls_clearly(r, start) for r in keep)
            if not finished or not keep or settled:
                break
        # A deep network of default weights stands for a while before its loss falls.
        for turn in range(1, AGAIN + 1):
            slow = [r for r in runs if r.alive and _has_begun(r, start)]
            if not finished or not slow or any(_falls_clearly(r, start) for r in runs if r.alive):
                break
            steps = range(iterations * turn, iterations * (turn + 1))
            finished = _advance(slow, criterion, batches, steps, context, deadline)
        return _conclude(runs, start, finished, begun)


@dataclass(frozen=True)
class FoundRate:
    """A learning rate, and in words what it did."""

    lr: float
    reason: str


def find_lr(
    module: nn.Module,
    criterion: Criterion,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    optimizer: Callable[[nn.Module, float], torch.optim.Optimizer],
    **options: Any,
) -> FoundRate:
    """The rate at which a copy learns quickest, with the reason; arguments as for `lr_range`.

    Raises GateFailed where none works, or none could be told in time: its finding says in words what was seen.
    Neither the module, nor an optimizer of it, nor any random state is changed.
    """
    result = lr_range(module, criterion, batches, optimizer, **options)
    if result.value is None:
        assert result.finding is not None
        raise GateFailed([result.finding])
    return FoundRate(float(result.value), result.message)


class Start:
    """The untouched network's loss on any batch: a fall is measured on the batches that it is seen on."""

    def __init__(
        self,
        network: nn.Module,
        criterion: Criterion,
        batches: Callable[[int], tuple[Tensor, Tensor]],
        context: Context,
    ) -> None:
        self.network, self.criterion, self.batches, self.context = network, criterion, batches, context
        self._known: dict[int, float] = {}

    def losses(self, steps: range) -> list[float]:
        """One a batch."""
        return [self._on(step) for step in steps]

    @torch.no_grad()
    def _on(self, step: int) -> float:
        if step not in self._known:
            inputs, targets = self.batches(step)
            with self.context():
                self._known[step] = float(self.criterion(scores(self.network, inputs), targets))
        return self._known[step]


def _advance(
    runs: list[Candidate],
    criterion: Criterion,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    steps: range,
    context: Context,
    deadline: float | None,
) -> bool:
    # Step by step over all candidates, so that each batch is made once and a deadline finds them level.
    for i in steps:
        if deadline is not None and time.monotonic() >= deadline:
            return False
        inputs, targets = batches(i)
        for run in runs:
            if run.losses and not math.isfinite(run.losses[-1]):
                continue
            with context():
                loss = criterion(scores(run.network, inputs), targets)
            run.losses.append(float(loss.detach()))
            if math.isfinite(run.losses[-1]):
                loss.backward()
                run.optimizer.step()
                run.optimizer.zero_grad()
    return True


def _conclude(runs: list[Candidate], before: Start, finished: bool, begun: float) -> CheckResult:
    judged = [r for r in runs if r.alive and len(r.losses) >= FEWEST_STEPS]
    best = min(judged, key=lambda r: r.score, default=None)
    start = statistics.median(before.losses(range(3) if best is None else best.last_quarter))
    falls = best is not None and _falls_clearly(best, before)
    seconds = time.monotonic() - begun
    table = [{"lr": r.lr, "steps": len(r.losses), "loss": r.losses[-1] if r.losses else None} for r in runs]
    evidence = {"start": start, "candidates": table, "clear_fall": CLEAR_FALL}
    if best is not None and falls:
        fall = f"from {start:.4g} to {best.score:.4g} within {len(best.losses)} iterations"
        message = f"at lr {best.lr:g} the loss falls {fall}"
        if len(runs) > 1 and best.lr in (max(r.lr for r in runs), min(r.lr for r in runs)):
            message += ", which lies at the edge of the rates tried"
        return CheckResult("no-good-lr", True, best.lr, None, message, None, seconds, finished)
    severity: Severity = "error" if finished else "warning"
    rates = f"{min(r.lr for r in runs):g} to {max(r.lr for r in runs):g}"
    if not finished and best is None:
        message = f"ran out of time before the loss could tell rates of {rates} apart"
        action = "give it a larger budget, or set the learning rate"
    else:
        lost = sum(not math.isfinite(r.score) for r in runs)
        seen = f"lowest {best.score:.4g} at lr {best.lr:g}" if best is not None else "not finite at any of them"
        seen += f"; {lost} of {len(runs)} diverged"
        message = f"at no rate of {rates} does the loss fall clearly from {start:.4g} ({seen})"
        action = "check input scale and initialisation, then try rates below and above"
    finding = Finding("no-good-lr", severity, message, evidence, action, "SPEC C6")
    return CheckResult("no-good-lr", False, None, None, message, finding, seconds, finished)


def _falls_clearly(run: Candidate, start: Start) -> bool:
    """Beyond both a share of the start and twice the standard error of the mean fall."""
    fall, error = _fall(run, start)
    return fall > max(CLEAR_FALL * abs(statistics.median(start.losses(run.last_quarter))), 2.0 * error)


def _has_begun(run: Candidate, start: Start) -> bool:
    """Beyond chance, be it by a little only."""
    fall, error = _fall(run, start)
    return fall > BEGUN * error > 0


def _fall(run: Candidate, start: Start) -> tuple[float, float]:
    """The median fall over the last quarter, batch by batch, and the standard error of the mean."""
    before = start.losses(run.last_quarter)
    falls = [b - now for b, now in zip(before, run.tail, strict=True)]
    error = statistics.stdev(falls) / math.sqrt(len(falls)) if len(falls) > 1 else 0.0
    return statistics.median(falls), error

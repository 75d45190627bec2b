"""The gradient check: the analytic gradient against central differences, in float64 (SPEC row C1).

Along a direction d the loss f has the slope g·d by the formula and (f(x + hd) − f(x − hd)) / 2h by differences. Random
signs, scaled to each tensor, make d: any wrong entry shows in nearly every such direction, so that a network is checked
by a few passes for each of its tensors; the entry at fault is then found by halving the direction.

**The kink rule.** Within a step of a point where a ReLU switches, both answers are right and differ. Differences over h
and over h/2 then disagree among themselves: the central ones, or the gap between the two one-sided ones, which halves
with the step for a smooth function and does not at a kink. Such a step is not trusted, and a smaller one is tried; a
point that lies on the kink itself is never trusted, and is set aside and counted.

**Steps.** Where the loss does not change by a single bit to either side, at any distance, the network rounds there
(signs, quantization) and passes on a gradient of its own making, which no difference can confirm: set aside as well.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from wellfit.checks.result import CheckResult
from wellfit.checks.sandbox import Criterion, copy_of, own_randomness, scores, without_noise
from wellfit.checks.surface import Surface
from wellfit.errors import UserError
from wellfit.findings import Finding
from wellfit.randomness import generator

STEPS = (1e-6, 3e-8, 1e-9)  # of a tensor's own size: each closer to the point, and noisier
ROUNDING = 100 * float(np.finfo(np.float64).eps)  # of the loss: what a pass through a deep network loses
NOISE_SHARE = 1e-2  # of the slope: a step at which rounding is more than this decides nothing
TRUST = 0.1  # differences that disagree among themselves by this share of their disagreement with the formula
TOLERANCE = 1e-6
GATE_SECONDS = 10.0
KINKS = 2  # entries on a kink that are taken out of a direction before it is set aside
REFERENCE = "CS231n, gradient checks; SPEC C1"

Verdict = Literal["agrees", "wrong", "set aside"]


@dataclass(frozen=True)
class Disagreement:
    """The largest relative error |a − n| / max(|a|, |n|) that was seen.

    name: of the parameter, or "input". flat_index, index: the entry, where there is one; None for a direction.
    analytic, numeric: both slopes, along the entry or the direction.
    """

    name: str
    relative_error: float
    analytic: float
    numeric: float
    flat_index: int | None = None
    index: tuple[int, ...] | None = None


@dataclass(frozen=True)
class GradientCheck:
    """What `gradient_check` saw.

    passed: at least one direction (or entry) was checked, and none is wrong.
    checked, set_aside: directions (or entries) that could be judged, and that lie on a kink or below the rounding.
    undecided: parameters of which nothing could be judged. finished: False where the deadline came first.
    """

    passed: bool
    worst: Disagreement | None
    checked: int
    set_aside: int
    undecided: tuple[str, ...]
    finding: Finding | None
    finished: bool = True

    @property
    def message(self) -> str:
        """One sentence with the numbers."""
        if self.finding is not None:
            return self.finding.message
        text = f"{self.checked} slopes agree with differences"
        if self.worst is not None:
            text += f", to {self.worst.relative_error:.1g} at worst"
        if self.set_aside:
            text += f"; {self.set_aside} set aside, on a kink or below rounding"
        return text

    def __str__(self) -> str:
        return self.message


def gradient_check(
    module_or_loss: Callable[..., Any],
    inputs: Any,
    *,
    every_entry: bool = False,
    directions: int = 1,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    deadline: float | None = None,
) -> GradientCheck:
    """Compare the gradient of a module or a loss with central differences, in float64 and on copies.

    module_or_loss: called with `inputs`; an output that is no scalar is summed with fixed random weights. A module is
        checked in the mode it is in, BatchNorm's too; running statistics are put back after each pass.
    inputs: a tensor, or a tuple of tensors, modules (whose parameters are checked) and other arguments. Floating-point
        tensors are checked as well, under the names "input", "input 1", …
    every_entry: each entry by itself, two passes or more for each; the default looks along random directions.
    directions: how many for each tensor.
    tolerance: of the relative error, beside what rounding allows.
    deadline: on time.monotonic's scale.

    Raises UserError where the forward pass is random, is not finite, or does not run in float64.

    >>> from torch import nn
    >>> gradient_check(nn.Linear(3, 2), torch.ones(4, 3)).passed
    True
    """
    if directions < 1 or not tolerance > 0:
        raise UserError(
            f"a gradient check takes directions from 1 and a tolerance above 0, got {directions} and {tolerance}; "
            "leave them out for 1 and 1e-6"
        )
    if not callable(module_or_loss):
        raise UserError(
            f"a gradient check takes a module or a function of the inputs, got {type(module_or_loss).__name__}; "
            "give one of these"
        )
    watched = module_or_loss if isinstance(module_or_loss, nn.Module) else nn.Identity()
    with own_randomness(watched, seed, "gradient"):
        surface = Surface(module_or_loss, inputs, seed)
        search = _Search(surface, tolerance)
        finished = True
        for start, direction in _directions(surface, every_entry, directions, seed):
            if deadline is not None and time.monotonic() > deadline:
                finished = False
                break
            if search.judge(start, direction) == "wrong":
                break
        return search.result(finished)


def gradients_agree(
    module: nn.Module,
    inputs: Tensor,
    targets: Tensor | None = None,
    *,
    criterion: Criterion | None = None,
    deadline: float | None = None,
    seed: int = 0,
) -> CheckResult:
    """The gate: one direction for each tensor, in random order, for ten seconds at most.

    inputs: a few images. Dropout and its like are off, BatchNorm runs by the batch. A network that cannot be run in
    float64, or is random all the same, is left undecided, and the message says why.
    targets, criterion: a loss whose gradient in the scores is checked too, after the network's.
    value: the largest relative error, expected: what is allowed.
    """
    begun = time.monotonic()
    until = begun + GATE_SECONDS if deadline is None else min(deadline, begun + GATE_SECONDS)
    network = without_noise(copy_of(module))
    seen: list[GradientCheck] = []
    refusals: list[str] = []
    subjects: list[tuple[nn.Module, Tensor]] = [(network, inputs)]
    if criterion is not None and targets is not None:
        with torch.no_grad(), own_randomness(network, seed, "gradient"):
            subjects.insert(0, (Loss(criterion, targets), scores(copy_of(network), inputs)))  # the cheaper one first
    for subject, at in subjects:
        try:
            seen.append(gradient_check(subject, at, seed=seed, deadline=until))
        except UserError as refusal:
            refusals.append(str(refusal))
        if seen and seen[-1].finding is not None:
            break
    finding = seen[-1].finding if seen else None
    passed = finding is None and not refusals and all(part.checked > 0 for part in seen)
    largest = max((part.worst.relative_error for part in seen if part.worst is not None), default=None)
    told = [seen[-1].message] if finding is not None else [part.message for part in seen] + refusals
    if finding is None and not all(part.finished for part in seen):
        told.append("the time was up before all were looked at")
    return CheckResult(
        "gradient-wrong",
        passed,
        largest,
        TOLERANCE if seen else None,
        "; ".join(told),
        finding,
        time.monotonic() - begun,
        finished=passed or finding is not None,
    )


class Loss(nn.Module):
    """A criterion as a function of the scores alone. targets: fixed; shares of classes in float64."""

    def __init__(self, criterion: Criterion, targets: Tensor) -> None:
        super().__init__()
        self.criterion = criterion
        self.targets = targets.double() if targets.is_floating_point() else targets

    def forward(self, outputs: Tensor) -> Tensor:
        return self.criterion(outputs, self.targets)


def _directions(surface: Surface, every_entry: bool, count: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """(start, direction) pairs: from which flat entry on, and how it moves; tensors in random order, for a deadline."""
    scales, offsets = surface.scales(), surface.offsets
    order = generator(seed, "gradient-check", "order").permutation(len(surface.tensors))
    for number in range(1 if every_entry else count):
        for i in order:
            start, length = int(offsets[i]), int(offsets[i + 1] - offsets[i])
            if every_entry:
                for k in range(length):
                    yield start + k, np.full(1, scales[i])
            else:
                draw = generator(seed, "gradient-check", number, int(i))
                yield start, scales[i] * draw.choice((-1.0, 1.0), length) * draw.uniform(0.5, 1.5, length)


class _Search:
    """Judges directions one by one and keeps the tally."""

    def __init__(self, surface: Surface, tolerance: float) -> None:
        self.surface, self.tolerance = surface, tolerance
        self.checked = self.set_aside = 0
        self.decided: set[str] = set()
        self.worst: Disagreement | None = None
        self.wrong = False
        self.step = STEPS[0]

    def judge(self, start: int, direction: np.ndarray) -> Verdict:
        """One direction by the kink rule, counted.

        Kinks with jumps of both signs can hide each other in the sum of a direction. So a direction counts as wrong
        only where a single entry is; an entry that turns out to lie on a kink is taken out and the rest judged again.
        """
        for _ in range(KINKS):
            verdict, seen = self._compare(start, direction)
            if verdict != "wrong" or len(direction) == 1:
                break
            flat = self._localise(start, direction)
            verdict, entry = self._compare(flat, direction[flat - start : flat - start + 1])
            if verdict == "wrong":
                seen = entry
                break
            verdict, direction = "set aside", direction.copy()
            direction[flat - start] = 0.0
        if verdict == "set aside":
            self.set_aside += 1
            return verdict
        self.checked += 1
        self.wrong |= verdict == "wrong"
        self.decided.add(seen.name)
        if self.worst is None or seen.relative_error > self.worst.relative_error or verdict == "wrong":
            self.worst = seen
        return verdict

    def _compare(self, start: int, direction: np.ndarray) -> tuple[Verdict, Disagreement]:
        """Formula against differences, from the largest step down; agreement at any step is agreement."""
        gradient = self.surface.gradient[start : start + len(direction)]
        analytic = float(gradient @ direction)
        # Random signs can cancel by chance: the slope is then small beside its parts, and so is no measure of error.
        parts = float(np.linalg.norm(gradient * direction))
        value, verdict, found, error = self.surface.value, "set aside", math.nan, 0.0
        moved = False
        for step in STEPS:
            noise = ROUNDING * max(self.surface.size, abs(value)) / step
            up, down = self.surface.at(start, step * direction), self.surface.at(start, -step * direction)
            wide = (up - down) / (2 * step)
            scale = max(abs(analytic), abs(wide), parts)
            if step != STEPS[0] and noise > NOISE_SHARE * scale:
                break
            half, floor = step / 2, max(parts, noise / self.tolerance)
            if abs(analytic - wide) <= self.tolerance * scale + noise:
                return "agrees", self._seen(start, direction, analytic, wide, floor)
            near_up, near_down = self.surface.at(start, half * direction), self.surface.at(start, -half * direction)
            narrow = (near_up - near_down) / (2 * half)
            moved |= {up, down, near_up, near_down} != {value}
            if abs(analytic - narrow) <= self.tolerance * scale + 2 * noise:
                return "agrees", self._seen(start, direction, analytic, narrow, 2 * floor)
            gap, near_gap = (up - 2 * value + down) / step, (near_up - 2 * value + near_down) / half
            doubt = max(abs(wide - narrow), abs(gap - 2 * near_gap))
            if doubt <= TRUST * abs(analytic - narrow) and verdict == "set aside":
                verdict, found, error, self.step = "wrong", narrow, parts, half
        wrong = verdict == "wrong" and moved
        return ("wrong" if wrong else "set aside"), self._seen(start, direction, analytic, found, error)

    def _seen(self, start: int, direction: np.ndarray, analytic: float, numeric: float, floor: float) -> Disagreement:
        # The floor keeps what is zero but for rounding from counting as an error of 100 %.
        name, flat, index = self.surface.place(start)
        error = abs(analytic - numeric) / max(abs(analytic), abs(numeric), floor, 1e-300)
        if len(direction) > 1:
            return Disagreement(name, error, analytic, numeric)
        unit = float(direction[0])
        return Disagreement(name, error, analytic / unit, numeric / unit, flat, index)

    def _localise(self, start: int, direction: np.ndarray) -> int:
        """Halve a direction that is wrong, always keeping the half with the larger error, down to one entry."""
        while len(direction) > 1:
            middle = len(direction) // 2
            halves = [(start, direction[:middle]), (start + middle, direction[middle:])]
            errors = [self._error(*half) for half in halves]
            start, direction = halves[int(np.argmax(errors))]
        return start

    def _error(self, start: int, direction: np.ndarray) -> float:
        analytic = float(self.surface.gradient[start : start + len(direction)] @ direction)
        up, down = self.surface.at(start, self.step * direction), self.surface.at(start, -self.step * direction)
        return abs(analytic - (up - down) / (2 * self.step))

    def result(self, finished: bool) -> GradientCheck:
        undecided = tuple(name for name, _ in self.surface.tensors if name not in self.decided)
        finding = None
        if self.wrong and self.worst is not None:
            worst = self.worst
            place = "" if worst.index is None else f"{list(worst.index)} (flat index {worst.flat_index})"
            finding = Finding(
                "gradient-wrong",
                "error",
                f"the gradient of {self.surface.name} at {worst.name}{place} is {worst.analytic:.6g} by its formula "
                f"and {worst.numeric:.6g} by differences, a relative error of {worst.relative_error:.2g}",
                {"module": self.surface.name, **dataclasses.asdict(worst)},
                f"compare the backward pass behind {worst.name} with its formula, one term at a time",
                REFERENCE,
            )
        passed = finding is None and self.checked > 0 and finished
        return GradientCheck(
            passed, self.worst, self.checked, self.set_aside, () if self.wrong else undecided, finding, finished
        )

"""Learning-rate schedules: pure functions of progress t in [0, 1] to a multiplier of the base rate (SPEC row O9).

t = step / steps, so the same schedule serves any length of training; the first step has t = 0 and the state after
the last one t = 1. What courses give in epochs is a fraction here: a drop at epoch 30 of 90 is `at=(1/3,)`.
Progress beyond the ends counts as the end. `Plateau` stands apart: it looks at validation and not at t, and its
multiplier is a factor beside the schedule's.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from wellfit.dotted import is_dotted, load_dotted
from wellfit.errors import UserError, unknown_name

Schedule = Callable[[float], float]

# Restarts and drops fall on steps: 0.3 as 27/90 must not miss 0.3 by its last bit.
_LAST_BIT = 1e-9


def schedule(name: str, **options: Any) -> Schedule:
    """The schedule of that name in SCHEDULES, or the user's own by `package.module:name`, with its options set.

    "warmup+NAME" puts a linear warm-up before any of them, with options `warmup` (share of the training, 0.05; for the
    usual count of about 5,000 steps see `warmup_share`) and `warmup_start` (multiplier at its first step, 0). "plateau"
    is constant here, as a function of progress: what lowers it is the rule of `plateau_of`. Raises UserError for
    unknown names, options and values.

    >>> [schedule("cosine")(t) for t in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    >>> schedule("warmup+cosine", warmup=0.1)(0.05)
    0.5
    """
    if name.startswith("warmup+"):
        warmup, start = options.pop("warmup", 0.05), options.pop("warmup_start", 0.0)
        if not (0.0 < warmup < 1.0 and 0.0 <= start <= 1.0):
            raise UserError(
                f"a warm-up takes a share between 0 and 1 of the training, got {warmup} from {start}; try 0.05"
            )
        inner = schedule(name.removeprefix("warmup+"), **options)
        return functools.partial(_warm_up, inner=inner, share=warmup, start=start)
    if is_dotted(name):
        function = load_dotted(name, "schedule")
    elif name not in SCHEDULES:
        raise unknown_name("schedule", name, [*SCHEDULES, "warmup+cosine"])
    else:
        function = SCHEDULES[name]
        known = list(inspect.signature(function).parameters)[1:]
        for option in options:
            if option not in known:
                raise unknown_name(f"option of schedule '{name}'", option, [*known, "warmup"])
    bound = functools.partial(_within, function=functools.partial(function, **options))
    try:
        bound(0.0)
    except (TypeError, ValueError) as error:
        raise UserError(f"schedule '{name}' refuses its options: {error}") from error
    return bound


def constant(t: float) -> float:
    """1."""
    return 1.0


def step(t: float, at: Sequence[float] = (0.3, 0.6, 0.9), factor: float = 0.1, every: float | None = None) -> float:
    """factor^(drops so far): at the shares `at` (30, 60, 90 of 100 epochs), or at each multiple of `every`."""
    if every is not None:
        if not 0.0 < every <= 1.0:
            raise ValueError(f"every is a share of the training between 0 and 1, got {every}")
        return factor ** math.floor(t / every + _LAST_BIT)
    return factor ** sum(t >= drop - _LAST_BIT for drop in at)


def exponential(t: float, rate: float = math.log(100.0)) -> float:
    """e^(−kt), k = `rate` over the whole training; the default ends at 1/100."""
    return math.exp(-rate * t)


def inverse_time(t: float, rate: float = 9.0) -> float:
    """1/(1 + kt), k = `rate` over the whole training; the default ends at 1/10."""
    return 1.0 / (1.0 + rate * t)


def cosine(t: float, floor: float = 0.0) -> float:
    """½(1 + cos πt), raised to end at `floor`."""
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * t))


def linear(t: float, floor: float = 0.0) -> float:
    """1 − t, raised to end at `floor`."""
    return floor + (1.0 - floor) * (1.0 - t)


def inverse_sqrt(t: float, steps: float = 100.0) -> float:
    """1/√n with n counted from 1 to `steps` + 1: how many steps (or epochs) the training is counted in."""
    if steps <= 0:
        raise ValueError(f"steps is a positive count, got {steps}")
    return 1.0 / math.sqrt(1.0 + steps * t)


def one_cycle(
    t: float,
    peak: float = 0.3,
    start: float = 0.0,
    end: float = 0.0,
    shape: Literal["linear", "cosine"] = "linear",
) -> float:
    """Linear from `start` to 1 at the share `peak`, then down to `end`, linear (a triangle) or cosine (Smith 2018)."""
    if not 0.0 < peak < 1.0:
        raise ValueError(f"peak is a share of the training between 0 and 1, got {peak}")
    down = {"linear": linear, "cosine": cosine}.get(shape)
    if down is None:
        raise ValueError(f"shape is 'linear' or 'cosine', got {shape!r}")
    return start + (1.0 - start) * t / peak if t < peak else down((t - peak) / (1.0 - peak), end)


def cyclic(t: float, cycles: int = 4, growth: float = 1.0, floor: float = 0.0) -> float:
    """Cosine from 1 to `floor`, restarted; each cycle is `growth` times as long as the one before (SGDR, 2017)."""
    if cycles < 1 or growth <= 0:
        raise ValueError(f"cycles is a count from 1 and growth is positive, got {cycles} and {growth}")
    begin, length = 0.0, 1.0 / sum(growth**i for i in range(cycles))
    for _ in range(cycles - 1):
        if t < begin + length - _LAST_BIT:
            break
        begin, length = begin + length, length * growth
    return cosine(min(1.0, max(0.0, (t - begin) / length)), floor)


def _within(t: float, function: Schedule) -> float:
    return function(min(1.0, max(0.0, t)))


def _warm_up(t: float, inner: Schedule, share: float, start: float) -> float:
    # The schedule proper begins where the warm-up ends and still ends at t = 1.
    return start + (1.0 - start) * max(0.0, t) / share if t < share else inner((t - share) / (1.0 - share))


def warmup_share(steps: int, iterations: int = 5000, most: float = 0.2) -> float:
    """The option `warmup` for a linear warm-up of about 5,000 steps; of a short training at most the share `most`.

    >>> warmup_share(100_000), warmup_share(2_000)
    (0.05, 0.2)
    """
    if steps < 1 or iterations < 1 or not 0.0 < most < 1.0:
        raise UserError(
            f"a warm-up takes steps and iterations from 1 and a share between 0 and 1, got {steps}, {iterations} and "
            f"{most}; give the steps of the training alone"
        )
    return min(most, iterations / steps)


def snapshot_points(rate: Schedule) -> tuple[float, ...]:
    """Progress at which each cycle of a schedule ends, at its lowest rate: where snapshots for an ensemble are taken.

    Schedules without restarts, and the user's own, have one point, the end. Huang et al. 2017, "Snapshot ensembles".

    >>> snapshot_points(schedule("cyclic", cycles=4))
    (0.25, 0.5, 0.75, 1.0)
    >>> [round(point, 2) for point in snapshot_points(schedule("shrinking_cycles"))]
    [0.36, 0.61, 0.79, 0.91, 1.0]
    """
    if isinstance(rate, functools.partial):
        if rate.func is _warm_up:
            share = rate.keywords["share"]
            return tuple(share + (1.0 - share) * point for point in snapshot_points(rate.keywords["inner"]))
        if rate.func is _within:
            return snapshot_points(rate.keywords["function"])
        if rate.func is cyclic:
            cycles, growth = rate.keywords.get("cycles", 4), rate.keywords.get("growth", 1.0)
            lengths = [growth**i for i in range(cycles)]
            return tuple(sum(lengths[: i + 1]) / sum(lengths) for i in range(cycles))
    return (1.0,)


def scaled_lr(lr: float, batch_size: int, reference_batch_size: int) -> float:
    """`lr` was good at the reference batch: batch ×k means lr ×k, to be used with a warm-up (SPEC row O10).

    >>> scaled_lr(0.1, 1024, 256)
    0.4
    """
    if batch_size < 1 or reference_batch_size < 1:
        raise UserError(
            f"a batch has at least one image, got {batch_size} and {reference_batch_size}; give counts from 1"
        )
    return lr * batch_size / reference_batch_size


class Plateau:
    """Lowers the rate when validation has stopped improving: `multiplier` × `factor` after `patience` evaluations.

    mode: "max" for a score such as accuracy, "min" for a loss.
    threshold: the relative gain that counts as better. floor: the smallest multiplier.
    """

    def __init__(
        self,
        factor: float = 0.1,
        patience: int = 10,
        mode: Literal["max", "min"] = "max",
        threshold: float = 1e-4,
        floor: float = 0.0,
    ) -> None:
        if not 0.0 < factor < 1.0 or patience < 0 or mode not in ("max", "min"):
            raise UserError(
                f"a plateau rule takes 0 < factor < 1, patience from 0 and mode max or min, "
                f"got {factor}, {patience}, {mode!r}; try factor=0.1, patience=10"
            )
        self.factor, self.patience, self.mode, self.threshold, self.floor = factor, patience, mode, threshold, floor
        self.multiplier, self.stale = 1.0, 0
        self.best = -math.inf if mode == "max" else math.inf

    def update(self, value: float) -> float:
        """Take the newest validation figure and return the multiplier to go on with; NaN counts as no gain."""
        margin = self.threshold * (1 if self.mode == "max" else -1)
        goal = self.best * (1.0 + margin) if math.isfinite(self.best) else self.best
        if value > goal if self.mode == "max" else value < goal:
            self.best, self.stale = value, 0
        else:
            self.stale += 1
        if self.stale > self.patience:
            self.multiplier, self.stale = max(self.floor, self.multiplier * self.factor), 0
        return self.multiplier

    def state_dict(self) -> dict[str, float]:
        return {"multiplier": self.multiplier, "stale": self.stale, "best": self.best}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.multiplier, self.stale, self.best = state["multiplier"], int(state["stale"]), state["best"]


def plateau_of(name: str) -> Plateau | None:
    """The rule behind "plateau" and "warmup+plateau", with a tenth after 5 evaluations without gain; else None."""
    return Plateau(patience=5) if name.removeprefix("warmup+") == "plateau" else None


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "inverse_time": inverse_time,
    "1/t": inverse_time,
    "cosine": cosine,
    "linear": linear,
    "inverse_sqrt": inverse_sqrt,
    "one_cycle": one_cycle,
    "cyclic": cyclic,
    # The first cycle learns, the later ones leave what it found and find another: snapshots of about one quality.
    "shrinking_cycles": functools.partial(cyclic, cycles=5, growth=0.7),
    "plateau": constant,
}

"""The settings that a search may vary: what each one is, and the values that make sense (SPEC S1, S2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from wellfit.config import BALANCES
from wellfit.errors import UserError, unknown_name
from wellfit.search.kinds import Choice, Fixed, Integer, Kind, LogUniform
from wellfit.search.space import Space, values_of


def _optimizer(name: str) -> None:
    from wellfit.training.optimizers import check_optimizer_name

    check_optimizer_name(name)


def _schedule(name: str) -> None:
    from wellfit.training.schedules import schedule

    schedule(name)


def _balance(name: str) -> None:
    if name not in BALANCES:
        raise unknown_name("balance", name, BALANCES)


@dataclass(frozen=True)
class Knob:
    """One setting. low and high: the values that it can have, high excluded where `below`; names: it takes no numbers.

    A search that widens a range stays within them. check: raises UserError for a name that does not exist.
    """

    meaning: str
    low: float = 0.0
    high: float = math.inf
    below: bool = False
    whole: bool = False
    names: bool = False
    positive: bool = False
    check: Callable[[str], None] | None = None


KNOBS: dict[str, Knob] = {
    "lr": Knob("the learning rate", positive=True),
    "weight_decay": Knob("how strongly the optimizer decays weights"),
    "l1": Knob("strength of the sum of absolute weights in the loss"),
    "optimizer": Knob("the update rule", names=True, check=_optimizer),
    "momentum": Knob("of the update rules that have it", high=1.0, below=True),
    "schedule": Knob("how the learning rate goes down", names=True, check=_schedule),
    "batch_size": Knob("images a step", low=1, whole=True),
    "augmentation": Knob("strength of the augmentations: 0 none, 1 as planned", high=10.0),
    "dropout": Knob("share of the units that are dropped", high=1.0, below=True),
    "label_smoothing": Knob("share of the target that is spread over all classes", high=1.0, below=True),
    "model": Knob("the network", names=True),
    "freeze": Knob("how many stages of a pretrained network stay as they are", whole=True),
    "balance": Knob("what is done about rare classes", names=True, check=_balance),
}


def check_knob(name: str, kind: Kind, where: str = "the space") -> None:
    """Raises UserError where the setting is none that a search can vary, or has values that it cannot have."""
    if name not in KNOBS:
        error = unknown_name("setting", name, KNOBS)
        raise UserError(f"{where}: {error}")
    knob = KNOBS[name]
    for value in values_of(kind):
        if knob.names:
            if not isinstance(value, str):
                raise UserError(f"{where}: '{name}' is chosen by name, got {value!r}; write it as a choice of names")
            if knob.check is not None:
                try:
                    knob.check(value)
                except UserError as error:
                    raise UserError(f"{where}: '{name}': {error}") from None
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{where}: '{name}' is a number, got {value!r}; correct it")
        if knob.whole and not (float(value).is_integer() and isinstance(kind, Integer | Choice | Fixed)):
            raise UserError(
                f"{where}: '{name}' is a whole number, got {kind} as {kind.kind}; use integer, or a choice of whole "
                "numbers"
            )
        over = value >= knob.high if knob.below and not isinstance(kind, Choice | Fixed) else value > knob.high
        over = over or (knob.below and value == knob.high)
        if not math.isfinite(value) or over or value < knob.low or (knob.positive and value <= 0):
            raise UserError(f"{where}: '{name}' is {_allowed(knob)}, got {value:g}; correct it")


def _allowed(knob: Knob) -> str:
    if knob.positive:
        return "above 0"
    if math.isinf(knob.high):
        return f"at least {knob.low:g}"
    return f"from {knob.low:g} to {'below ' if knob.below else ''}{knob.high:g}"


def reaching(rates: LogUniform, found: float) -> LogUniform:
    """The range, made wider where a rate that is known to work lies outside of it or near its end."""
    if rates.low < found < rates.high / 2:
        return rates
    return LogUniform(min(rates.low, found / 10), max(rates.high, found * 3))


def default_space(lr: float, weight_decay: float = 0.0, *, imbalanced: bool = False) -> Space:
    """The taught ranges around the rates that would be used without a search (SPEC S2).

    lr spans three decades as taught, two below the default and one above; weight decay four, as the taught fine stage
    does, or {0, 1e-5, 1e-4} where the default has none (SPEC S1 row 4). imbalanced: what is done about rare classes is
    tried too.
    """
    space: Space = {"lr": LogUniform(lr / 100, lr * 10)}
    if weight_decay > 0:
        space["weight_decay"] = LogUniform(weight_decay / 100, weight_decay * 100)
    else:
        space["weight_decay"] = Choice((0.0, 1e-5, 1e-4))
    if imbalanced:
        space["balance"] = Choice(("none", "weights", "sampler"))
    return space


def limits(name: str) -> tuple[float, float]:
    """Between which values a range of this setting may be widened; infinite for a setting that is no knob."""
    knob = KNOBS.get(name)
    if knob is None:
        return -math.inf, math.inf
    return knob.low, knob.high * (1 - 1e-3) if knob.below else knob.high

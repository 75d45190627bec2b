"""What follows from a stage's trials: the best, whether it lies at an edge, and the next, finer space.

Pure functions of the trials, so that every narrowing can be written down with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wellfit.findings import Finding
from wellfit.search.knobs import limits
from wellfit.search.smoothing import chain_ends, expectations, smoothed
from wellfit.search.space import Choice, Fixed, Integer, Kind, LogUniform, Space, Uniform
from wellfit.search.trial import Trial

WIDEN = 10.0  # how far a logarithmic range is moved out on the side where the best value sits at the edge
WIDEN_SHARE = 0.5  # of its width, how far an even range is moved out
NARROW = 3.0  # half-width of the fine range, as a factor
NARROW_SHARE = 1 / 6  # half-width of a fine range that is even, as a share of the range
GOOD = 0.25  # share of the finished runs that count as good ones
MOST_GOOD = 10
AGREEING = 3  # so many good runs at least
TRUSTED = 0.5  # of the doubt: a gain of more is about two to one likely to be one
LUCK = 0.1  # a choice is settled where the good runs agree on it with less than this chance of doing so by luck


@dataclass
class Narrowing:
    """The next space, why, and what is worrying about the stage."""

    space: Space
    reason: str
    findings: list[Finding] = field(default_factory=list)


def best_trial(trials: Sequence[Trial], space: Space | None = None) -> Trial | None:
    """Of those that finished, the one that is expected to score highest, its neighbours' scores considered.

    Equal ones are told apart by validation loss, then the first is taken. None when no trial finished.
    """
    place = _place_of_best(trials, smoothed(trials, space))
    return None if place is None else trials[place]


def ranked(trials: Sequence[Trial], space: Space | None = None) -> list[int]:
    """Places of the finished runs' last trials, the highest expected score first; runs that broke off are left out.

    A continuation that failed, as for want of memory, says nothing about the settings: the trial before it stands.
    """
    return ranked_by(trials, smoothed(trials, space))


def ranked_by(trials: Sequence[Trial], expected: Sequence[tuple[float, float]]) -> list[int]:
    """`ranked`, from what `smoothing` has said of each trial."""
    ends = [i for i in chain_ends(trials) if trials[i].score is not None]
    return sorted(ends, key=lambda i: _rank(trials, expected, i))


def _rank(trials: Sequence[Trial], expected: Sequence[tuple[float, float]], i: int) -> tuple[float, float, int]:
    # Rounded: the last bits of the expected scores differ between processors, and the order must not.
    loss = trials[i].loss
    return (-round(expected[i][0], 9), 0.0 if loss is None else loss, trials[i].number)


def _place_of_best(trials: Sequence[Trial], expected: Sequence[tuple[float, float]]) -> int | None:
    finished = [i for i, trial in enumerate(trials) if trial.score is not None]
    return min(finished, key=lambda i: _rank(trials, expected, i)) if finished else None


def winner(
    trials: Sequence[Trial], default: Trial | None, space: Space | None = None, *, length: float = 0.0
) -> tuple[Trial | None, str]:
    """The trial to train with, and why: of those that finished, the highest expected score among its neighbours.

    default: the trial of the settings that would be used without a search; None where it was not run. It is left where
    it is about two to one that another does better in a training of `length` epochs: short trials favour higher rates
    than long trainings bear, and the defaults were found in long ones.
    """
    found = expectations(trials, space)
    place = _place_of_best(trials, found.each)
    if place is None:
        return default, "no trial finished"
    best = trials[place]
    if default is None or default.score is None:
        return best, "the default settings did not finish"
    if best.settings == default.settings:
        return default, "no trial is expected to do better than the default"
    gain, doubt = found.lead(place, list(trials).index(default), length)
    said = f"{in_words(best.settings)} is expected to score {gain:.3f} (± {doubt:.3f}) above the default"
    return (best, said) if gain > TRUSTED * doubt else (default, f"{said}, which is too little to leave it")


def in_words(settings: dict[str, Any]) -> str:
    """lr first, numbers to three digits."""
    ordered = sorted(settings, key=lambda name: name != "lr")
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in ((name, settings[name]) for name in ordered)
    )


def narrow(space: Space, trials: Sequence[Trial], stage: str, explored: Space | None = None) -> Narrowing:
    """The space around the best of the trials, wide enough for the good ones (SPEC S5).

    A side where the best sits at the edge is widened (SPEC S4), within what the setting can be. A choice that all good
    trials agree on is kept alone, where that is no luck. Where no trial finished, lower learning rates are tried.
    stage: for the words. explored: everything drawn from so far, where that is more than `space`: a fine range is
    narrow by design, and its edge is worrying only where nothing beyond it was tried.
    """
    order = ranked(trials, explored or space)
    if not order:
        return _lowered(space, stage)
    good = [trials[i] for i in order[: min(MOST_GOOD, math.ceil(GOOD * len(order)))]]
    finished = [trials[i] for i in order]
    narrowed: Space = {}
    findings: list[Finding] = []
    parts: list[str] = []
    for name, kind in space.items():
        if isinstance(kind, Fixed):
            narrowed[name] = kind
        elif isinstance(kind, Choice):
            narrowed[name], said = _settled(name, kind, good, finished)
            parts += [said] if said else []
        elif not any(name in trial.settings for trial in good):
            narrowed[name] = kind
        else:
            beyond = (explored or space)[name]
            assert isinstance(beyond, LogUniform | Uniform | Integer)
            narrowed[name], said, finding = _finer(name, kind, beyond, good, stage)
            parts.append(said)
            findings += [finding] if finding else []
    named = ", ".join(f"trial {t.number} ({t.score:.3f})" for t in finished[:3])
    reason = f"best of {len(trials)} trials: {named}"
    return Narrowing(_without_unreachable(narrowed), "; ".join([reason, *parts]), findings)


def _lowered(space: Space, stage: str) -> Narrowing:
    lr = space.get("lr")
    if not isinstance(lr, LogUniform):
        return Narrowing(space, f"no {stage} trial finished, and the space has no range of learning rates to lower")
    lowered = LogUniform(lr.low / WIDEN, lr.low * NARROW, only_with=lr.only_with)
    said = f"no {stage} trial finished, so lower learning rates are tried: {lowered}"
    return Narrowing({**space, "lr": lowered}, said)


def _settled(name: str, kind: Choice, good: list[Trial], finished: list[Trial]) -> tuple[Kind, str]:
    chosen = [t.settings[name] for t in good if name in t.settings]
    if len(chosen) < AGREEING or len(set(chosen)) > 1:
        return kind, ""
    drawn = [t.settings[name] for t in finished if name in t.settings]
    if (drawn.count(chosen[0]) / len(drawn)) ** len(chosen) > LUCK:
        return kind, ""
    return Fixed(chosen[0], only_with=kind.only_with), f"{name} {chosen[0]} is kept alone: all good trials have it"


def _finer(
    name: str,
    kind: LogUniform | Uniform | Integer,
    explored: LogUniform | Uniform | Integer,
    good: list[Trial],
    stage: str,
) -> tuple[Kind, str, Finding | None]:
    value = next(t.settings[name] for t in good if name in t.settings)
    places = [kind.place(t.settings[name]) for t in good if name in t.settings]
    half = math.log(NARROW) / math.log(kind.high / kind.low) if isinstance(kind, LogUniform) else NARROW_SHARE
    low, high = min(*places, places[0] - half), max(*places, places[0] + half)
    if high - low > 1.0:  # good trials lie all over the range: it stays as it is
        low, high = max(low, min(0.0, *places)), min(high, max(1.0, *places))
    finer = _range(name, kind, low, high)
    side = explored.edge(value)
    if side is not None and not _at_limit(name, explored, side):
        step = math.log(WIDEN) / math.log(kind.high / kind.low) if isinstance(kind, LogUniform) else WIDEN_SHARE
        if side == "low":
            finer = _range(name, kind, places[0] - step, high)
        else:
            finer = _range(name, kind, low, places[0] + step)
        finding = _at_edge(name, value, explored, side, finer, stage)
        said = f"{name} {value:.2g} lies at the {side} edge of {explored}, so that side is widened to {finer}"
        return finer, said, finding
    return finer, f"{name} narrowed from {kind} to {finer} around {value:.2g}", None


def _range(name: str, kind: Any, low: float, high: float) -> Any:
    """The range between two places of `kind`, which may lie outside of it, within what the setting can be."""
    least, most = limits(name)
    if isinstance(kind, LogUniform):
        width = math.log(kind.high / kind.low)
        ends = [kind.low * math.exp(width * low), kind.low * math.exp(width * high)]
    else:
        ends = [kind.low + (kind.high - kind.low) * low, kind.low + (kind.high - kind.low) * high]
    ends = [min(max(end, least), most) for end in ends]
    if isinstance(kind, Integer):
        bottom, top = math.floor(ends[0]), math.ceil(ends[1])
        return replace(kind, low=bottom, high=max(top, bottom + 1))
    return replace(kind, low=float(f"{ends[0]:.6g}"), high=float(f"{ends[1]:.6g}"))


def _at_limit(name: str, kind: LogUniform | Uniform | Integer, side: str) -> bool:
    """Whether the range ends where the setting does: nothing lies beyond."""
    least, most = limits(name)
    return kind.low <= least if side == "low" else kind.high >= most


def _without_unreachable(space: Space) -> Space:
    """Conditions name the values that are left; settings whose condition cannot be met any more are gone."""
    kept: Space = {}
    for name, kind in space.items():
        condition = {}
        for parent, wanted in kind.only_with.items():
            other = space[parent]
            held = other.values if isinstance(other, Choice) else (other.value,) if isinstance(other, Fixed) else ()
            condition[parent] = tuple(value for value in wanted if value in held)
        if all(condition.values()):
            kept[name] = replace(kind, only_with=condition) if condition else kind
    gone = [n for n, k in kept.items() if any(parent not in kept for parent in k.only_with)]
    return _without_unreachable({n: k for n, k in kept.items() if n not in gone}) if gone else kept


def diverged(trials: Sequence[Trial], initial_loss: float) -> Finding | None:
    """Says which trials were broken off above 3× the initial loss (SPEC S3)."""
    pruned = [t for t in trials if t.state == "pruned"]
    if not pruned:
        return None
    lowest = min(float(t.settings.get("lr", 0.0)) for t in pruned)
    return Finding(
        "diverged-trials",
        "info",
        f"{len(pruned)} of {len(trials)} trials were broken off because their loss rose above three times the initial "
        f"{initial_loss:.2f}; the lowest learning rate among them was {lowest:.2g}",
        {"pruned": [t.number for t in pruned], "lowest_lr": lowest, "initial_loss": initial_loss},
        "Nothing to do: these learning rates are too high for this network and data.",
        "CS231n, hyperparameter search; SPEC S3",
    )


def _at_edge(name: str, value: float, kind: Any, side: str, finer: Any, stage: str) -> Finding:
    return Finding(
        "best-at-edge",
        "warning",
        f"the best {name} of the {stage} stage, {value:.2g}, lies at the {side} edge of its range {kind}",
        {
            "setting": name,
            "value": value,
            "range": [kind.low, kind.high],
            "side": side,
            "widened": [finer.low, finer.high],
        },
        f"A next stage looks further out, from {finer}; where none follows, or the best stays at the edge, widen it.",
        "CS231n, hyperparameter search; SPEC S4",
    )

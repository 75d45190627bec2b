"""Shares of importance: the taught function with one important and one unimportant setting; too few trials."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from wellfit.search.importance import importance
from wellfit.search.layouts import SPACE as TAUGHT
from wellfit.search.layouts import important_part, unimportant_part
from wellfit.search.samplers import settings_of
from wellfit.search.space import Choice, Fixed, LogUniform, Space, Uniform
from wellfit.search.trial import Trial


def trials(space: Space, count: int, score: Callable[[dict[str, Any]], float | None], **more: Any) -> list[Trial]:
    found = []
    for number in range(count):
        settings = settings_of("random", space, seed=1, number=number)
        value = score(settings)
        found.append(
            Trial("coarse", number, settings, "pruned" if value is None else "finished", value, epochs=1.0, **more)
        )
    return found


def test_the_important_setting_of_the_taught_function_is_found() -> None:
    """Bergstra & Bengio 2012, figure 1."""

    def score(settings: dict[str, Any]) -> float:
        return float(important_part(settings["important"]) + unimportant_part(settings["unimportant"]))

    shares = importance(TAUGHT, trials(TAUGHT, 80, score))
    assert shares is not None
    assert list(shares) == ["important", "unimportant"]
    assert shares["important"] > 0.85
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_learning_rate_and_a_choice_by_how_much_they_move_the_score() -> None:
    space: Space = {
        "weight_decay": LogUniform(1e-6, 1e-2),
        "lr": LogUniform(1e-5, 1e-1),
        "optimizer": Choice(("adam", "momentum")),
        "momentum": Uniform(0.5, 0.99, only_with={"optimizer": ("momentum",)}),
        "model": Fixed("lenet"),
    }

    def score(settings: dict[str, Any]) -> float | None:
        off = math.log10(settings["lr"]) + 3
        return None if off > 1.2 else 0.9 - 0.1 * abs(off) - (0.06 if settings["optimizer"] == "adam" else 0.0)

    shares = importance(space, trials(space, 60, score))
    assert shares is not None
    assert list(shares)[:2] == ["lr", "optimizer"]
    assert shares["weight_decay"] < 0.1
    assert shares["momentum"] < 0.1
    assert "model" not in shares


def test_too_few_trials_say_nothing() -> None:
    def score(settings: dict[str, Any]) -> float:
        return float(settings["important"])

    assert importance(TAUGHT, []) is None
    assert importance(TAUGHT, trials(TAUGHT, 11, score)) is None
    assert importance(TAUGHT, trials(TAUGHT, 12, score)) is not None
    # Where all score alike there is nothing to explain.
    assert importance(TAUGHT, trials(TAUGHT, 40, lambda settings: 0.5)) is None


def test_the_shares_follow_from_trials_and_seed_and_not_from_the_order_of_continuations() -> None:
    def score(settings: dict[str, Any]) -> float:
        return float(settings["important"])

    once = trials(TAUGHT, 30, score)
    assert importance(TAUGHT, once) == importance(TAUGHT, once)
    # A run that was continued counts once.
    longer = [
        Trial("coarse", 100 + t.number, t.settings, "finished", t.score, rung=1, epochs=2.0, continues=t.number)
        for t in once[:9]
    ]
    assert importance(TAUGHT, [*once[:9], *longer]) is None
    # What failed for want of memory says nothing about the settings.
    failed = [Trial("coarse", 200 + n, {"important": 0.9, "unimportant": 0.5}, "failed") for n in range(20)]
    assert importance(TAUGHT, [*once, *failed]) == importance(TAUGHT, once)


def test_fine_stages_may_have_looked_beyond_the_space() -> None:
    wide: Space = {"lr": LogUniform(1e-6, 1.0), "dropout": Uniform(0.0, 0.9)}
    found = trials(wide, 40, lambda settings: 0.9 - 0.1 * abs(math.log10(settings["lr"]) + 3))
    shares = importance({"lr": LogUniform(1e-4, 1e-3), "dropout": Uniform(0.2, 0.3)}, found)
    assert shares is not None
    assert shares["lr"] > 0.7

"""Samplers: even in each range's own scale, the same in another process, conditions kept."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from wellfit.errors import UserError
from wellfit.search.samplers import SAMPLERS, grid, settings_of
from wellfit.search.space import Choice, Fixed, Integer, LogUniform, Space, Uniform, contains
from wellfit.search.trial import Trial

SPACE: Space = {
    "lr": LogUniform(1e-6, 1e-3),
    "weight_decay": LogUniform(1e-5, 1e5),
    "dropout": Uniform(0.0, 0.5),
    "freeze": Integer(0, 3),
    "optimizer": Choice(("adam", "momentum", "nesterov")),
    "momentum": Uniform(0.5, 0.99, only_with={"optimizer": ("momentum", "nesterov")}),
}


def drawn(sampler: str, count: int, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [settings_of(sampler, SPACE, seed=seed, number=n, place=n, count=count, **more) for n in range(count)]


def finished(count: int = 12) -> list[Trial]:
    """Trials whose score falls with the distance of lr from 1e-4."""
    return [
        Trial("coarse", n, s, "finished", 0.8 - 0.1 * abs(math.log10(s["lr"]) + 4), epochs=1.0)
        for n, s in enumerate(drawn("random", count))
    ]


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_draws_are_even_in_each_settings_own_scale(sampler: str) -> None:
    """Kolmogorov-Smirnov for the ranges, chi-square for the rest (SPEC S2: lr = 10^U(-6, -3), reg = 10^U(-5, 5))."""
    many = drawn(sampler, 400, seed=3)
    lr = [(math.log10(s["lr"]) + 6) / 3 for s in many]
    decay = [(math.log10(s["weight_decay"]) + 5) / 10 for s in many]
    dropout = [s["dropout"] / 0.5 for s in many]
    momentum = [(s["momentum"] - 0.5) / 0.49 for s in many if "momentum" in s]
    for values in (lr, decay, dropout, momentum):
        assert stats.kstest(values, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(lr, decay)[0, 1]) < 0.15
    for name, values in (("freeze", range(4)), ("optimizer", ("adam", "momentum", "nesterov"))):
        assert stats.chisquare([sum(s[name] == v for s in many) for v in values]).pvalue > 0.01


def test_quasi_random_draws_leave_smaller_gaps_than_random_ones() -> None:
    def largest_gap(sampler: str, seed: int) -> float:
        places = sorted((math.log10(s["lr"]) + 6) / 3 for s in drawn(sampler, 32, seed))
        return float(np.diff([0.0, *places, 1.0]).max())

    gaps = {name: np.mean([largest_gap(name, seed) for seed in range(10)]) for name in ("random", "qmc")}
    assert gaps["qmc"] < 0.07 < 0.1 < gaps["random"]  # an even lattice of 32 has gaps of 1/32


def drawn_by_all() -> dict[str, list[list[dict[str, Any]]]]:
    return {name: [drawn(name, 4, seed=seed, trials=finished()) for seed in (5, 6)] for name in SAMPLERS}


def test_the_same_seed_and_number_give_the_same_settings_in_another_process() -> None:
    code = "import json; from tests.search.test_samplers import drawn_by_all; print(json.dumps(drawn_by_all()))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = drawn_by_all()
    assert json.loads(there.stdout.splitlines()[-1]) == here
    # A grid has no seed.
    assert {name: one != other for name, (one, other) in here.items()} == {name: name != "grid" for name in SAMPLERS}


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_settings_do_not_depend_on_what_else_is_drawn(sampler: str) -> None:
    alone = settings_of(sampler, SPACE, seed=2, number=7, trials=finished())
    assert drawn(sampler, 9, seed=2, trials=finished())[7] == alone
    assert settings_of(sampler, SPACE, seed=2, number=7, trials=finished(), again=1) != alone


@pytest.mark.parametrize("sampler", SAMPLERS)
@hypothesis_settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(0, 500))
def test_every_sampler_stays_in_the_space(sampler: str, seed: int, number: int) -> None:
    settings = settings_of(sampler, SPACE, seed=seed, number=number, trials=finished(), place=number % 30, count=30)
    assert contains(SPACE, settings)
    json.dumps(settings)


def test_tpe_draws_near_what_was_good() -> None:
    trials = finished(40)
    near = [abs(math.log10(s["lr"]) + 4) for s in drawn("tpe", 30, seed=1, trials=trials)]
    anywhere = [abs(math.log10(s["lr"]) + 4) for s in drawn("random", 30, seed=1)]
    assert np.mean(near) < 0.6 * np.mean(anywhere)


def test_tpe_avoids_where_trials_were_broken_off_and_forgets_those_outside_of_the_space() -> None:
    broken = [
        Trial("coarse", t.number, t.settings, "pruned" if t.settings["lr"] > 3e-5 else "finished",
              None if t.settings["lr"] > 3e-5 else 0.5, epochs=1.0)
        for t in finished(40)
    ]  # fmt: skip
    low = sum(s["lr"] < 3e-5 for s in drawn("tpe", 30, seed=1, trials=broken))
    assert low > 20  # half of the range in the logarithm is below
    far = [Trial("coarse", t.number, {**t.settings, "lr": 1.0}, "finished", t.score) for t in finished(40)]
    assert drawn("tpe", 3, trials=far) == drawn("tpe", 3)


def test_tpe_learns_what_to_choose_where_only_choices_are_left() -> None:
    space: Space = {"optimizer": Choice(("adam", "sgd")), "lr": Fixed(0.1)}
    trials = [
        Trial("coarse", n, {"optimizer": name, "lr": 0.1}, "finished", 0.9 if name == "sgd" else 0.5)
        for n, name in enumerate(["adam", "sgd"] * 10)
    ]
    found = [settings_of("tpe", space, seed=0, number=n, trials=trials)["optimizer"] for n in range(20, 40)]
    assert found.count("sgd") > 14


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_given_is_taken_as_it_is_and_the_rest_is_drawn(sampler: str) -> None:
    given = {"optimizer": "adam", "lr": 5.0, "batch_size": 32}  # out of range; not in the space
    settings = settings_of(sampler, SPACE, seed=0, number=0, given=given)
    assert settings["lr"] == 5.0
    assert settings["optimizer"] == "adam"
    assert set(settings) == {"lr", "weight_decay", "dropout", "freeze", "optimizer"}  # no momentum with adam
    with_momentum = settings_of(sampler, SPACE, seed=0, number=0, given={"optimizer": "nesterov"})
    assert contains(SPACE, with_momentum)


def test_a_grid_is_the_product_of_its_axes() -> None:
    space: Space = {"lr": LogUniform(1e-4, 1e-1), "decay": Choice((0.0, 1e-5, 1e-4)), "dropout": Uniform(0, 0.6)}
    points = grid(space, 36)
    lr, decay, dropout = ({s[name] for s in points} for name in space)
    assert sorted(lr) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert sorted(dropout) == pytest.approx([0.0, 0.3, 0.6])
    assert decay == {0.0, 1e-5, 1e-4}
    assert {tuple(s.values()) for s in points} == set(product(lr, decay, dropout))
    assert len(points) == 36


def test_a_grid_with_conditions_has_each_setting_once() -> None:
    space: Space = {
        "optimizer": Choice(("adam", "momentum")),
        "momentum": Choice((0.5, 0.9, 0.99), only_with={"optimizer": ("momentum",)}),
        "freeze": Integer(1, 3),
    }
    points = grid(space, 100)
    assert len(points) == (1 + 3) * 3  # an integer has no more points than it has values
    assert len({tuple(sorted(s.items())) for s in points}) == len(points)
    assert all(contains(space, s) for s in points)


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.integers(1, 80))
def test_a_grid_has_no_more_than_it_was_given_and_uses_most_of_it(count: int) -> None:
    points = grid({"lr": LogUniform(1e-4, 1e-1), "decay": LogUniform(1e-6, 1e-2)}, count)
    assert 0.5 * count <= len(points) <= count


def test_a_grid_of_too_many_choices_is_thinned_evenly() -> None:
    space: Space = {"a": Choice(tuple(range(10))), "b": Choice(tuple(range(10)))}
    points = grid(space, 10)
    assert len(points) == 10
    assert len({s["a"] for s in points}) == 10


def test_an_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown sampler 'gird' \(did you mean 'grid'\?\)"):
        settings_of("gird", SPACE, seed=0, number=0)

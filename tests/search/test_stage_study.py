"""The study: random in log space, reproducible trial by trial, and taken up after a kill."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from scipy import stats

from wellfit.search.space import Choice, LogUniform, Space
from wellfit.search.stage_study import Study
from wellfit.search.trial import Trial

SPACE: Space = {
    "lr": LogUniform(1e-5, 1e-1),
    "weight_decay": LogUniform(1e-6, 1e-2),
    "balance": Choice(("none", "weights", "sampler")),
}


def never() -> bool:
    return False


class Killed(BaseException):
    """Stands for kill -9: nothing of ours runs after it."""


class Runner:
    """Scores a trial by its settings alone, notes them, and dies at the trial asked for."""

    def __init__(self, die_at: int | None = None) -> None:
        self.die_at = die_at
        self.seen: list[tuple[str, int, dict[str, Any]]] = []

    def __call__(self, stage: str, number: int, settings: dict[str, Any]) -> Trial:
        self.seen.append((stage, number, settings))
        if number == self.die_at:
            raise Killed
        if settings["lr"] > 0.05:
            return Trial(stage, number, settings, "pruned")
        return Trial(stage, number, settings, "finished", score=-abs(math.log10(settings["lr"]) + 3), loss=0.1)


def in_memory(seed: int = 0) -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return Study(optuna.storages.InMemoryStorage(), seed)


def test_draws_are_uniform_in_the_logarithm_and_choices_even() -> None:
    trials = in_memory(2).run_stage("coarse", SPACE, 300, Runner(), stop=never)
    for name, low, high in (("lr", -5, -1), ("weight_decay", -6, -2)):
        shares = [(math.log10(t.settings[name]) - low) / (high - low) for t in trials]
        assert stats.kstest(shares, "uniform").pvalue > 0.01
    lr, decay = (np.log([t.settings[name] for t in trials]) for name in ("lr", "weight_decay"))
    assert abs(np.corrcoef(lr, decay)[0, 1]) < 0.2
    counts = [sum(t.settings["balance"] == v for t in trials) for v in ("none", "weights", "sampler")]
    assert stats.chisquare(counts).pvalue > 0.01


def test_a_trials_settings_follow_from_seed_stage_and_number_alone() -> None:
    many = in_memory().run_stage("coarse", SPACE, 6, Runner(), stop=never)
    few = in_memory().run_stage("coarse", SPACE, 3, Runner(), stop=never)
    assert [t.settings for t in many[:3]] == [t.settings for t in few]
    fine = in_memory().run_stage("fine", SPACE, 3, Runner(), stop=never)
    other = in_memory(1).run_stage("coarse", SPACE, 3, Runner(), stop=never)
    settings = [t.settings["lr"] for t in (*few, *fine, *other)]
    assert len(set(settings)) == 9


def test_the_default_comes_first_as_it_is() -> None:
    first = {"lr": 0.0123, "weight_decay": 3e-4, "balance": "weights"}
    trials = in_memory().run_stage("coarse", SPACE, 2, Runner(), first=[first], stop=never)
    assert trials[0].settings == first
    assert trials[1].settings != first


def test_what_the_default_does_not_name_is_drawn() -> None:
    trials = in_memory().run_stage("coarse", SPACE, 1, Runner(), first=[{"lr": 0.01}], stop=never)
    assert trials[0].settings["lr"] == 0.01
    assert 1e-6 <= trials[0].settings["weight_decay"] <= 1e-2


def test_trials_that_were_broken_off_are_kept_as_such(tmp_path: Path) -> None:
    study = Study.open(tmp_path / "search.sqlite", 3)
    trials = study.run_stage("coarse", SPACE, 8, Runner(), first=[{"lr": 0.09}], stop=never)
    assert trials[0].state == "pruned"
    kept = optuna.load_study(study_name="coarse", storage=study.storage).get_trials()
    states = [t.state.name for t in kept]
    assert states == ["PRUNED" if t.state == "pruned" else "COMPLETE" for t in trials]


def test_stop_ends_a_stage_with_the_trials_so_far() -> None:
    asked = iter([False, False, True])
    trials = in_memory().run_stage("coarse", SPACE, 9, Runner(), stop=lambda: next(asked))
    assert [t.number for t in trials] == [0, 1]


@pytest.mark.parametrize("die_at", [0, 2])
def test_a_killed_search_goes_on_with_the_same_settings(tmp_path: Path, die_at: int) -> None:
    path = tmp_path / "search.sqlite"
    untouched = Study.open(tmp_path / "other.sqlite", 7).run_stage("coarse", SPACE, 4, Runner(), stop=never)
    with pytest.raises(Killed):
        Study.open(path, 7).run_stage("coarse", SPACE, 4, Runner(die_at), stop=never)
    again = Runner()
    trials = Study.open(path, 7).run_stage("coarse", SPACE, 4, again, stop=never)
    assert trials == untouched
    assert [number for _, number, _ in again.seen] == list(range(die_at, 4))  # finished ones are not run again
    states = [t.state.name for t in optuna.load_study(study_name="coarse", storage=Study.open(path, 7).storage).trials]
    assert states.count("RUNNING") == 0


def test_killed_twice_at_the_same_trial_and_then_finished(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    for _ in range(2):
        with pytest.raises(Killed):
            Study.open(path, 7).run_stage("coarse", SPACE, 3, Runner(1), stop=never)
    trials = Study.open(path, 7).run_stage("coarse", SPACE, 3, Runner(), stop=never)
    assert trials == in_memory(7).run_stage("coarse", SPACE, 3, Runner(), stop=never)


def test_a_finished_stage_is_read_back_exactly_and_nothing_runs_again(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    trials = Study.open(path, 7).run_stage("coarse", SPACE, 3, Runner(), stop=never)
    again = Runner()
    assert Study.open(path, 7).run_stage("coarse", SPACE, 3, again, stop=never) == trials
    assert again.seen == []


def test_several_given_settings_come_first_also_from_outside_the_range() -> None:
    outside, inside = {"lr": 7.5, "weight_decay": 1e-4}, {"lr": 0.02, "weight_decay": 1e-5}
    trials = in_memory().run_stage("fine", SPACE, 3, Runner(), first=[outside, inside], stop=never)
    assert {name: trials[0].settings[name] for name in outside} == outside
    assert {name: trials[1].settings[name] for name in inside} == inside
    assert trials[2].settings["lr"] not in (7.5, 0.02)

"""What the benchmark of the search counts: draws, costs, winners, trials that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kept_trials import KeptTrials, follow

import search
from search import best_of, draw_from, searched, table, within
from wellfit.errors import UserError
from wellfit.recipe.material import Material
from wellfit.search.kinds import LogUniform
from wellfit.search.schedule import Schedule
from wellfit.search.trial import Task, Trial


def pooled(number: int, score: float | None, judged: float | None = 0.5, images: int = 100) -> dict[str, Any]:
    return {"number": number, "scores": [score], "judged": judged, "images": images, "settings": {"lr": 0.1}}


POOL = [pooled(number, number / 1000) for number in range(240)]


def test_a_draw_takes_48_different_trials_by_its_seed() -> None:
    drawn = [trial["number"] for trial in draw_from(POOL, 0)]
    assert len(set(drawn)) == 48
    assert drawn == [trial["number"] for trial in draw_from(POOL, 0)]
    assert drawn != [trial["number"] for trial in draw_from(POOL, 1)]
    with pytest.raises(UserError, match="239 of 240"):
        draw_from(POOL[:-1], 0)


def test_the_control_spends_no_more_than_its_share() -> None:
    drawn = [pooled(0, 0.1, images=100), pooled(1, 0.2, images=20), pooled(2, 0.3, images=100)]
    assert [trial["number"] for trial in within(drawn, 120)] == [0, 1]
    assert [trial["number"] for trial in within(drawn, 219)] == [0, 1]
    assert len(within(drawn, 220)) == 3
    assert len(within(drawn, 10)) == 1  # one at least


def test_the_winner_is_chosen_by_validation_and_not_by_the_judges() -> None:
    trials = [pooled(0, 0.8, judged=0.9), pooled(1, 0.9, judged=0.7), pooled(2, None, judged=None)]
    assert best_of(trials)["number"] == 1
    with pytest.raises(UserError, match="none of the trials"):
        best_of([pooled(2, None, judged=None)])


def row(**changes: Any) -> dict[str, Any]:
    known = {
        "seed": 0, "full": 0.87, "judged": 0.868, "regret": 0.2, "cost": 0.12, "trials": 40, "chosen_at": 5.0,
        "control": 0.85, "control_regret": 2.0,
    }  # fmt: skip
    return {**known, **changes}


def test_the_aim_is_reached_only_at_the_cost_that_is_aimed_at() -> None:
    assert "reached" in table([row(), row(regret=0.38)])
    assert "MISSED" in table([row(regret=0.7), row()])
    assert "MISSED" in table([row(cost=0.126), row()])
    assert "mean regret +0.29 points, deviation 0.13, n = 2" in table([row(), row(regret=0.38)])


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, material: Material) -> None:
    """The benchmark on the digits: trainings of 2 epochs in a space of one setting."""
    monkeypatch.setattr(search, "SPACE", {"lr": LogUniform(1e-3, 1.0)})
    monkeypatch.setattr(search, "EPOCHS", 2.0)
    monkeypatch.setattr(search, "TRAINING", len(material.data.split.train))


@pytest.mark.usefixtures("short")
def test_the_search_counts_every_image_and_stays_within_its_share(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = 10 * len(material.data.split.train)
    found = searched(material, 0, images, tmp_path)
    assert found["images"] <= images
    kept = KeptTrials(material, tmp_path)
    trials = [Trial(**trial) for trial in kept.kept.values()]
    kept.close()
    assert found["images"] == sum(trial.images for trial in trials)
    steps = len(material.data.split.train) // 128  # of an epoch
    # Each run costs its length once, though it is continued from rung to rung.
    ends = [trial for trial in trials if trial.number not in {other.continues for other in trials}]
    assert found["images"] == sum(
        round(trial.epochs * steps) * 128 for trial in ends if trial.state == "finished"
    ) + sum(trial.images for trial in trials if trial.state != "finished")
    assert any(trial.epochs == 2.0 and trial.settings == found["settings"] for trial in ends)

    def refuse(task: Task) -> Trial:
        raise AssertionError("nothing is trained twice")

    monkeypatch.setattr(KeptTrials, "_train", lambda self, task: refuse(task))
    assert searched(material, 0, images, tmp_path) == found


def test_an_interrupted_search_goes_on_to_the_same_trials(material: Material, tmp_path: Path) -> None:
    schedule = Schedule.plan({"lr": LogUniform(1e-3, 1.0)}, seed=0, longest=2.0, budget_epochs=6.0)
    whole = KeptTrials(material, tmp_path / "whole")
    wanted, end = follow(schedule, whole.run)
    whole.close()
    cut = KeptTrials(material, tmp_path / "cut")
    count = 0

    def until_cut(task: Task) -> Trial:
        nonlocal count
        count += 1
        if count > 5:
            raise KeyboardInterrupt
        return cut.run(task)

    with pytest.raises(KeyboardInterrupt):
        follow(schedule, until_cut)
    cut.close()
    again = KeptTrials(material, tmp_path / "cut")
    got, same_end = follow(schedule, again.run)
    again.close()
    timeless = [{**vars(trial), "seconds": 0, "training": 0} for trial in wanted]
    assert [{**vars(trial), "seconds": 0, "training": 0} for trial in got] == timeless
    assert (end.best is None) == (same_end.best is None)

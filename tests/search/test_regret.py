"""What the schedule finds for its cost, on landscapes whose best is known."""

from __future__ import annotations

import pytest
from scipy import stats

from tests.search.landscape import LONG, SPACE, Landscape, cost, mean_truth, random_search, searched
from wellfit.randomness import generator
from wellfit.search.schedule import Schedule
from wellfit.search.space import draw
from wellfit.search.trial import Trial

SEEDS = range(40)


def found(seed: int, landscape: Landscape, sampler: str = "random") -> tuple[Trial, float]:
    """The winner for six full trainings, an eighth of 48; and what it cost, trained to full length."""
    schedule = Schedule.plan(SPACE, seed=seed, longest=LONG, budget_epochs=6 * LONG, sampler=sampler)
    end, trials, _ = searched(schedule, landscape)
    assert end.best is not None
    return end.best, cost(trials) + LONG - end.best.epochs


def test_ranks_agree_the_less_the_shorter_the_runs_are() -> None:
    """The landscape is no easy one: this is what the schedule is up against."""
    landscape = Landscape(0)
    draws = generator(0, "ranks")
    many = [draw(SPACE, lambda name: float(draws.uniform())) for _ in range(300)]
    long = [landscape.truth(settings, LONG) for settings in many]
    agreement = [
        stats.spearmanr([landscape.truth(settings, epochs) for settings in many], long).statistic
        for epochs in (0.2, 0.8, 2.5)
    ]
    assert agreement[0] < agreement[1] < agreement[2] < 0.999


def test_at_an_eighth_of_its_cost_little_is_lost_against_48_full_trainings() -> None:
    landscapes = [Landscape(seed) for seed in SEEDS]
    full = [random_search(landscape, 48, seed) for seed, landscape in zip(SEEDS, landscapes, strict=True)]
    ours, costs = zip(*(found(seed, land) for seed, land in zip(SEEDS, landscapes, strict=True)), strict=True)
    assert max(costs) <= 48 * LONG / 8 * (1 + 1e-9)
    regret = mean_truth(landscapes, full) - mean_truth(landscapes, ours)
    assert regret <= 0.003
    # Random search of our cost loses several times as much.
    equal = [random_search(landscape, 6, 100 + seed) for seed, landscape in zip(SEEDS, landscapes, strict=True)]
    assert mean_truth(landscapes, full) - mean_truth(landscapes, equal) > 3 * max(regret, 0.001)


@pytest.mark.parametrize("sampler", ["qmc", "tpe"])
def test_the_other_samplers_beat_random_search_of_equal_cost(sampler: str) -> None:
    landscapes = [Landscape(seed) for seed in range(12)]
    ours = [found(seed, landscape, sampler)[0] for seed, landscape in enumerate(landscapes)]
    equal = [random_search(landscape, 6, 100 + seed) for seed, landscape in enumerate(landscapes)]
    assert mean_truth(landscapes, ours) > mean_truth(landscapes, equal) + 0.003

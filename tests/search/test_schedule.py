"""The schedule: a pure function of what was asked and of the trials so far (SPEC S1-S5)."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.search.landscape import LONG, SPACE, Landscape, cost, searched
from wellfit.errors import UserError
from wellfit.randomness import generator
from wellfit.search.replay import front_runner
from wellfit.search.samplers import SAMPLERS
from wellfit.search.schedule import Finished, Round, Schedule
from wellfit.search.space import Choice, Fixed, Integer, LogUniform, Space, Uniform, contains
from wellfit.search.trial import Task, Trial

MIXED: Space = {
    "lr": LogUniform(1e-5, 1e-1),
    "optimizer": Choice(("adam", "momentum")),
    "momentum": Uniform(0.5, 0.99, only_with={"optimizer": ("momentum",)}),
    "freeze": Integer(0, 3),
    "schedule": Fixed("constant"),
}


def outcome(task: Task, seed: int) -> Trial:
    """Any trial that a task may come to: finished, broken off or failed, at random by (seed, number)."""
    draw = generator(seed, "outcome", task.number)
    state = str(draw.choice(["finished", "finished", "finished", "pruned", "failed"]))
    score = float(draw.uniform(0.1, 0.9)) if state == "finished" else None
    epochs = task.epochs if state == "finished" else float(draw.uniform(0, task.epochs))
    return Trial(
        task.stage, task.number, task.settings, state, score, 0.01, rung=task.rung, epochs=epochs,
        continues=task.continues,
    )  # fmt: skip


@st.composite
def schedules(draw: Any) -> Schedule:
    trials = draw(st.none() | st.integers(1, 60))
    budget = draw(st.none() | st.floats(0.3, 200))
    assume(trials is not None or budget is not None)
    shortest = draw(st.sampled_from([0.2, 1.8]))
    assume(budget is None or budget >= shortest)
    return Schedule.plan(
        draw(st.sampled_from([SPACE, MIXED])),
        seed=draw(st.integers(0, 100)),
        longest=draw(st.sampled_from([2.0, 5.0, 40.0])),
        budget_epochs=budget,
        trials=trials,
        shortest=shortest,
        sampler=draw(st.sampled_from(SAMPLERS)),
        first=draw(st.sampled_from([(), ({"lr": 1e-3},), ({"lr": 1e-3}, {"lr": 5.0})])),
    )


def played(schedule: Schedule, seed: int) -> tuple[list[Round], list[Trial], Finished]:
    trials: list[Trial] = []
    rounds: list[Round] = []
    while isinstance(step := schedule.next(trials), Round):
        assert len(rounds) < 100, "a schedule ends"
        rounds.append(step)
        trials += [outcome(task, seed) for task in step.tasks]
    return rounds, trials, step


@hypothesis_settings(max_examples=25, deadline=None)
@given(schedules(), st.integers(0, 100))
def test_what_holds_of_every_search(schedule: Schedule, seed: int) -> None:
    rounds, trials, end = played(schedule, seed)
    tasks = [task for step in rounds for task in step.tasks]
    assert rounds
    assert all(step.tasks and step.reason for step in rounds)
    # Numbers are consecutive over the study, and every task is there once.
    assert [task.number for task in tasks] == list(range(len(tasks)))
    # Neither limit is passed, and no run is longer than the training that is searched for.
    if schedule.trials is not None:
        assert len(tasks) <= schedule.trials
    if schedule.budget_epochs is not None:
        assert cost(trials) <= schedule.budget_epochs * (1 + 1e-6)
    shortest = schedule.shortest if schedule.budget_epochs is not None else min(1.0, schedule.shortest)
    least, most = shortest * (1 - 1e-9), schedule.longest * (1 + 1e-9)
    assert all(least <= task.epochs <= most for task in tasks)
    by_number = {trial.number: trial for trial in trials}
    continued = [t.continues for t in trials if t.continues is not None and t.state != "failed"]
    assert len(set(continued)) == len(continued)  # no run forks; one that failed may be tried again
    for step in rounds:
        for task in step.tasks:
            assert (task.stage, task.rung) == (step.stage, step.rung)
            json.dumps(task.settings)
            if task.continues is None:
                assert contains(step.space, task.settings) or task.settings["lr"] in (1e-3, 5.0)
                continue
            parent = by_number[task.continues]
            assert parent.state == "finished"  # those that were broken off or failed are never promoted
            assert parent.settings == task.settings
            assert parent.epochs < task.epochs
            assert parent.number < step.tasks[0].number
    # Without a repeated setting.
    begun = [json.dumps(task.settings, sort_keys=True) for task in tasks if task.continues is None]
    assert len(set(begun)) == len(begun)
    assert end.reason
    assert (end.best is None) == all(trial.score is None for trial in trials)
    assert end.best is None or end.best in trials


@hypothesis_settings(max_examples=10, deadline=None)
@given(schedules(), st.integers(0, 100), st.randoms(use_true_random=False))
def test_a_replay_from_any_prefix_in_any_order_goes_on_alike(schedule: Schedule, seed: int, order: Any) -> None:
    rounds, trials, end = played(schedule, seed)
    read_back = Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert read_back == schedule
    shuffled = list(trials)
    order.shuffle(shuffled)
    assert read_back.next(shuffled) == end
    for step in order.sample(rounds, min(3, len(rounds))):
        before = [trial for trial in shuffled if trial.number < step.tasks[0].number]
        assert read_back.next(before) == step
        # The next round opens when every task of this one has a trial, and not before.
        arrived = [trial for trial in shuffled if trial.number <= step.tasks[-1].number]
        missing = order.choice(step.tasks).number
        assert read_back.next([trial for trial in arrived if trial.number != missing]) == step
        following = read_back.next(arrived)
        assert isinstance(following, Finished) or following.tasks[0].number == step.tasks[-1].number + 1


def test_stages_go_from_coarse_to_fine_with_longer_runs_and_the_taught_lengths() -> None:
    schedule = Schedule.plan(SPACE, seed=0, longest=100.0, trials=200)
    _, _, rounds = searched(schedule, Landscape(1))
    coarse = [step for step in rounds if step.stage == "coarse"]
    fine = [step for step in rounds if step.stage == "fine"]
    assert [step.tasks[0].epochs for step in coarse] == [1.0, 2.0, 4.0]  # SPEC S1: 1 to 5 epochs
    assert [step.tasks[-1].epochs for step in fine] == [10.0, 20.0]  # SPEC S1: 10 to 20
    assert [step.rung for step in coarse] == [0, 1, 2]
    counts = [len(step.tasks) for step in coarse]
    assert counts[1:] == [counts[0] // 2, counts[0] // 4]
    assert coarse[0].space == SPACE
    assert "best of" in fine[0].reason
    assert "lr narrowed from" in fine[0].reason


def test_the_first_trial_has_the_settings_that_were_given() -> None:
    first = {"lr": 0.3, "weight_decay": 1e-4}
    schedule = Schedule.plan(SPACE, seed=0, longest=5.0, budget_epochs=25.0, first=[first])
    step = schedule.next([])
    assert isinstance(step, Round)
    assert step.tasks[0].settings == first
    part = Schedule.plan(SPACE, seed=0, longest=5.0, budget_epochs=25.0, first=[{"lr": 0.3}]).next([])
    assert isinstance(part, Round)
    assert part.tasks[0].settings["lr"] == 0.3
    assert 1e-6 <= part.tasks[0].settings["weight_decay"] <= 1e-2


def test_the_best_go_on_and_the_default_is_judged_at_the_fine_length_too() -> None:
    schedule = Schedule.plan(SPACE, seed=0, longest=5.0, budget_epochs=25.0, first=[{"lr": 1e-5, "weight_decay": 1e-2}])
    rounds: list[Round] = []
    trials: list[Trial] = []
    while isinstance(step := schedule.next(trials), Round):
        rounds.append(step)
        # The score is the place of lr in its range: what is best is plain.
        trials += [
            Trial(t.stage, t.number, t.settings, "finished", 0.9 + 0.1 * math.log10(t.settings["lr"]),
                  rung=t.rung, epochs=t.epochs, continues=t.continues)
            for t in step.tasks
        ]  # fmt: skip
    first, second = rounds[0], rounds[1]
    by_lr = sorted(first.tasks, key=lambda task: -task.settings["lr"])
    assert {task.continues for task in second.tasks} == {task.number for task in by_lr[: len(second.tasks)]}
    fine = next(step for step in rounds if step.stage == "fine")
    assert 0 in {task.continues for task in fine.tasks}
    assert isinstance(step, Finished)
    assert step.best is not None
    assert step.best.settings["lr"] > 0.9 * max(trial.settings["lr"] for trial in trials)


@pytest.mark.parametrize(("low", "high", "side"), [(1e-2, 1.0, "low"), (1e-7, 1e-5, "high")])
def test_a_planted_best_outside_of_the_space_fires_the_warning_and_is_reached(
    low: float, high: float, side: str
) -> None:
    """SPEC S4. The best lr lies at 1e-3.5, half a decade or more beyond the range."""

    def run(task: Task) -> Trial:
        score = 0.9 - 0.05 * abs(math.log10(task.settings["lr"]) + 3.5)
        return Trial(
            task.stage, task.number, task.settings, "finished", score, 0.002, rung=task.rung, epochs=task.epochs,
            continues=task.continues,
        )  # fmt: skip

    schedule = Schedule.plan({"lr": LogUniform(low, high)}, seed=0, longest=20.0, trials=80)
    trials: list[Trial] = []
    rounds: list[Round] = []
    while isinstance(step := schedule.next(trials), Round):
        rounds.append(step)
        trials += [run(task) for task in step.tasks]
    fine = next(step for step in rounds if step.stage == "fine")
    (finding,) = fine.findings
    assert (finding.id, finding.evidence["side"]) == ("best-at-edge", side)
    assert f"at the {side} edge" in fine.reason
    widened = fine.space["lr"]
    assert isinstance(widened, LogUniform)
    assert widened.low < low if side == "low" else widened.high > high
    assert step.best is not None
    inside = min(abs(math.log10(end) + 3.5) for end in (low, high))
    assert abs(math.log10(step.best.settings["lr"]) + 3.5) < 0.5 * inside


def test_where_no_trial_finished_lower_rates_are_tried_and_failures_stop_nothing() -> None:
    def run(task: Task) -> Trial:
        fine = task.settings["lr"] < 5e-4
        state = "finished" if fine else "failed" if task.number % 2 else "pruned"
        return Trial(task.stage, task.number, task.settings, state, 0.5 if fine else None, epochs=0.1, rung=task.rung)

    space: Space = {"lr": LogUniform(1e-3, 1e-1)}
    schedule = Schedule.plan(space, seed=0, longest=5.0, budget_epochs=100.0)
    trials = [run(task) for task in played_round(schedule, []).tasks]
    again = played_round(schedule, trials)
    assert again.stage == "coarse 2"
    lowered = again.space["lr"]
    assert isinstance(lowered, LogUniform)
    assert lowered.low < 1e-3
    assert lowered.high < 1e-2
    assert "no coarse trial finished, so lower learning rates are tried" in again.reason
    trials += [run(task) for task in again.tasks]
    assert any(trial.score is not None for trial in trials)
    assert isinstance(schedule.next(trials), Round)


def played_round(schedule: Schedule, trials: list[Trial]) -> Round:
    step = schedule.next(trials)
    assert isinstance(step, Round)
    return step


@pytest.mark.parametrize("space", [{"lr": LogUniform(1e-3, 1e-1)}, {"dropout": Uniform(0.0, 0.5)}])
def test_a_search_in_which_nothing_ever_finishes_ends_with_a_reason(space: Space) -> None:
    schedule = Schedule.plan(space, seed=0, longest=5.0, trials=60)
    trials: list[Trial] = []
    while isinstance(step := schedule.next(trials), Round):
        trials += [Trial(t.stage, t.number, t.settings, "failed", rung=t.rung) for t in step.tasks]
    assert step.best is None
    assert "no trial finished" in step.reason
    assert len({trial.stage for trial in trials}) == (3 if "lr" in space else 1)


def test_trials_that_were_broken_off_give_back_what_they_did_not_use() -> None:
    landscape = Landscape(0)
    high: Space = {**SPACE, "lr": LogUniform(1e-4, 10.0)}  # most of it diverges
    schedule = Schedule.plan(high, seed=0, longest=LONG, budget_epochs=25.0)
    _, trials, rounds = searched(schedule, landscape)
    assert sum(trial.state == "pruned" for trial in trials) > 8
    _, tame, _ = searched(Schedule.plan(SPACE, seed=0, longest=LONG, budget_epochs=25.0), landscape)
    assert cost(trials) <= 25.0
    assert len(trials) + sum(len(step.tasks) for step in rounds if step.stage != "coarse") > len(tame)


def test_a_fine_stage_without_gain_is_the_last_one() -> None:
    schedule = Schedule.plan(SPACE, seed=0, longest=5.0, trials=400)
    trials: list[Trial] = []
    stages: list[str] = []
    while isinstance(step := schedule.next(trials), Round):
        stages.append(step.stage)
        trials += [
            Trial(t.stage, t.number, t.settings, "finished", 0.7, 0.01, rung=t.rung, epochs=t.epochs,
                  continues=t.continues)
            for t in step.tasks
        ]  # fmt: skip
    assert list(dict.fromkeys(stages)) == ["coarse", "fine"]
    assert "no gain beyond doubt" in step.reason
    assert len(trials) < 400


def test_gain_upon_gain_leads_to_fine_stage_upon_fine_stage() -> None:
    """Scores that rise without end towards higher rates: each stage finds better settings, until the trials are up."""
    schedule = Schedule.plan({"lr": LogUniform(1e-6, 1e-5)}, seed=0, longest=5.0, trials=150)
    trials: list[Trial] = []
    stages: list[str] = []
    while isinstance(step := schedule.next(trials), Round):
        stages.append(step.stage)
        trials += [
            Trial(t.stage, t.number, t.settings, "finished", 0.9 + 0.05 * math.log10(t.settings["lr"]), 0.001,
                  rung=t.rung, epochs=t.epochs, continues=t.continues)
            for t in step.tasks
        ]  # fmt: skip
    assert list(dict.fromkeys(stages))[:3] == ["coarse", "fine", "fine 2"]
    assert isinstance(step, Finished)
    assert step.best is not None
    assert step.best.settings["lr"] > 100 * 1e-5


def test_a_space_of_few_settings_runs_each_of_them_once() -> None:
    space: Space = {"weight_decay": Choice((0.0, 1e-5, 1e-4)), "balance": Choice(("none", "weights"))}
    for sampler in SAMPLERS:
        rounds, _, _ = played(Schedule.plan(space, seed=0, longest=5.0, trials=60, sampler=sampler), 1)
        begun = [tuple(task.settings.values()) for step in rounds for task in step.tasks if task.continues is None]
        assert 4 <= len(begun) <= 6
        assert len(set(begun)) == len(begun)


def test_a_grid_says_how_many_settings_it_makes() -> None:
    step = played_round(Schedule.plan(SPACE, seed=0, longest=5.0, budget_epochs=25.0, sampler="grid"), [])
    assert len(step.tasks) == 12  # 14 leave room for four by three
    assert f"{len(step.tasks)} settings are on a grid" in step.reason
    assert len({task.settings["lr"] for task in step.tasks}) == 4


def test_tpe_draws_in_batches_so_that_later_ones_learn_from_earlier_ones() -> None:
    _, _, rounds = searched(Schedule.plan(SPACE, seed=0, longest=5.0, trials=80, sampler="tpe"), Landscape(2))
    first_rungs = [step for step in rounds if step.stage == "coarse" and step.rung == 0]
    assert len(first_rungs) > 2
    assert all(len(step.tasks) <= 8 for step in first_rungs)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "needs a limit"),
        ({"trials": 0}, "at least one trial, got 0"),
        ({"budget_epochs": 0.01}, "needs the time of its shortest trial, 0.05 epochs, got 0.01"),
        ({"budget_epochs": math.nan}, "needs the time of its shortest trial"),
        ({"trials": 5, "longest": 0.0}, "positive number of epochs, got 0"),
        ({"trials": 5, "sampler": "rnd"}, "unknown sampler 'rnd'"),
        ({"trials": 5, "space": {}}, "is empty"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_sentence(more: dict[str, Any], said: str) -> None:
    asked: dict[str, Any] = {"space": SPACE, "seed": 0, "longest": 5.0, **more}
    with pytest.raises(UserError, match=said):
        Schedule.plan(asked.pop("space"), **asked)


def test_one_trial_is_a_search_too() -> None:
    rounds, trials, end = played(Schedule.plan(SPACE, seed=0, longest=5.0, trials=1), 0)
    assert len(rounds) == len(trials) == 1
    assert end.best == trials[0]


def test_a_schedule_that_has_answered_is_still_plain_data() -> None:
    """Workers are started by spawning: what a schedule remembers of its answers does not travel."""
    schedule = Schedule.plan(SPACE, seed=0, longest=5.0, trials=20)
    step = played_round(schedule, [])
    copied = pickle.loads(pickle.dumps(schedule))
    assert copied == schedule
    assert copied.next([]) == step
    assert "replay" not in repr(schedule).lower()


def test_a_trial_that_changed_changes_what_follows() -> None:
    schedule = Schedule.plan(SPACE, seed=0, longest=5.0, trials=40)
    first = played_round(schedule, [])
    rising = [Trial(t.stage, t.number, t.settings, "finished", 0.1 + t.number / 100, epochs=1.0) for t in first.tasks]
    falling = [replace(trial, score=0.9 - trial.number / 100) for trial in rising]
    assert played_round(schedule, rising) != played_round(schedule, falling)
    assert played_round(schedule, rising) == played_round(Schedule.from_dict(schedule.to_dict()), rising)


def at(number: int, score: float, epochs: float, error: float = 0.004) -> Trial:
    return Trial("final", number, {"lr": 0.1}, "finished", score, error, epochs=epochs)


def test_of_runs_at_full_length_the_one_that_scored_clearly_higher_is_taken() -> None:
    first, close, better = at(0, 0.860, 5.0), at(1, 0.864, 5.0), at(2, 0.870, 5.0)
    assert front_runner([first, close], 5.0) == first  # 0.004 is less than 0.004·√2
    assert front_runner([first, close, better], 5.0) == better
    # Shorter runs were compared with their neighbours for good reason, and lengths are not compared by score.
    assert front_runner([at(0, 0.860, 2.5), at(1, 0.870, 2.5)], 5.0).number == 0
    assert front_runner([at(0, 0.860, 2.5), at(1, 0.870, 5.0)], 5.0).number == 0
    assert front_runner([first, at(3, 0.900, 2.5)], 5.0) == first


def test_the_final_stage_brings_at_least_two_runs_to_full_length_within_the_budget() -> None:
    for seed in range(6):
        schedule = Schedule.plan(SPACE, seed=seed, longest=LONG, budget_epochs=6 * LONG)
        end, trials, rounds = searched(schedule, Landscape(seed))
        final = [trial for trial in trials if trial.stage == "final" and trial.state == "finished"]
        assert rounds[-1].stage == "final"
        assert sum(trial.epochs == LONG for trial in final) >= 2
        assert all(trial.continues is not None for trial in trials if trial.stage == "final")
        assert end.best is not None
        assert end.best.epochs == LONG
        assert cost(trials) <= 6 * LONG * (1 + 1e-9)


def test_where_a_third_of_the_budget_is_less_than_a_contest_there_is_no_final_stage() -> None:
    schedule = Schedule.plan(SPACE, seed=0, longest=LONG, budget_epochs=4 * LONG)
    _, _, rounds = searched(schedule, Landscape(0))
    assert {step.stage for step in rounds} == {"coarse", "fine"}

"""Parts of the work: what was found when time ran out, which checkpoints stay, how many workers, what may be kept."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellfit.config import Config
from wellfit.recipe import workforce
from wellfit.recipe.budget import Budget
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.search_end import cut_short
from wellfit.recipe.search_plan import make_schedule
from wellfit.recipe.search_request import SearchRequest, without_password
from wellfit.recipe.search_work import _Clock, concluded, tidy
from wellfit.recipe.workforce import choose_workforce, for_workers, speed, threads_for
from wellfit.record import RunFolder
from wellfit.search.schedule import Round, Schedule
from wellfit.search.space import LogUniform
from wellfit.search.trial import Task, Trial


def trial(number: int, score: float | None, epochs: float = 1.0, continues: int | None = None) -> Trial:
    settings = {"lr": 10.0 ** -(1 + number)}
    state = "pruned" if score is None else "finished"
    return Trial("coarse", number, settings, state, score, 0.01, 1.0, epochs=epochs, continues=continues)


def through(schedule: Schedule, trials: list[Trial]) -> Round:
    """Run the open round: rates near 1e-2 are good, and longer is better."""
    step = schedule.next(trials)
    assert isinstance(step, Round)
    for task in step.tasks:
        score = 0.5 + 0.05 * task.epochs - 0.1 * abs(math.log10(task.settings["lr"] / 1e-2))
        trials.append(
            Trial(
                **{
                    name: getattr(task, name) for name in ("stage", "number", "settings", "rung", "epochs", "continues")
                },
                state="finished",
                score=score,
                error=0.01,
                loss=1 - score,
            )
        )
    return step


def test_when_time_runs_out_complete_rounds_decide() -> None:
    """A round that was cut off after one trial has nothing to compare it with."""
    schedule = Schedule.plan({"lr": LogUniform(1e-4, 1.0)}, seed=0, longest=9.0, shortest=0.5, budget_epochs=60.0)
    trials: list[Trial] = []
    rounds = [through(schedule, trials) for _ in range(4)]
    cut = [t for t in trials if t.number <= rounds[-1].tasks[0].number]
    poor = replace(cut[-1], score=0.01)
    ended = concluded(schedule, [*cut[:-1], poor])
    assert ended.best is not None
    assert ended.best.number != poor.number
    assert ended.best.score == max(t.score for t in cut[:-1] if t.score is not None)
    assert rounds[-1].stage in ended.reason


def test_where_no_round_was_complete_what_there_is_decides() -> None:
    schedule = Schedule.plan({"lr": LogUniform(1e-4, 1.0)}, seed=0, longest=9.0, trials=50)
    trials: list[Trial] = []
    through(schedule, trials)
    ended = concluded(schedule, trials[:2])
    assert ended.best in trials[:2]
    assert concluded(schedule, []).best is None
    # Nothing was refined: that is said, and of a search that went its way it is not.
    assert "within its coarse stage, after 2 trials" in cut_short(trials[:2], ended).message
    assert cut_short(trials[:2], replace(ended, reason="the trials asked for are done")) is None


def test_a_checkpoint_stays_where_the_trial_that_went_on_from_it_failed(tmp_path: Path) -> None:
    checkpoint(tmp_path, 0)
    failed = Trial("coarse", 1, {"lr": 0.1}, "failed", continues=0)
    tidy(RunFolder(tmp_path), [trial(0, 0.5), failed], set())
    assert (tmp_path / "trials" / "0").exists()


def checkpoint(folder: Path, number: int, size: int = 100) -> None:
    path = folder / "trials" / str(number) / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * size)


def test_checkpoints_that_nobody_goes_on_from_are_removed(tmp_path: Path) -> None:
    done = [trial(0, 0.5), trial(1, 0.6), trial(2, 0.7, 2.0, continues=1), trial(3, 0.2)]
    for number in range(5):  # 4 is still running
        checkpoint(tmp_path, number)
    tidy(RunFolder(tmp_path), done, {3}, most=350)
    # 1 was continued; 0 is the worst that is not wanted, beyond the room.
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == ["2", "3", "4"]


def test_nothing_to_tidy(tmp_path: Path) -> None:
    tidy(RunFolder(tmp_path), [trial(0, 0.5)], set())


def test_a_trial_that_does_not_fit_is_not_begun() -> None:
    tasks = tuple(Task(n, "coarse", {}, 2.0) for n in range(3))
    clock = _Clock(time.monotonic() + 100)
    clock.next_round(Round("coarse", 0, tasks, {}, ""))
    assert not clock.too_late()  # nothing is known of how long one takes
    clock.took(trial(0, 0.5, epochs=2.0), seconds=90.0)
    assert not clock.too_late()
    clock.took(trial(1, 0.5, epochs=2.0), seconds=110.0)
    assert clock.too_late()
    assert not _Clock(math.inf).too_late()


@pytest.mark.parametrize("speed", [1000.0, math.inf])
def test_the_schedule_knows_what_its_length_rests_on(speed: float, material: Material) -> None:
    """So that it can be corrected by the speed of the trials."""
    job = Job("digits", Config(), RunFolder(Path()), None, Budget(108.0, time.monotonic()))
    asked = SearchRequest.of(None, trials=None, workers=1, storage=None, study=None, sampler=None, folds=1)
    schedule = make_schedule(job, material, {"lr": LogUniform(1e-4, 1e-2)}, asked, speed)
    assert schedule.time is not None
    assert schedule.time.seconds == pytest.approx(100.0, abs=1)
    images = len(material.data.split.train)
    assert schedule.time.epoch_images == pytest.approx(images + 100 / 3)
    if math.isinf(speed):  # not measured: the first trials say it
        assert schedule.budget_epochs is schedule.time.images_per_second is None
        assert schedule.longest == schedule.time.wanted
    else:
        assert schedule.time.images_per_second == pytest.approx(850)
        assert schedule.budget_epochs == pytest.approx(schedule.time.epochs(850, schedule.time.seconds))
        assert schedule.longest == schedule.time.longest(schedule.budget_epochs)


# Workers


@pytest.mark.parametrize(("together", "workers"), [(1050.0, 1), (1900.0, 2)])
def test_several_workers_only_where_they_are_measured_to_be_faster(
    together: float, workers: int, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workforce.engines, "CORES", 2)
    monkeypatch.setattr(workforce, "speed", lambda *_: 1000.0)
    monkeypatch.setattr(workforce, "_together", lambda *_: together)
    force = choose_workforce(material, 0, math.inf, print)
    assert force.workers == workers
    assert force.images_per_second == max(together if workers > 1 else 0.0, 1000.0)
    assert "1,000" in force.reason


def test_nothing_is_measured_where_that_is_not_worth_it(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workforce, "speed", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(workforce.engines, "CORES", 1)
    assert choose_workforce(material, 0, math.inf, print).workers == 1
    monkeypatch.setattr(workforce.engines, "CORES", 4)
    assert choose_workforce(material, 0, 60.0, print).workers == 1
    assert choose_workforce(material, 2, math.inf, print).threads == 2
    assert choose_workforce(material, 9, math.inf, print).threads == 1


@pytest.mark.parametrize(
    ("tasks", "workers", "cores", "threads"),
    [
        (1, 2, 2, [2]),
        (2, 2, 2, [1, 1]),
        (3, 2, 2, [1, 1, 2]),
        (5, 4, 4, [1, 1, 1, 1, 4]),
        (6, 4, 4, [1, 1, 1, 1, 2, 2]),
        (7, 4, 4, [1] * 7),
        (3, 1, 2, [1, 1, 1]),
        (2, 9, 4, [2, 2]),
    ],
)
def test_the_last_tasks_of_a_round_take_the_idle_cores(
    tasks: int, workers: int, cores: int, threads: list[int]
) -> None:
    assert [threads_for(i, tasks, workers, 1, cores) for i in range(tasks)] == threads


def test_a_worker_that_cannot_start_is_said(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no worker came to its end")

    said: list[str] = []
    monkeypatch.setattr(workforce.engines, "CORES", 2)
    monkeypatch.setattr(workforce, "run_workers", fails)
    monkeypatch.setattr(workforce, "speed", lambda *_: 1000.0)
    assert choose_workforce(material, 0, math.inf, said.append).workers == 1
    assert "cannot run beside each other" in said[0]


def test_speed_is_that_of_the_real_training(material: Material) -> None:
    ready: list[bool] = []
    assert speed(material, 0.2, lambda: ready.append(True)) > 10
    assert ready == [True]


def test_what_travels_to_workers_holds_no_images(material: Material) -> None:
    light = for_workers(material)
    with pytest.raises(NotImplementedError, match="pixel store"):
        light.data.source.reader.read(0)
    assert material.data.source.reader.read(0) is not None  # ours is left as it was
    assert len(light.training(0, "none").batch(0).images) == 32


# What may be kept


@given(st.text(st.characters(exclude_characters=":/@", exclude_categories=["Z", "C"]), min_size=1, max_size=20))
def test_no_password_is_kept(password: str) -> None:
    command = f"wellfit search photos --storage postgresql://me:{password}@host:5432/db --study birds"
    kept = without_password(command)
    assert kept == "wellfit search photos --storage postgresql://me:***@host:5432/db --study birds"
    assert without_password("wellfit search a:b@c --out d") == "wellfit search a:b@c --out d"


def test_a_request_comes_back_from_the_record() -> None:
    asked = SearchRequest.of(
        {"lr": LogUniform(1e-4, 1e-1)},
        trials=5,
        workers="auto",
        storage="postgresql://me:secret@host/db",
        study="birds",
        sampler=None,
        folds=0,
    )
    assert "secret" not in str(asked.as_dict())
    assert SearchRequest.from_dict(asked.as_dict()) == asked
    space = asked.given_space()
    assert space == {"lr": LogUniform(1e-4, 1e-1)}


def test_a_file_is_kept_with_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = SearchRequest.of(None, trials=5, workers=1, storage="shared.sqlite", study="birds", sampler=None, folds=0)
    assert asked.storage == str(tmp_path / "shared.sqlite")


def test_who_joins_takes_over_what_was_left_open() -> None:
    open_ = SearchRequest.of(None, trials=None, workers=3, storage="a.sqlite", study="s", sampler=None, folds=0)
    there = {"space": {"lr": {"log_uniform": [0.1, 1.0]}}, "trials": 9, "sampler": "qmc", "folds": 4}
    joined = open_.joining(there)
    assert (joined.space, joined.trials, joined.sampler, joined.folds) == (there["space"], 9, "qmc", 4)
    assert joined.workers == 3
    own = SearchRequest.of(None, trials=2, workers=1, storage="a.sqlite", study="s", sampler="grid", folds=2)
    assert (own.joining(there).trials, own.joining(there).sampler, own.joining(there).folds) == (2, "grid", 2)

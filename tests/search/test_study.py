"""The study: founded once, refused to others; one worker's way through it; what it does about the dead."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.search.rounds import FAST, Rounds, run, score_of
from wellfit.errors import UserError
from wellfit.search import founding
from wellfit.search.claims import Claims
from wellfit.search.place import connect, place_of
from wellfit.search.schedule import Finished, Round
from wellfit.search.study import Study
from wellfit.search.trial import Task, Trial

IDENTITY = {
    "data": "1f3a",
    "seed": 1,
    "space": {"lr": [1e-4, 1e-1]},
    "images": {"training": 75, "content": "1f"},
    "classes": ["crow", "hawk"],
    "recipe": {"model": {"name": "lenet5"}, "loss": "hinge"},
}


def opened(storage: str | Path, **given: Any) -> Study:
    return Study.open(storage, "birds", **{"identity": IDENTITY, "schedule": {"trials": 9}, **given})


def never() -> bool:
    return False


def test_the_first_worker_founds_the_study_and_the_others_read_its_schedule(file: Path) -> None:
    with opened(file) as first, opened(file, schedule={"trials": 500}) as second:
        assert first.schedule == second.schedule == {"trials": 9}
        assert first.identity == second.identity == IDENTITY
        assert first.trials() == second.watch() == []
    with Study.existing(file, "birds") as third:
        assert (third.identity, third.schedule) == (IDENTITY, {"trials": 9})


def test_of_many_that_begin_at_once_one_founds_the_study(storage: str) -> None:
    start, got = threading.Barrier(4), []

    def one(number: int) -> None:
        start.wait()
        with opened(storage, schedule={"of": number}) as study:
            got.append(study.schedule)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    assert all(schedule == got[0] for schedule in got)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": "9c2e"}, "begun with another data (1f3a there, 9c2e here); give"),
        ({"seed": 2, "data": "9c2e"}, "another data (1f3a there, 9c2e here), seed (1 there, 2 here); give"),
        ({"space": {"lr": [1e-5, 1e-1]}}, "another space.lr ([0.0001, 0.1] there, [1e-05, 0.1] here)"),
        ({"folds": 5}, "another folds (none there, 5 here)"),
        ({"images": {"training": 80, "content": "77"}}, "another images.training (75 there, 80 here); give"),
        (
            {"images": {"training": 75, "content": "77"}},
            "another set of images (as many there as here, but not the same)",
        ),
        ({"classes": ["crow", "finch", "owl"]}, "another classes (hawk only there, finch, owl only here); give"),
        ({"classes": ["hawk", "crow"]}, 'another classes (["crow", "hawk"] there, ["hawk", "crow"] here)'),
        ({"classes": list("abcdef")}, "(crow, hawk only there, a, b, c and 3 more only here)"),
        (
            {"recipe": {"model": {"name": "vgg16"}, "loss": "hinge"}},
            "another recipe.model.name (lenet5 there, vgg16 here); give",
        ),
    ],
)
def test_another_identity_is_refused_in_one_sentence_that_says_what_differs(
    file: Path, change: dict[str, Any], sentence: str
) -> None:
    opened(file).close()
    with pytest.raises(UserError) as refused:
        opened(file, identity={**IDENTITY, **change})
    assert sentence in str(refused.value)
    assert "study 'birds'" in str(refused.value)
    assert "\n" not in str(refused.value)
    with Study.open(file, "owls", identity={**IDENTITY, **change}, schedule={}) as other:
        assert other.trials() == []


def test_an_identity_survives_being_written(file: Path) -> None:
    identity = {"size": (32, 32), "rate": 0.1, 5: None}
    opened(file, identity=identity).close()
    opened(file, identity=identity).close()


def test_a_study_of_a_newer_wellfit_says_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(founding, "SCHEMA", 2)
    opened(file).close()
    monkeypatch.setattr(founding, "SCHEMA", 1)
    with pytest.raises(UserError, match=r"newer wellfit \(schema 2, this one reads 1\); upgrade"):
        opened(file)


def test_a_study_of_somebody_else_is_left_alone(file: Path) -> None:
    storage = connect(place_of(file))
    theirs = optuna.create_study(storage=storage, study_name="birds")
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(UserError, match="was not made by `wellfit search`"):
        opened(file)
    assert len(theirs.get_trials()) == 1
    storage.engine.dispose()


def test_what_is_not_there_is_said(file: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Study.existing(file.with_name("other.sqlite"), "birds")
    assert not file.with_name("other.sqlite").exists()
    opened(file).close()
    with pytest.raises(UserError, match="there is no study 'owls' in"):
        Study.existing(file, "owls")


@pytest.mark.parametrize("name", ["", "  ", "x" * 201])
def test_a_name_that_cannot_be_kept_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="1 to 200 characters"):
        Study.open(tmp_path / "s.sqlite", name, identity={}, schedule={})
    assert not list(tmp_path.iterdir())


def test_one_worker_does_all_tasks_in_their_order_and_a_second_one_finds_nothing_to_do(file: Path) -> None:
    ran: list[Task] = []
    rounds: list[Round] = []

    def one(task: Task) -> Trial:
        ran.append(task)
        (held,) = study.watch()
        assert (held.task, held.worker) == (task, "w")
        assert 0 <= held.seconds < 60
        return run(task)

    with opened(file) as study:
        end = study.work(Rounds(5, 3, 1), one, worker="w", stop=never, opened=rounds.append)
        assert isinstance(end, Finished)
        assert end.best is not None
        assert end.best.number == max((0, 1, 2, 4, 5, 6, 8), key=score_of)
        assert [task.number for task in ran] == list(range(9))
        assert [one.rung for one in rounds] == [0, 1, 2]
        trials = study.trials()
        assert [(t.number, t.settings, t.worker) for t in trials] == [(t.number, t.settings, "w") for t in ran]
        assert [t.state for t in trials][3] == "pruned"
        assert trials[7].reason == "out of memory"
    with opened(file) as study:
        assert study.work(Rounds(5, 3, 1), one, worker="late", stop=never) == end
        assert study.trials() == trials
    assert len(ran) == 9
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # no lock, no journal is left behind


def test_stop_is_asked_before_each_task_and_the_next_worker_goes_on(file: Path) -> None:
    asked = iter([False, False, True])
    with opened(file) as study:
        assert study.work(Rounds(5), run, worker="a", stop=lambda: next(asked)) is None
        assert [trial.number for trial in study.trials()] == [0, 1]
        assert study.work(Rounds(5), run, worker="b", stop=never) is not None
        assert [trial.worker for trial in study.trials()] == ["a", "a", "b", "b", "b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, UserError])
def test_what_a_task_raises_is_passed_on_and_gives_it_free_at_once(file: Path, error: type[BaseException]) -> None:
    def one(task: Task) -> Trial:
        if task.number == 2:
            raise error("here")
        return run(task)

    with opened(file) as study:
        with pytest.raises(error, match="here"):
            study.work(Rounds(4), one, worker="a", stop=never)
        assert study.watch() == []
        said: list[str] = []
    with opened(file, say=said.append) as study:
        study.work(Rounds(4), run, worker="b", stop=never)
        assert [trial.worker for trial in study.trials()] == ["a", "a", "b", "b"]
    assert said == []  # nothing had to be waited for or taken up


def test_a_trial_of_another_number_is_a_defect(file: Path) -> None:
    with opened(file) as study, pytest.raises(ValueError, match="task 0 came back as trial 9"):
        study.work(Rounds(1), lambda task: Trial("coarse", 9, {}, "failed"), worker="a", stop=never)


def test_a_schedule_that_goes_nowhere_is_a_defect(file: Path) -> None:
    class Stuck(Rounds):
        def next(self, trials: Any) -> Round:
            return Round("coarse", 0, (Task(0, "coarse", {}, 1.0),), {}, "again")

    with opened(file) as study, pytest.raises(ValueError, match="whose trials are all done"):
        study.work(Stuck(), run, worker="a", stop=never)


def abandoned(study: Study, number: int, host: str) -> None:
    """A claim whose worker never speaks."""
    claims = Claims(study._study, study._storage, "gone", host)
    claims.make(Rounds(3).next([]).tasks[number], "ghost")


def test_the_task_of_a_worker_that_is_not_heard_of_is_taken_up(storage: str) -> None:
    said: list[str] = []
    with opened(storage, say=said.append) as study:
        abandoned(study, 1, "elsewhere")
        study.work(Rounds(3), run, worker="w", stop=never, **FAST)
        assert [trial.worker for trial in study.trials()] == ["w"] * 3
    (taken,) = said
    assert taken.startswith("trial 1 of worker ghost is taken up: it was not heard of for ")


def test_a_task_that_its_workers_died_of_again_and_again_is_given_up_where_that_is_asked_for(file: Path) -> None:
    said: list[str] = []
    with opened(file, say=said.append) as study:
        claims = Claims(study._study, study._storage, "gone", "elsewhere")
        for number, dead in [(1, True), (1, False), (1, True), (2, True), (2, True), (0, False), (0, False), (2, True)]:
            abandoned(study, number, "elsewhere")
            claims.give_up(claims.running()[0], dead=dead)
        study.work(Rounds(3), run, worker="w", stop=never, deaths=3)
        trials = study.trials()
        assert [trial.state for trial in trials] == ["finished", "finished", "failed"]
        assert trials[2].reason == "its worker died 3 times, as happens where memory runs out"
        assert said == [f"trial 2 is given up: {trials[2].reason}"]
    with Study.open(file, "owls", identity={}, schedule={}) as study:  # never, where nothing is asked for
        claims = Claims(study._study, study._storage, "gone", "elsewhere")
        for _ in range(4):
            abandoned(study, 0, "elsewhere")
            claims.give_up(claims.running()[0], dead=True)
        study.work(Rounds(1), run, worker="w", stop=never)
        assert [trial.state for trial in study.trials()] == ["finished"]


def test_who_waits_for_others_can_be_stopped(file: Path) -> None:
    looked = []

    def stop() -> bool:
        looked.append(1)
        return len(looked) > 8

    with opened(file) as study:
        abandoned(study, 1, "elsewhere")
        assert study.work(Rounds(3), run, worker="w", stop=stop, interval=5, grace=20, poll=0.01) is None
        assert [trial.number for trial in study.trials()] == [0, 2]


def test_a_claim_that_was_lost_while_nobody_took_the_task_keeps_its_result(file: Path) -> None:
    said: list[str] = []
    ran: list[int] = []

    def one(task: Task) -> Trial:
        ran.append(task.number)
        if task.number == 0:  # another worker took this one for dead, and then died itself
            claims = Claims(study._study, study._storage, "other", "elsewhere")
            claims.give_up(claims.running()[0])
        return run(task)

    with opened(file, say=said.append) as study:
        study.work(Rounds(2), one, worker="w", stop=never)
        assert [trial.number for trial in study.trials()] == [0, 1]
    assert ran == [0, 1]  # the work is not done again
    assert said == []


def test_a_result_whose_task_another_worker_holds_is_left_out_with_a_message(file: Path) -> None:
    said: list[str] = []

    def one(task: Task) -> Trial:
        if task.number == 0:
            claims = Claims(study._study, study._storage, "other", "elsewhere")
            claims.give_up(claims.running()[0])
            claims.make(task, "other")
            theirs = claims.settle(task)
            assert theirs is not None
            claims.finish(theirs, Trial("coarse", 0, task.settings, "finished", 0.9, worker="other"))
        return run(task)

    with opened(file, say=said.append) as study:
        study.work(Rounds(2), one, worker="w", stop=never)
        assert [(trial.number, trial.worker) for trial in study.trials()] == [(0, "other"), (1, "w")]
    assert len(said) == 1
    assert "its result here is left out" in said[0]


KILLED = """
import os, signal, sys
from tests.search.rounds import Rounds
from wellfit.search.study import Study
def one(task):
    os.kill(os.getpid(), signal.SIGKILL)
Study.open(sys.argv[1], "birds", identity={}, schedule={}).work(Rounds(2), one, worker="k", stop=lambda: False)
"""


def test_a_search_whose_only_worker_was_killed_goes_on_at_once_in_its_folder(file: Path) -> None:
    # With the heartbeat's own grace it would wait for 20 s: the lock in the folder says that the worker is dead.
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], cwd=root)
    assert done.returncode == -9
    said: list[str] = []
    with opened(file, identity={}, say=said.append) as study:
        assert [held.task.number for held in study.watch()] == [0]
        study.work(Rounds(2), run, worker="w", stop=never, poll=30)
        assert [trial.number for trial in study.trials()] == [0, 1]
    assert said == ["trial 0 of worker k is taken up: its process is gone"]

"""The search as a whole: what it leaves behind, killed and taken up, shared, stopped, refused."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wellfit
from tests.recipe.plans import small_plan
from wellfit.config import load_config
from wellfit.errors import Interrupted, UserError
from wellfit.findings import GateFailed
from wellfit.inference import evaluate
from wellfit.recipe import search_plan, searching, trials
from wellfit.recipe.plan import ChecksPlan, ModelPlan, Plan, SearchPlan
from wellfit.recipe.search_run import SearchRun
from wellfit.record import RunFolder, read_record
from wellfit.report.history import read_history
from wellfit.search.space import Choice, LogUniform, Space

SPACE: Space = {"lr": LogUniform(1e-4, 1e-2), "optimizer": Choice(("adamw", "nesterov"))}
TRIALS = 7


def quick_plan(job: Any, data: Any) -> Plan:
    """A small net, nothing measured."""
    model = ModelPlan("lenet5", "none", 16, 16)
    planned = SearchPlan(validation_images=100, folds=len(data.split.folds or []))
    return small_plan(model=model, search=planned, checks=ChecksPlan(200, 40))


def quicken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(searching, "make_search_plan", quick_plan)
    patch.setattr(search_plan, "SHORTEST_TRIAL", 200)


@pytest.fixture(autouse=True)
def quick(untouched: SearchRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gates and the page take longer than these trials; one of the searches, the untouched one, has them."""
    quicken(monkeypatch)
    monkeypatch.setattr(searching, "check", lambda job, material: [])
    monkeypatch.setattr(searching, "write_report", lambda folder: None)


def search(out: Path, **options: Any) -> SearchRun:
    given = {
        "space": SPACE,
        "trials": TRIALS,
        "workers": 1,
        "config": wellfit.Config().replace(**{"training.epochs": 0.8}),
    }
    return wellfit.search("digits", out=out, **{**given, **options})


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchRun]:
    """What every repetition must be equal to."""
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        yield search(tmp_path_factory.mktemp("untouched") / "run")


def results(run: SearchRun) -> list[tuple[Any, ...]]:
    keys = (
        "trial",
        "stage",
        "rung",
        "continues",
        "settings",
        "state",
        "validation_accuracy",
        "validation_loss",
        "curve",
    )
    return [tuple(json.dumps(trial[key]) for key in keys) for trial in run.trials]


def test_a_search_holds_what_it_promises(untouched: SearchRun) -> None:
    said = untouched.as_dict()
    assert list(said)[:2] == ["schema", "run"]
    assert {"best", "trials", "finished", "pruned", "failed", "stages", "seconds", "train_seconds", "findings"} <= set(
        said
    )
    assert said["trials"] == said["finished"] + said["pruned"] + said["failed"] <= TRIALS
    assert said["seconds"] > said["train_seconds"] > 0
    assert json.loads(json.dumps(said)) == said
    best = max(untouched.trials, key=lambda trial: (trial["epochs"], trial["validation_accuracy"] or 0))
    assert set(said["best"]) == {"settings", "validation_accuracy"}
    assert said["best"]["validation_accuracy"] >= 0.9 * best["validation_accuracy"]
    assert [set(stage) for stage in said["stages"]] == [{"name", "ranges", "reason"}] * len(said["stages"])
    assert said["stages"][0]["ranges"] == {"lr": [1e-4, 1e-2], "optimizer": ["adamw", "nesterov"]}
    # The settings that would be used without a search come first, as far as the space holds them.
    assert untouched.trials[0]["settings"] == {"lr": 3e-3, "optimizer": "adamw"}
    kinds = {path.name for path in untouched.path.iterdir()}
    assert {"best.toml", "config.toml", "plan.toml", "record.jsonl", "report.html", "search.sqlite", "trials"} <= kinds
    assert "model.safetensors" not in kinds


def test_best_toml_is_a_configuration_with_the_best_settings(untouched: SearchRun) -> None:
    config = load_config(untouched.folder.best)
    assert config == untouched.config
    assert (config.optimizer.lr, config.optimizer.name) == tuple(untouched.settings.values())
    assert (config.model.name, config.model.image_size, config.augment) == ("lenet5", 16, ("crop",))
    assert config.schedule == "auto"  # none was searched: the training has its own


def test_the_test_split_stays_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image that is trained on, judged on or looked at by a gate is of the training or validation split."""
    seen: list[np.ndarray] = []
    splits: list[Any] = []
    original, batches = searching.prepare, evaluate.ValidationScore

    def prepare(job: Any) -> Any:
        data = original(job)
        splits.append(data.split)
        return replace(data, split=data.split)

    monkeypatch.setattr(searching, "prepare", prepare)
    from wellfit.recipe import material

    def spy(make: Any) -> Any:
        def made(store: Any, rows: np.ndarray, *args: Any, **options: Any) -> Any:
            seen.append(np.asarray(rows))
            return make(store, rows, *args, **options)

        return made

    monkeypatch.setattr(material, "TrainingBatches", spy(material.TrainingBatches))
    monkeypatch.setattr(material, "EvaluationBatches", spy(material.EvaluationBatches))
    run = search(tmp_path / "run", trials=2)
    assert batches is evaluate.ValidationScore
    (split,) = splits
    assert len(split.test)
    used = np.unique(np.concatenate(seen))
    assert np.isin(split.train, used).any()
    assert not np.isin(split.test, used).any()  # the digits' store holds every image in the source's order
    assert not any(line["kind"] == "evaluation" for line in read_record(run.folder.record))


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.mark.parametrize("after", [0, 3])
def test_a_killed_search_is_taken_up_and_nothing_is_run_twice(
    after: int, untouched: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    original = trials.TrialRunner.__call__

    def call(runner: trials.TrialRunner, task: Any) -> Any:
        if len(ran) == after:
            raise Killed
        trial = original(runner, task)
        ran.append(task.number)
        return trial

    with monkeypatch.context() as patch:
        patch.setattr(trials.TrialRunner, "__call__", call)
        with pytest.raises(Killed):
            search(tmp_path / "run")
    before = list(ran)
    with monkeypatch.context() as patch:
        again: list[int] = []
        patch.setattr(
            trials.TrialRunner, "__call__", lambda runner, task: (again.append(task.number), original(runner, task))[1]
        )
        resumed = wellfit.resume(tmp_path / "run")
    assert isinstance(resumed, SearchRun)
    assert sorted(before + again) == list(range(len(untouched.trials)))
    assert results(resumed) == results(untouched)
    assert resumed.best == untouched.best
    assert resumed.stages == untouched.stages


def test_two_workers_find_what_one_finds(untouched: SearchRun, tmp_path: Path) -> None:
    told: list[str] = []
    run = search(tmp_path / "run", workers=2, listener=lambda kind, fields: told.append(kind))
    assert results(run) == results(untouched)
    assert run.best == untouched.best
    assert {trial["worker"] for trial in run.trials} <= {"1", "2"}
    assert told.count("trial") == len(run.trials)  # each was shown as it ended, whichever process ran it
    # The page and the summary read what the workers wrote.
    assert len(read_history(run.folder).trials) == len(run.trials)


def test_ctrl_c_ends_it_after_the_trial_and_keeps_what_was_done(untouched: SearchRun, tmp_path: Path) -> None:
    def interrupt(kind: str, fields: dict[str, Any]) -> None:
        if kind == "trial" and fields["trial"] == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="2 trials kept; go on with `wellfit resume"):
        search(tmp_path / "run", listener=interrupt)
    half = SearchRun(tmp_path / "run")
    assert len(half.trials) == 2
    kept = half.folder.search.rename(tmp_path / "elsewhere.sqlite")
    with pytest.raises(UserError, match="no longer where they were kept"):
        wellfit.resume(tmp_path / "run")
    half.folder.search.unlink(missing_ok=True)
    kept.rename(half.folder.search)
    assert half.best is not None
    assert load_config(half.folder.best).optimizer.lr == half.settings["lr"]
    resumed = wellfit.resume(tmp_path / "run")
    assert isinstance(resumed, SearchRun)
    assert results(resumed) == results(untouched)
    with pytest.raises(UserError, match=r"finished, so there is nothing to take up; train with what it found"):
        wellfit.resume(tmp_path / "run")


def test_runs_that_share_a_study_share_its_trials(untouched: SearchRun, tmp_path: Path) -> None:
    """A second folder takes part in the study of the first: here all is done already, and it says the same."""
    shared = {"storage": tmp_path / "study.sqlite", "study": "digits"}
    first = search(tmp_path / "a", **shared)
    assert results(first) == results(untouched)
    second = search(tmp_path / "b", **shared)
    assert second.best == first.best
    assert [t["validation_accuracy"] for t in second.trials] == [t["validation_accuracy"] for t in first.trials]
    assert not (tmp_path / "b" / "trials").exists()
    # What it leaves open is as the study has it; what it asks otherwise is refused, and no folder stays behind.
    third = search(tmp_path / "c", **shared, space=None, trials=None)
    assert third.best == first.best
    with pytest.raises(UserError, match=r"begun with another .*seed \(0 there, 1 here\)"):
        search(tmp_path / "d", **shared, seed=1)
    with pytest.raises(UserError, match=r"another trials \(7 there, 9 here\)"):
        search(tmp_path / "e", **shared, trials=9)


def test_a_promoted_trial_whose_checkpoint_lies_elsewhere_starts_again(
    untouched: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trials.TrialRunner.checkpoint
    monkeypatch.setattr(
        trials.TrialRunner, "checkpoint", lambda self, number, run=0: original(self, 1000 + number, run)
    )
    monkeypatch.setattr(trials, "load_checkpoint", lambda path: None)
    run = search(tmp_path / "run")
    continued = [trial for trial in run.trials if trial["continues"] is not None]
    assert continued
    for trial in continued:
        assert (
            trial["reason"] == f"started again: the checkpoint of trial {trial['continues']} is not in this run folder"
        )
    assert [t["validation_accuracy"] for t in run.trials] == [t["validation_accuracy"] for t in untouched.trials]


def test_where_no_trial_finishes_a_gate_says_so(tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match="no-trial-finished: none of 2 trials finished; the first: the loss"):
        search(tmp_path / "run", space={"lr": LogUniform(1e3, 1e5)}, trials=2, force=True)
    run = SearchRun(tmp_path / "run")
    assert run.best is None
    assert run.as_dict()["pruned"] == 2
    with pytest.raises(UserError, match="no best settings"):
        _ = run.config


def test_settings_that_fail_are_told_and_the_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = trials.with_settings

    def breaking(material: Any, settings: dict[str, Any]) -> Any:
        if settings.get("optimizer") == "nesterov":
            raise RuntimeError("this one is broken")
        return original(material, settings)

    monkeypatch.setattr(trials, "with_settings", breaking)
    run = search(tmp_path / "run")
    assert run.as_dict()["failed"] >= 1
    (finding,) = [finding for finding in run.findings if finding.id == "failed-trials"]
    assert "RuntimeError: this one is broken" in finding.message
    assert run.settings["optimizer"] == "adamw"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"trials": 0}, "at least 1, got 0"),
        ({"workers": 0}, "--workers is auto or a number"),
        ({"workers": "many"}, "--workers is auto or a number"),
        ({"folds": -1}, "--folds is at least 2"),
        ({"sampler": "gird"}, "did you mean 'grid'"),
        ({"study": "birds"}, "got 'birds' and no --storage"),
        ({"storage": "postgresql://me@host/db"}, "give --study NAME"),
        ({"storage": "mysql://me@host/db", "study": "birds"}, "SQLite file or in PostgreSQL"),
        ({"space": {"lr": LogUniform(1e-3, 1.0), "leraning": LogUniform(1e-3, 1.0)}}, "unknown setting"),
        ({"space": "nowhere.toml"}, "there is no file 'nowhere.toml'"),
        ({"folds": 5000}, "cannot be divided into 5000 folds"),
        (
            {"space": {"dropout": Choice((0.1, 0.2)), "model": Choice(("resnet20", "torchvision:resnet18"))}},
            "takes none",
        ),
        ({"budget": "5s"}, "too small for anything"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing_behind(
    options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        search(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists() or any(
        line["kind"] == "recipe_step" for line in read_record(RunFolder(tmp_path / "run").record)
    )


def test_cross_validation_as_asked(tmp_path: Path) -> None:
    run = search(tmp_path / "run", folds=3, trials=1)
    assert [trial["runs"] for trial in run.trials] == [3]

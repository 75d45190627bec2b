"""The search as a whole: what it leaves behind, killed and taken up, shared, stopped, refused."""

from __future__ import annotations

import json
import math
import re
import signal
import time
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
from wellfit.recipe import search_plan, search_work, searching, trials, workforce
from wellfit.recipe.plan import ChecksPlan, ModelPlan, Plan, SearchPlan
from wellfit.recipe.search_run import SearchRun
from wellfit.record import RunFolder, read_record
from wellfit.report.history import read_history
from wellfit.report.terminal import show
from wellfit.search import study as study_module
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
    assert [set(stage) for stage in said["stages"]] == [{"name", "ranges", "reason", "importance"}] * len(
        said["stages"]
    )
    assert said["stages"][0]["ranges"] == {"lr": [1e-4, 1e-2], "optimizer": ["adamw", "nesterov"]}
    # The settings that would be used without a search come first, as far as the space holds them.
    assert untouched.trials[0]["settings"] == {"lr": 3e-3, "optimizer": "adamw"}
    kinds = {path.name for path in untouched.path.iterdir()}
    assert {"best.toml", "config.toml", "plan.toml", "record.jsonl", "report.html", "search.sqlite", "trials"} <= kinds
    assert "model.safetensors" not in kinds
    assert "Why settings are drawn at random" in untouched.folder.report.read_text(encoding="utf-8")


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
    original = searching.prepare

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
    (split,) = splits
    assert len(split.test)
    used = np.unique(np.concatenate(seen))
    # The spies saw all of it: what the trials train on, and what judges them.
    assert np.isin(split.train, used).all()
    assert np.isin(split.validation, used).sum() == 100
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


def test_two_workers_find_what_one_finds(untouched: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "CORES", 1)  # each trial by one thread, whoever runs it: the same bytes
    told: list[str] = []
    run = search(tmp_path / "run", workers=2, listener=lambda kind, fields: told.append(kind))
    assert results(run) == results(untouched)
    assert run.best == untouched.best
    assert {trial["threads"] for trial in run.trials} == {1}
    assert told.count("trial") == len(run.trials)  # each was shown as it ended, whichever process ran it
    # Both were at work, each trial is in the record of the one that ran it, and none in the search's own.
    written = {
        file.name.partition("-")[0]: [line for line in read_record(file) if line["kind"] == "trial"]
        for file in run.folder.worker_records()
    }
    assert set(written) == {"1", "2"}
    assert all(line["worker"] == worker for worker, lines in written.items() for line in lines)
    assert sorted(line["trial"] for lines in written.values() for line in lines) == list(range(len(run.trials)))
    assert not any(line["kind"] == "trial" for line in read_record(run.folder.record))
    # The page and the summary read what the workers wrote.
    assert len(read_history(run.folder).trials) == len(run.trials)


def test_the_single_last_trial_of_a_round_takes_all_cores(
    untouched: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers with a thread each; the promotion that is alone in its round is run with both cores' threads."""
    monkeypatch.setattr(searching, "CORES", 2)
    monkeypatch.setattr(workforce.engines, "CORES", 2)
    run = search(tmp_path / "run", workers=2, trials=3)
    assert [trial["continues"] for trial in run.trials][:2] == [None, None]
    assert run.trials[2]["rung"] == 1
    assert [trial["threads"] for trial in run.trials] == [1, 1, 2]  # as torch says in the worker


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
    # What is finished is told again, and nothing is run or written.
    written = resumed.folder.record.read_bytes()
    assert wellfit.resume(tmp_path / "run").as_dict() == resumed.as_dict()
    assert resumed.folder.record.read_bytes() == written


def test_ctrl_c_in_the_midst_of_a_trial_stops_it_and_resume_goes_on_from_there(
    untouched: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    original = trials.train

    def train(module: Any, batches: Any, *rest: Any, **options: Any) -> Any:
        stop = options["stop"]

        def asked() -> bool:
            steps.append(1)
            if len(steps) == interrupted:
                signal.raise_signal(signal.SIGINT)
            return bool(stop())

        return original(module, batches, *rest, **{**options, "stop": asked})

    monkeypatch.setattr(trials, "train", train)
    interrupted = 8
    with pytest.raises(Interrupted, match="0 trials kept; go on with `wellfit resume"):
        search(tmp_path / "run")
    assert len(steps) == 8  # it did not wait for the end of the trial
    assert [path.name for path in (tmp_path / "run" / "trials").rglob("paused.json")]
    resumed = wellfit.resume(tmp_path / "run")
    assert isinstance(resumed, SearchRun)
    assert results(resumed) == results(untouched)
    assert len(steps) * 32 == sum(trial["images"] for trial in untouched.trials)  # no step was trained twice


def test_runs_that_share_a_study_share_its_trials(untouched: SearchRun, tmp_path: Path) -> None:
    """A second folder takes part in the study of the first: here all is done already, and it says the same."""
    shared = {"storage": tmp_path / "study.sqlite", "study": "digits"}
    first = search(tmp_path / "a", **shared)
    assert results(first) == results(untouched)
    second = search(tmp_path / "b", **shared)
    assert second.best == first.best
    assert [t["validation_accuracy"] for t in second.trials] == [t["validation_accuracy"] for t in first.trials]
    assert not (tmp_path / "b" / "trials").exists()
    # It came when all rounds were over, and has all of them.
    assert second.stages == first.stages
    assert second.importance == first.importance
    assert [f.as_dict() for f in second.findings] == [f.as_dict() for f in first.findings]
    assert (tmp_path / "b" / "best.toml").read_text() == (tmp_path / "a" / "best.toml").read_text()
    # What it leaves open is as the study has it; what it asks otherwise is refused, and no folder stays behind.
    third = search(tmp_path / "c", **shared, space=None, trials=None)
    assert third.best == first.best
    with pytest.raises(UserError, match=r"begun with another .*seed \(0 there, 1 here\)"):
        search(tmp_path / "d", **shared, seed=1)
    with pytest.raises(UserError, match=r"another trials \(7 there, 9 here\)"):
        search(tmp_path / "e", **shared, trials=9)


def test_who_is_second_to_found_a_study_takes_over_its_plan(
    untouched: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both looked, and there was none; while the second one planned, the first one founded it."""
    shared = {"storage": tmp_path / "study.sqlite", "study": "digits"}
    search(tmp_path / "a", **shared)
    slower = quick_plan
    monkeypatch.setattr(searching, "_begun", lambda *_: None)
    monkeypatch.setattr(
        searching, "make_search_plan", lambda job, data: slower(job, data).replace(reasons=("another machine",))
    )
    run = search(tmp_path / "b", **shared)
    assert (tmp_path / "b" / "plan.toml").read_text() == (tmp_path / "a" / "plan.toml").read_text()
    plans = [line for line in read_record(run.folder.record) if line["kind"] == "plan"]
    assert [line["reason"] for line in plans] == ["another machine", "made by hand"]
    assert run.best == untouched.best


class Shared:
    """A study of 100 s, founded at 1,000 on a clock that stands still; a second machine comes later."""

    def __init__(self, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        self.clock, self.tmp_path, self.orders = 1000.0, tmp_path, list[Any]()
        patch.setattr(study_module, "now", lambda storage: self.clock)
        patch.setattr(searching, "work", lambda orders, job, study: self.orders.append((orders, time.time())))

    def left(self, name: str, at: float, **options: Any) -> float:
        """Seconds that a command which begins at that time has for its trials."""
        self.clock = at
        given = {"storage": self.tmp_path / "study.sqlite", "study": "digits", "trials": None, **options}
        with pytest.raises(UserError, match="used up before a trial was done"):
            search(self.tmp_path / name, **given)
        orders, now = self.orders[-1]
        assert now - orders.begun == pytest.approx(at - 1000.0, abs=2.0)
        return math.inf if orders.until is None else orders.until - now


def test_the_budget_of_a_shared_study_runs_from_its_founding(
    untouched: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = Shared(tmp_path, monkeypatch)
    first = machines.left("a", 1000.0, budget="100s")
    assert 60 < first < 100 - search_plan.CLOSING
    # Who comes later has what is left of it, however long its own start took.
    assert machines.left("b", 1040.0) == pytest.approx(first - 40, abs=2.0)
    assert machines.left("c", 1099.0) == pytest.approx(0.0, abs=0.1)
    # A budget of its own ends its own part; it does not make the study longer.
    assert machines.left("d", 1010.0, budget="30s") < 30 - search_plan.CLOSING
    assert machines.left("e", 1050.0, budget="10m") == pytest.approx(first - 50, abs=2.0)
    # A night after: the time of the others is not known, so it counts.
    with pytest.raises(UserError, match="used up before a trial was done"):
        wellfit.resume(tmp_path / "a")
    orders, now = machines.orders[-1]
    assert orders.until - now == pytest.approx(first - 50, abs=2.0)


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


def test_what_the_rules_see_on_the_curves_is_summed_up(
    untouched: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One finding an id, with the numbers of all runs that have it; the page and --json have it too."""
    calls = iter(range(100))
    monkeypatch.setattr(
        trials.Curve, "findings", lambda *_: ["lr-too-high"] if next(calls) % 2 else ["dead-relu", "lr-too-high"]
    )
    run = search(tmp_path / "run", trials=3)
    assert [trial["continues"] for trial in run.trials] == [None, None, 0]  # the run of trial 0 counts by its last one
    by_id = {finding.id: finding for finding in run.findings}
    assert by_id["lr-too-high"].evidence == {"trials": [1, 2], "of": 2, "best": True}
    assert by_id["lr-too-high"].severity == "warning"
    assert "on the curves of 2 of 2 runs, the best one among them: the learning rate is too high" in str(
        by_id["lr-too-high"]
    )
    assert by_id["dead-relu"].evidence["trials"] == [2]
    assert {"lr-too-high", "dead-relu"} <= {finding["id"] for finding in run.as_dict()["findings"]}
    assert {finding["id"] for finding in read_history(run.folder).findings} >= {"lr-too-high", "dead-relu"}


def test_importance_is_told_after_each_stage(
    untouched: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def shares(space: Space, trials: list[Any], seed: int) -> dict[str, float]:
        seen.append(len(trials))
        return {"lr": len(trials) / 100, "optimizer": 1 - len(trials) / 100}

    monkeypatch.setattr(search_work, "importance", shares)
    told: list[tuple[str, int]] = []

    def listen(kind: str, fields: dict[str, Any]) -> None:
        if kind == "importance":
            told.append((fields["stage"], fields["trials"]))

    run = search(tmp_path / "run", trials=16, listener=listen)
    stages = list(dict.fromkeys(trial["stage"] for trial in run.trials))
    assert len(stages) > 1
    ends = [1 + max(t["trial"] for t in run.trials if t["stage"] == stage) for stage in stages]
    assert told == list(zip(stages, ends, strict=True))
    assert [stage["importance"]["lr"] for stage in run.stages] == [end / 100 for end in ends]
    assert run.importance == run.stages[-1]["importance"]
    wellfit.resume(run.path)
    assert seen == ends  # once each
    assert "importance by the trials up to here: lr" in show(run.folder)


def test_another_recipe_and_other_images_are_named(untouched: SearchRun, tmp_path: Path) -> None:
    """By what differs, not by a hash."""
    shared = {"storage": tmp_path / "study.sqlite", "study": "digits", "trials": 1}
    search(tmp_path / "a", **shared)
    other = wellfit.Config().replace(**{"training.epochs": 0.8, "model.name": "resnet20"})
    with pytest.raises(UserError, match=r"another recipe\.model\.name \(auto there, resnet20 here\); give"):
        search(tmp_path / "b", **shared, config=other)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (120, 8, 8), dtype=np.uint8), np.arange(120) % 3
    with pytest.raises(UserError, match=r"images\.training .*classes \(3, 4, 5 and 4 more only there\)"):
        wellfit.search((images, labels), SPACE, out=tmp_path / "c", workers=1, config=other, **shared)


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
    begun = {"folds", "space"} & options.keys() and sentence in ("cannot be divided into 5000 folds", "takes none")
    if not begun:  # it is said before a folder is made
        assert not (tmp_path / "run").exists()
        return
    # The data were read by then: what was done is told, no trial was begun, and the folder says why.
    lines = list(read_record(RunFolder(tmp_path / "run").record))
    assert [line["name"] for line in lines if line["kind"] == "recipe_step"][:2] == ["audit", "split"]
    assert not any(line["kind"] in ("stage", "trial", "best") for line in lines)
    assert (lines[-1]["kind"], lines[-1]["status"]) == ("end", "failed")
    assert re.search(sentence, lines[-1]["reason"])


def test_cross_validation_as_asked(tmp_path: Path) -> None:
    run = search(tmp_path / "run", folds=3, trials=1)
    assert [trial["runs"] for trial in run.trials] == [3]

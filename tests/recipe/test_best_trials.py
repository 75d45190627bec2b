"""The search's best trials as members of an ensemble: few, whole, of another kind each, found again after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.recipe.plans import longer, write_plan
from wellfit.data.split import make_folds
from wellfit.errors import Interrupted
from wellfit.recipe import api, steps
from wellfit.recipe.best_trials import BestTrials
from wellfit.recipe.combining import Bench, combine
from wellfit.recipe.fitting import train_network
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.plan import EndingPlan, SearchPlan
from wellfit.recipe.settings import find_settings
from wellfit.recipe.trials import TrialRunner
from wellfit.record import read_record
from wellfit.search.trial import Task


def net(value: float) -> nn.Module:
    module = nn.Linear(1, 1)
    nn.init.constant_(module.weight, value)
    return module


def kept(best: BestTrials) -> list[float]:
    """The first weight of each that is kept, which `net` has made the trial's number."""
    return [each.weights()["weight"].item() for each in best.kept()]


def tell(best: BestTrials, number: int, score: float, lr: float, epochs: float = 2.0) -> None:
    best(Task(number, "fine", {"lr": lr}, epochs), net(number), score, lr)


def test_the_best_of_the_longest_are_kept_each_of_another_kind(job: Job) -> None:
    best = BestTrials(job, 2)
    tell(best, 0, 0.99, 1e-3, epochs=1.0)
    assert kept(best) == [0]
    tell(best, 1, 0.80, 1e-3)  # longer: what was shorter goes
    assert kept(best) == [1]
    tell(best, 2, 0.85, 1.4e-3)  # hardly another rate, and better
    assert kept(best) == [2]
    tell(best, 3, 0.70, 1e-2)
    tell(best, 4, 0.60, 1e-1)  # a third
    tell(best, 5, 0.99, 1e-1, epochs=1.0)
    assert kept(best) == [2, 3]
    tell(best, 6, 0.75, 1e-1)
    assert kept(best) == [2, 6]
    files = list((job.folder.checkpoint.parent / "members").iterdir())
    assert len(files) == 2  # no more than that is ever on the disk
    assert kept(BestTrials(job, 2)) == [2, 6]  # another session finds them


def test_none_wanted_writes_nothing(job: Job) -> None:
    best = BestTrials(job, 0)
    tell(best, 0, 0.9, 1e-3)
    assert best.kept() == []
    assert not job.folder.checkpoint.parent.exists()


def test_a_network_of_a_fold_is_never_a_member(material: Material, tmp_path: Path) -> None:
    """It was trained on images that choose the members."""
    told: list[float] = []
    split = material.data.split
    folds = make_folds(split, material.data.audit, 0)
    folded = replace(
        material,
        data=replace(material.data, split=replace(split, folds=folds)),
        plan=material.plan.replace(search=replace(material.plan.search, folds=len(folds))),
    )
    for each in (folded, material):
        runner = TrialRunner(
            each,
            tmp_path / str(len(told)),
            lambda kind, **_: None,
            trained=lambda task, module, score, lr: told.append(lr),
        )
        trial = runner(Task(0, "coarse", {"lr": 2e-3}, 0.05))
        assert trial.state == "finished"
    assert told == [2e-3]


def test_trials_are_judged_beside_the_training_and_what_was_kept_is_what_was_scored(
    job: Job, material: Material
) -> None:
    ending = EndingPlan(1, (0.8, 1.0), trials=2)
    search = SearchPlan(4, 4, 4, 20, len(material.data.split.validation))
    material = replace(material, plan=material.plan.replace(ending=ending, training=longer(20), search=search))
    find_settings(job, material)
    found = BestTrials(job, 2).kept()
    lines = {line["trial"]: line for line in read_record(job.folder.record) if line["kind"] == "trial"}
    assert 1 <= len(found) <= 2
    fitted = train_network(job, material, Settings(3e-3, 5e-2))
    bench = Bench(job, material, fitted)
    for each in found:
        judged = bench.candidate(each.name, "trial", each.weights).judged
        assert judged.score == pytest.approx(lines[each.about["number"]]["validation_accuracy"], abs=1e-9)
    combined = combine(job, material, fitted)
    told = {outcome.name: outcome for outcome in job.outcomes}["ensemble"]
    assert told.status == "done"
    assert f"{len(found)} best trials of different kind" in told.reason
    score, _ = material.validation_score()(combined.module)
    assert score == combined.score >= fitted.score


def test_a_trial_that_is_better_by_itself_is_handed_over(job: Job, material: Material) -> None:
    """A training of two steps beside a trial of sixty."""
    ending = EndingPlan(1, (0.5, 1.0), trials=1)
    material = replace(material, plan=material.plan.replace(ending=ending, training=longer(2), search=SearchPlan()))
    runner = TrialRunner(
        material, job.folder.path, lambda kind, **_: None, rate="one_cycle", trained=BestTrials(job, 1)
    )
    trial = runner(Task(7, "final", {"lr": 3e-3}, 60 / 39))
    fitted = train_network(job, material, Settings(3e-3, 5e-2))
    combined = combine(job, material, fitted)
    assert trial.score is not None
    assert combined.score >= trial.score > fitted.score
    if combined.built.name != "ensemble":
        own = BestTrials(job, 1).kept()[0].weights()
        assert all(torch.equal(value, own[name]) for name, value in combined.module.state_dict().items())


def test_a_run_killed_after_its_search_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = EndingPlan(1, (0.5, 1.0), trials=2)
    plan = write_plan(tmp_path / "p.toml", training=longer(20), search=SearchPlan(4, 4, 4, 20, 100), ending=ending)
    monkeypatch.setattr(steps, "write_report", lambda folder: None)  # the page has tests of its own
    untouched = api.fit("digits", plan=plan, out=tmp_path / "a")
    line = next(line for line in read_record(untouched.folder.record) if line.get("name") == "ensemble")
    assert line["kind"] == "begin"

    def killed(*arguments: object) -> object:
        raise Interrupted("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(steps, "combine", killed)
        with pytest.raises(Interrupted):
            api.fit("digits", plan=plan, out=tmp_path / "b")
    resumed = api.resume(tmp_path / "b")
    assert resumed.folder.model_weights.read_bytes() == untouched.folder.model_weights.read_bytes()

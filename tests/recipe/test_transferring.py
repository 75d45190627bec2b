"""The policy in a run: what the probe saw decides, what was asked for is followed, validation keeps the best (T4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from tests.recipe.jobs import job_in
from tests.recipe.plans import longer, small_plan
from wellfit.config import Config
from wellfit.errors import UserError
from wellfit.models.zoo import build
from wellfit.recipe import planning
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.model_choice import Candidate, Choice
from wellfit.recipe.plan import Plan, ScratchPlan
from wellfit.recipe.planning import make_plan
from wellfit.recipe.prepare import Prepared
from wellfit.recipe.probing import Looked, control, linear, probe
from wellfit.recipe.transferring import carry_out, choose_strategy, evidence_of, fine_tuning_settings, transfer
from wellfit.record import read_record
from wellfit.transfer.policy import ALL, EARLIER, FASTER, PROBE, SCRATCH, Decision
from wellfit.transfer.rates import LOWEST


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A resnet20 of ten other classes, its running statistics fitted to noise."""
    module = build("resnet20", 10, image_size=16, seed=11).module.train()
    noise = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for _ in range(40):
        module(noise)
    path = tmp_path_factory.mktemp("weights") / "pretrained.pth"
    torch.save(module.state_dict(), path)
    return path


def plan_of(weights: Path, steps: int = 0, **changes: object) -> Plan:
    plan = small_plan()
    model = replace(plan.model, name="resnet20", weights=str(weights), transfer="probe", options={})
    return plan.replace(model=model, training=longer(steps, evaluate_every=10), **changes)


@pytest.fixture(scope="module")
def few(digits: Prepared) -> Prepared:
    """100 of the digits to train on, 60 to choose by."""
    split = digits.split
    return replace(digits, split=replace(split, train=split.train[:100], validation=split.validation[:60]))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """The job of the first look."""
    made = job_in(tmp_path_factory.mktemp("first") / "run")
    yield made
    made.record.close()


@pytest.fixture(scope="module")
def looked(first: Job, few: Prepared, weights: Path) -> Looked:
    return probe(first, Material.of(few, plan_of(weights)))


def decision(*strategies: str, kind: str = "different") -> Decision:
    return Decision(strategies, ("little", kind), True, "", ())


def test_the_finding_prints_the_table_with_the_numbers_that_were_measured(job: Job, looked: Looked) -> None:
    made = choose_strategy(job, looked)
    (finding,) = [finding for finding in job.findings if finding.id == "transfer-policy"]
    assert finding.evidence["table"] == made.table
    assert "100 training images of 10 classes" in made.table
    for stage in evidence_of(looked).stages:
        assert f"{stage.layer} ({stage.pooling})  {stage.score:.1%}" in made.table
    said = [line["text"] for line in read_record(job.folder.record) if line["kind"] == "say"]
    assert made.table in said
    assert made.cell[0] == "little"
    assert job.outcomes[-1].name == "policy"


def test_a_small_net_from_scratch_is_measured_where_the_plan_has_one(job: Job, looked: Looked, tmp_path: Path) -> None:
    small = ScratchPlan("whitened", 16, 16, 40, 3e-3, 5e-2, {"widths": [16, 32, 64]})
    plan = looked.material.plan.replace(compared=small)
    made = choose_strategy(job, replace(looked, material=replace(looked.material, plan=plan)))
    (line,) = [line for line in made.table.splitlines() if "small net from scratch" in line]
    again = job_in(tmp_path / "again")
    assert choose_strategy(again, replace(looked, material=replace(looked.material, plan=plan))).table == made.table
    again.record.close()
    assert float(line.split()[-1].rstrip("%")) > 25  # of ten classes, after 13 epochs of 100 images
    assert not any(line["kind"] == "trial" for line in read_record(job.folder.record))
    (finding,) = [finding for finding in job.findings if finding.id == "transfer-policy"]
    assert "trained from scratch for a short time" in finding.message


def test_without_one_the_policy_says_so(job: Job, looked: Looked) -> None:
    assert any("no small net" in reason for reason in choose_strategy(job, looked).reasons)


def test_random_weights_are_compared_on_the_same_images(looked: Looked) -> None:
    compared = control(looked)
    assert compared is not None
    pretrained, random, images = compared
    # These weights are random numbers themselves: neither is clearly better.
    assert abs(pretrained - random) < 0.25
    assert images == 40
    assert control(looked) == compared


def test_the_record_has_every_setting_once_and_one_that_was_taken(first: Job, looked: Looked) -> None:
    rows = [line for line in read_record(first.folder.record) if line["kind"] == "probe"]
    assert len(rows) == len(looked.result.table)
    (chosen,) = [row for row in rows if row["chosen"]]
    assert looked.result.spot is not None
    assert (chosen["layer"], chosen["pooling"]) == (looked.result.spot.layer, looked.result.spot.pooling)


def test_a_second_look_reads_the_features_of_the_first(job: Job, looked: Looked, few: Prepared, weights: Path) -> None:
    again = probe(job, Material.of(few, plan_of(weights)))
    assert "read from an earlier pass" in job.outcomes[-1].reason
    np.testing.assert_array_equal(again.result.probe.weight, looked.result.probe.weight)


@pytest.mark.parametrize(("strategy", "layers"), [(PROBE, {"layer3"}), (EARLIER, {"layer1", "layer2"})])
def test_a_linear_strategy_sits_where_it_says(job: Job, looked: Looked, strategy: str, layers: set[str]) -> None:
    (one,) = carry_out(job, looked, decision(strategy))
    material, fitted = one.material, one.fitted
    assert one.strategy == strategy
    assert fitted.module.layer in layers
    assert material is looked.material
    rebuilt = build(fitted.built.name, 10, image_size=16, **fitted.built.options).module
    rebuilt.load_state_dict(fitted.module.state_dict())
    inputs = material.inputs(material.data.split.validation[:8])
    with torch.no_grad():
        torch.testing.assert_close(rebuilt.eval()(inputs), fitted.module.eval()(inputs))
    assert {o.name: o.status for o in job.outcomes}["fine-tune"] == "skipped"


def test_the_score_on_validation_is_that_of_a_classifier_fitted_on_training_images(looked: Looked) -> None:
    held = linear(looked, looked.result, unseen_validation=True)
    score, _ = looked.material.validation_score()(held.module)
    assert score == pytest.approx(held.on_validation, abs=0.03)  # the standardisation alone differs


def test_stages_of_little_data_are_judged_by_cross_validation(
    looked: Looked, few: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All 160 images judge, each once; with more images than LITTLE the 60 of the validation split do."""
    assert looked.judged_by == "5-fold cross-validation"
    assert sorted(np.concatenate(looked.folds)) == list(range(160))
    monkeypatch.setattr("wellfit.recipe.probing.LITTLE", 100)
    again = job_in(tmp_path / "again")
    split_judged = probe(again, looked.material)
    again.record.close()
    assert split_judged.judged_by == "60 validation images"
    assert [list(fold) for fold in split_judged.folds] == [list(range(100, 160))]


def test_a_plan_that_holds_fine_tuning_is_followed_and_validation_decides(
    job: Job, few: Prepared, weights: Path
) -> None:
    material, fitted = transfer(job, Material.of(few, plan_of(weights, steps=40)))
    done = {outcome.name: outcome for outcome in job.outcomes}
    assert done["fine-tune"].status == "done"
    score, _ = material.validation_score()(fitted.module)
    if done["fine-tune"].gain:
        assert score == fitted.score
        assert fitted.settings.lowest == LOWEST
    else:
        assert "no better by itself" in done["fine-tune"].reason


def test_what_was_asked_for_is_taken(job: Job, few: Prepared, weights: Path) -> None:
    _, fitted = transfer(job, Material.of(few, plan_of(weights, transfer_strategy=PROBE)))
    assert fitted.module.layer == "layer3"
    (finding,) = [finding for finding in job.findings if finding.id == "transfer-policy"]
    assert "'probe' was asked for" in finding.message


def test_a_small_net_from_scratch_is_handed_over_with_its_own_size(job: Job, few: Prepared, weights: Path) -> None:
    scratch = ScratchPlan("whitened", 16, 16, 60, 3e-3, 5e-2, {"widths": [16, 32, 64]})
    plan = plan_of(weights, transfer_strategy=SCRATCH, scratch=scratch)
    material, fitted = transfer(job, Material.of(few, plan))
    assert (material.plan.model.name, material.plan.model.transfer) == ("whitened", "none")
    assert fitted.built.name == "whitened"
    assert fitted.score > 0.5  # of ten classes
    assert {o.name: o.status for o in job.outcomes}["train"] == "done"


def test_rates_are_higher_for_different_data_unless_one_was_asked_for(job: Job, looked: Looked) -> None:
    usual = looked.material.plan.optimizer.lr
    assert fine_tuning_settings(job, looked.material, decision(ALL, kind="similar")).lr == usual
    assert fine_tuning_settings(job, looked.material, decision(ALL)).lr == pytest.approx(FASTER * usual)
    asked = replace(job, config=Config().replace(**{"optimizer.lr": usual}))
    assert fine_tuning_settings(asked, looked.material, decision(ALL)).lr == usual


@pytest.mark.parametrize(("strategy", "tunes", "scratch"), [("all", True, False), ("scratch", False, True)])
def test_a_plan_has_time_for_what_was_asked_for(
    job: Job, digits: Prepared, weights: Path, strategy: str, tunes: bool, scratch: bool
) -> None:
    asked = {"model.name": "resnet20", "model.weights": str(weights), "model.image_size": 16, "engine.threads": 1}
    job.config = Config().replace(**asked, **{"training.transfer": strategy})
    plan = make_plan(job, digits, left=60.0)
    assert plan.transfer_strategy == strategy
    assert (plan.training.steps > 0, plan.scratch.steps > 0) == (tunes, scratch)
    little = make_plan(replace(job, config=Config().replace(**asked)), digits, left=60.0)
    assert (little.training.steps, little.scratch.steps) == (0, 0)
    assert plan.compared.steps == 0  # nothing is left to decide
    assert any("a linear classifier is advised" in reason for reason in little.reasons)


@pytest.mark.parametrize(("speed", "steps"), [(1e6, 188), (2000, 96), (500, 0)])
def test_the_small_net_that_is_compared_with_takes_little_of_the_time(
    digits: Prepared, monkeypatch: pytest.MonkeyPatch, speed: float, steps: int
) -> None:
    """At 6,000 images a second and more all of them; 3% of 60 s at 2,000 × 0.85; too few to tell are none."""
    net = Candidate("whitened", {"widths": [8, 8, 8]}, 16, speed)
    monkeypatch.setattr(planning, "small_net", lambda *arguments: net)
    choice = cast(Choice, SimpleNamespace(engine=None))
    assert planning._compared(Config(), choice, digits, 60.0, 32).steps == steps
    asked = Config().replace(**{"training.transfer": "probe"})
    assert planning._compared(asked, choice, digits, 60.0, 32).steps == 0


def test_a_mistyped_strategy_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'earlier'"):
        Config().replace(**{"training.transfer": "earliest"})

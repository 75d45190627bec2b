"""`--ensemble N` after a probe, and views of a network whose classifier has learnt the validation images too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.recipe.jobs import job_in
from tests.recipe.plans import longer, small_plan
from wellfit.config import Config
from wellfit.inference.evaluate import logits_of
from wellfit.models.ensemble import Ensemble
from wellfit.models.saved import load_model, read_card
from wellfit.models.zoo import build
from wellfit.recipe import probing
from wellfit.recipe.combining import combine
from wellfit.recipe.ending import asked_networks
from wellfit.recipe.fitting import Fitted
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.plan import EndingPlan
from wellfit.recipe.prepare import Prepared
from wellfit.recipe.probing import Looked, linear, probe
from wellfit.recipe.stage_ensemble import join_stages
from wellfit.recipe.testing import save
from wellfit.recipe.viewing import choose_views
from wellfit.record import read_record


@pytest.fixture(scope="module")
def looked(digits: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Looked:
    """What the probe of a resnet20 of random numbers saw of 100 and 60 digits, judged by the 60 as larger sets are."""
    folder = tmp_path_factory.mktemp("looked")
    module = build("resnet20", 10, image_size=16, seed=11).module.train()
    noise = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for _ in range(40):
        module(noise)
    torch.save(module.state_dict(), folder / "pretrained.pth")
    plan, split = small_plan(), digits.split
    few = replace(digits, split=replace(split, train=split.train[:100], validation=split.validation[:60]))
    model = replace(plan.model, name="resnet20", weights=str(folder / "pretrained.pth"), transfer="probe", options={})
    first = job_in(folder / "run")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(probing, "LITTLE", 0)
            return probe(first, Material.of(few, plan.replace(model=model, training=longer(0))))
    finally:
        first.record.close()


def asking(looked: Looked, ending: EndingPlan) -> Looked:
    material = replace(looked.material, plan=looked.material.plan.replace(ending=ending))
    return replace(looked, material=material, others={})


def test_classifiers_of_several_stages_are_averaged_where_it_is_asked_for_and_gains(job: Job, looked: Looked) -> None:
    several = asking(looked, EndingPlan(3, asked=("ensemble",)))
    alone = linear(several, several.result)
    joined = join_stages(job, several, alone)
    (told,) = [outcome for outcome in job.outcomes if outcome.name == "ensemble"]
    (line,) = [line for line in read_record(job.folder.record) if line["kind"] == "ensemble"]
    assert told.status == "done"
    assert isinstance(joined.module, Ensemble)
    assert [each["kind"] for each in line["tried"]] == ["linear"] * 3
    assert line["score"] >= line["single"] >= max(each["score"] for each in line["tried"]) - 1e-9
    assert joined.score == line["score"]
    # What was held out is the mean that is handed over: by hand from the probabilities of each stage.
    assert joined.held_out is not None
    answers, targets = joined.held_out
    members = {each["name"]: each["share"] for each in line["members"]}
    mean = np.zeros_like(answers)
    for layer in several.features.layers:
        result = several.best_at([layer])
        share = members.get(f"{layer}, {result.spot.pooling}", 0.0)
        mean += share * result.held_out[np.isfinite(result.held_out).all(axis=1)]
    np.testing.assert_allclose(np.exp(answers), mean, atol=2e-4)
    assert float((answers.argmax(1) == targets).mean()) == joined.score
    # No later step speaks of it again, and the saved folder is the network in memory.
    after = combine(job, several.material, joined)
    assert after.module is joined.module
    assert [outcome.name for outcome in job.outcomes].count("ensemble") == 1
    save(job, several.material, after)
    loaded, card = load_model(job.folder)
    assert card["learnt"] == "train and validation"
    inputs = several.material.inputs(several.material.data.split.validation[:8])
    with torch.no_grad():
        torch.testing.assert_close(loaded(inputs), joined.module(inputs))


def test_a_fine_tuned_network_is_joined_with_linear_classifiers_on_validation_alone(job: Job, looked: Looked) -> None:
    several = asking(looked, EndingPlan(3, asked=("ensemble",)))
    start = linear(several, several.best_at(["layer3"]), unseen_validation=True)
    tuned = Fitted(start.built, start.module, start.score, 5, Settings(1e-3, 0.0), on_validation=start.on_validation)
    joined = join_stages(job, several, tuned)
    lines = [line for line in read_record(job.folder.record) if line["kind"] == "ensemble"]
    if lines:
        assert {each["kind"] for each in lines[0]["tried"]} == {"best", "linear"}
        assert lines[0]["images"] == len(several.on_validation)
        assert joined.held_out is not None
    else:
        assert joined is tuned


def test_one_network_is_left_as_it_is_and_the_step_says_how_to_have_more(job: Job, looked: Looked) -> None:
    alone = linear(looked, looked.result)
    assert join_stages(job, looked, alone) is alone
    (told,) = job.outcomes
    assert (told.status, told.name) == ("skipped", "ensemble")
    assert "--ensemble N" in told.reason


def test_a_number_is_asked_for_by_name() -> None:
    assert [asked_networks(Config(ensemble=word)) for word in ("auto", "none", "1", "4")] == [1, 1, 1, 4]


def test_views_of_a_probe_are_judged_by_a_classifier_that_has_not_seen_validation(job: Job, looked: Looked) -> None:
    viewed = asking(looked, EndingPlan(1, (), ("shift",), ("views",)))
    fitted = linear(viewed, viewed.result)
    after = choose_views(job, viewed.material, fitted)
    (line,) = [line for line in read_record(job.folder.record) if line["kind"] == "views"]
    apart = linear(viewed, viewed.result, unseen_validation=True)
    plan, validation = viewed.material.plan, viewed.material.data.split.validation
    batches = viewed.material.evaluation(validation)
    plain = logits_of(apart.module, batches, plan.engine, viewed.material.preprocessing)
    assert line["score"] - line["gain"] == pytest.approx(float((plain.argmax(1) == batches.targets).mean()))
    assert line["images"] == len(validation)
    assert after.module is fitted.module  # the one that has learnt from all is handed over
    assert after.views == ("shift" if line["gain"] >= 0 else "none")
    save(job, viewed.material, after)
    card = read_card(job.folder)
    assert card["views"] == after.views
    if after.views != "none":  # calibrated on answers over these views
        assert after.over_views is not None
        assert len(after.over_views[0]) == len(validation)
        assert card["validation_accuracy"] == pytest.approx(line["score"])

"""Means of what transfer has led to, and views of a network whose classifier has learnt the validation images too."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.recipe.jobs import job_in
from tests.recipe.plans import longer, small_plan
from wellfit.config import Config
from wellfit.inference.evaluate import logits_of
from wellfit.inference.gain import Gain, Judged, judge
from wellfit.inference.selection import Selection, Step
from wellfit.models.ensemble import Ensemble, Entrance
from wellfit.models.saved import load_model, read_card
from wellfit.models.zoo import build
from wellfit.recipe import probing, transfer_ensemble
from wellfit.recipe.budget import Budget
from wellfit.recipe.combining import combine
from wellfit.recipe.ending import asked_networks
from wellfit.recipe.fitting import Fitted, train_network
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.plan import EndingPlan, ScratchPlan
from wellfit.recipe.prepare import Prepared
from wellfit.recipe.probing import Looked, linear, probe
from wellfit.recipe.steps import resolved
from wellfit.recipe.testing import save
from wellfit.recipe.transfer_ensemble import Tried, join_tried
from wellfit.recipe.viewing import choose_views
from wellfit.record import read_record
from wellfit.transfer.policy import ALL, PROBE, SCRATCH


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


def alone_joined(job: Job, looked: Looked, alone: Fitted) -> tuple[Material, Fitted]:
    """Where nothing but the linear classifier was tried."""
    only = Tried(PROBE, looked.material, alone, looked.result)
    return join_tried(job, looked, [only], only)


def test_classifiers_of_several_stages_are_averaged_where_it_is_asked_for_and_gains(job: Job, looked: Looked) -> None:
    several = asking(looked, EndingPlan(3, asked=("ensemble",)))
    alone = linear(several, several.result)
    material, joined = alone_joined(job, several, alone)
    assert material.preprocessing == several.material.preprocessing
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


def test_a_fine_tuned_network_is_joined_with_linear_classifiers_on_validation_alone(
    job: Job, looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_ensemble, "greedy", equal_shares)
    several = asking(looked, EndingPlan(3, asked=("ensemble",)))
    start = linear(several, several.best_at(["layer3"]), unseen_validation=True)
    tuned = Fitted(start.built, start.module, start.score, 5, Settings(1e-3, 0.0), on_validation=start.on_validation)
    first = Tried(PROBE, several.material, linear(several, several.result), several.result)
    tried = [first, Tried(ALL, several.material, tuned)]
    _, joined = join_tried(job, several, tried, tried[1])
    (line,) = [line for line in read_record(job.folder.record) if line["kind"] == "ensemble"]
    assert [each["kind"] for each in line["tried"]] == ["best", "linear", "linear", "linear"]
    assert line["images"] == len(several.on_validation)
    assert joined.held_out is not None
    assert len(joined.held_out[0]) == len(several.on_validation)
    assert (joined.settings, joined.steps) == (tuned.settings, 5)  # what the training is repeated with


@pytest.fixture
def tried(job: Job, looked: Looked) -> list[Tried]:
    """A linear classifier, and a small net from scratch at 12 pixels, of other mean and deviation."""
    small = ScratchPlan("whitened", 12, 12, 60, 4e-3, 5e-2, {"widths": [16, 32, 64]})
    material = looked.material.from_scratch(small)
    shifted = replace(material.preprocessing, mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.4))
    material = replace(material, preprocessing=shifted)
    trained = train_network(job, material, Settings.of(material.plan))
    fitted = linear(looked, looked.result)
    first = Tried(PROBE, looked.material, fitted, looked.result)
    return [first, Tried(SCRATCH, material, replace(trained, on_validation=0.0))]


def test_what_was_trained_is_averaged_with_the_classifier_unasked_where_it_gains(
    job: Job, looked: Looked, tried: list[Tried], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_ensemble, "greedy", equal_shares)
    linear_one, scratch = tried
    material, fitted = join_tried(job, looked, tried, linear_one)
    assert isinstance(fitted.module, Ensemble)
    (line,) = [line for line in read_record(job.folder.record) if line["kind"] == "ensemble"]
    assert [each["name"] for each in line["members"]] == ["from scratch", line["members"][1]["name"]]
    # On images that are saved, loaded and prepared as the card says, it is the mean of the two networks by themselves.
    indices = looked.material.data.split.validation[:16]
    save(job, material, fitted)
    loaded, card = load_model(job.folder)
    assert card["architecture"]["image_size"] == material.preprocessing.size == 16
    assert card["learnt"] == "train and validation"
    with torch.no_grad():
        answer = loaded(material.inputs(indices)).softmax(1)
        first = linear_one.fitted.module(linear_one.material.inputs(indices)).softmax(1)
        # The small net sees the larger view shrunk to its own size, which is nearly what it was trained on.
        shrunk = Entrance(16, 12, scale=(1.0,) * 3, shift=(0.0,) * 3)
        pixels = replace(scratch.material.preprocessing, size=16, resize=16)
        larger = replace(scratch.material, preprocessing=pixels)
        second = scratch.fitted.module(shrunk(larger.inputs(indices))).softmax(1)
    torch.testing.assert_close(answer, (first + second) / 2, atol=2e-4, rtol=0)
    assert all(cost > 0 for cost in line["milliseconds"])
    # config.toml has the pretrained network's settings, not the small net's, and tries the mean again.
    config = resolved(Config(), material.plan, fitted)
    assert config.optimizer.lr == looked.material.plan.optimizer.lr != scratch.material.plan.optimizer.lr
    assert (config.model.name, config.ensemble, config.training.epochs) == ("resnet20", "auto", 0.0)
    assert resolved(Config(ensemble="none"), material.plan, fitted).ensemble == "none"


def test_the_cost_of_a_mean_is_that_of_all_its_networks_and_no_first_pass_counts(
    job: Job, looked: Looked, tried: list[Tried], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seen = SimpleNamespace(now=0.0), set()

    def pass_of(module: torch.nn.Module, batches: Any, *others: Any) -> np.ndarray:
        """The clock goes on by 1 ms per image and network, and by 10 s where a network is seen for the first time."""
        networks = len(module.members) if isinstance(module, Ensemble) else 1
        clock.now += 0.001 * networks * len(batches.targets) + 10 * (id(module) not in seen)
        seen.add(id(module))
        return logits_of(module, batches, *others)

    monkeypatch.setattr(transfer_ensemble, "greedy", equal_shares)
    monkeypatch.setattr(transfer_ensemble, "logits_of", pass_of)
    monkeypatch.setattr(transfer_ensemble, "time", SimpleNamespace(monotonic=lambda: clock.now))
    join_tried(job, looked, tried, tried[0])
    (line,) = [line for line in read_record(job.folder.record) if line["kind"] == "ensemble"]
    assert line["milliseconds"] == [1.0, 2.0]


def test_views_of_a_mean_are_judged_by_members_that_have_not_seen_validation(
    job: Job, looked: Looked, tried: list[Tried], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_ensemble, "greedy", equal_shares)
    viewed = asking(looked, EndingPlan(1, (), ("shift",), ("views",)))
    material, fitted = join_tried(job, viewed, tried, tried[0])
    after = choose_views(job, material, fitted)
    (line,) = [line for line in read_record(job.folder.record) if line["kind"] == "views"]
    unseen = linear(viewed, viewed.result, unseen_validation=True).module.eval()
    indices = viewed.material.data.split.validation
    apart = fitted.apart
    assert apart is not None
    with torch.no_grad():
        inputs = material.inputs(indices)
        first = unseen(viewed.material.inputs(indices)).softmax(1)
        second = fitted.module.members[0](fitted.module.entrances[0](inputs)).softmax(1)
        torch.testing.assert_close(apart()(inputs).softmax(1), (first + second) / 2, atol=2e-4, rtol=0)
    plain = ((first + second).argmax(1).numpy() == viewed.material.data.targets(indices)).mean()
    assert line["score"] - line["gain"] == pytest.approx(float(plain), abs=1e-6)
    assert after.module is fitted.module


def test_where_the_time_is_short_no_mean_is_tried(job: Job, looked: Looked, tried: list[Tried]) -> None:
    late = replace(job, budget=Budget(60.0, time.monotonic() - 59.0))
    assert join_tried(late, looked, tried, tried[0]) == (looked.material, tried[0].fitted)
    assert late.outcomes[-1].status == "skipped"
    assert "no time" in late.outcomes[-1].reason


def test_where_the_small_net_is_best_networks_from_other_seeds_are_what_was_asked_for(
    job: Job, looked: Looked, tried: list[Tried]
) -> None:
    several = asking(looked, EndingPlan(3, asked=("ensemble",)))
    assert join_tried(job, several, tried, tried[1]) == (tried[1].material, tried[1].fitted)
    assert not job.outcomes or job.outcomes[-1].name != "ensemble"


def equal_shares(answers: list[np.ndarray], targets: np.ndarray, metric: str, *, most_members: int) -> Selection:
    """All alike, and said to gain: what is tested is what becomes of a selection."""
    judged = [judge(each, targets, metric) for each in answers]
    best = Judged(1.0, 0.0, np.zeros(len(targets)))
    steps = [Step(0, replace(judged[0], score=0.0), Gain(0, 0, 0)), Step(1, best, Gain(1.0, 1.0, 0.0))]
    return Selection(np.full(len(answers), 1 / len(answers)), steps)


def test_unasked_a_mean_that_gains_nothing_is_not_taken(job: Job, looked: Looked, tried: list[Tried]) -> None:
    linear_one, scratch = tried
    # The same network twice: no mean of the two says anything else.
    twice = Tried(ALL, looked.material, linear(looked, looked.result, unseen_validation=True))
    assert join_tried(job, looked, [linear_one, twice], linear_one) == (looked.material, linear_one.fitted)
    assert job.outcomes[-1].reason.startswith("not kept")
    none = replace(job, config=Config(ensemble="none"))
    assert join_tried(none, looked, tried, scratch) == (scratch.material, scratch.fitted)
    assert "one was asked for" in none.outcomes[-1].reason


def test_one_network_is_left_as_it_is_and_the_step_says_how_to_have_more(job: Job, looked: Looked) -> None:
    alone = linear(looked, looked.result)
    assert alone_joined(job, looked, alone) == (looked.material, alone)
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

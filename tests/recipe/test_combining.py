"""Averages, snapshots, ensembles and views as a fit takes them: kept where validation gains, saved to the last bit."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.recipe.plans import longer, without_page, write_plan
from wellfit.config import Config
from wellfit.errors import Interrupted
from wellfit.inference.evaluate import logits_of
from wellfit.inference.selection import Selection, greedy
from wellfit.models.ensemble import Ensemble
from wellfit.models.saved import read_card
from wellfit.recipe import api, combining, fitting
from wellfit.recipe.budget import Budget
from wellfit.recipe.combining import combine, ensemble_of, mean_weights, state_of
from wellfit.recipe.done import done_lines
from wellfit.recipe.fitting import Fitted, train_member
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.plan import EndingPlan, SearchPlan
from wellfit.recipe.testing import save
from wellfit.recipe.viewing import choose_views
from wellfit.record import Record, RunFolder, read_record

SETTINGS = Settings(3e-3, 5e-2)


def with_ending(material: Material, ending: EndingPlan, steps: int = 60) -> Material:
    plan = material.plan.replace(ending=ending, training=longer(steps, average=0.8), search=SearchPlan())
    return replace(material, plan=plan)


def trained(job: Job, material: Material) -> Fitted:
    return fitting.train_network(job, material, SETTINGS)


def rows(job: Job) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in done_lines(read_record(job.folder.record))}


def test_networks_from_other_seeds_are_joined_and_gain(job: Job, material: Material) -> None:
    material = with_ending(material, EndingPlan(3, (0.8, 1.0)), steps=40)
    fitted = trained(job, material)
    alone = fitted.score
    # Nets of as few steps err apart, and the mean of three is the better for it.
    combined = combine(job, material, fitted)
    told = rows(job)
    assert {"averages", "snapshots", "ensemble"} <= told.keys()
    assert combined.built.name == "ensemble"
    assert isinstance(combined.module, Ensemble)
    assert combined.score > alone
    line = next(line for line in read_record(job.folder.record) if line["kind"] == "ensemble")
    assert sum(member["share"] for member in line["members"]) == pytest.approx(1, abs=1e-3)
    assert line["score"] == combined.score
    assert line["steps"][-1]["score"] == combined.score
    assert line["milliseconds"][1] == pytest.approx(line["milliseconds"][0] * len(line["members"]), abs=0.01)
    assert told["ensemble"]["gain"] == pytest.approx(line["score"] - max(alone, line["steps"][0]["score"]), abs=1e-4)
    score, _ = material.validation_score()(combined.module)
    assert score == combined.score  # what is handed over is what was chosen
    # The record's curves are those of the first network alone.
    steps = [line["step"] for line in read_record(job.folder.record) if line["kind"] == "step"]
    assert steps == list(range(1, 41))


@pytest.mark.parametrize(("left", "name"), [(1e6, "ensemble"), (1.5, "whitened"), (0.0, "ensemble")])
def test_a_mean_of_snapshots_is_not_taken_where_views_would_lose_their_time(
    job: Job, material: Material, monkeypatch: pytest.MonkeyPatch, left: float, name: str
) -> None:
    """Seconds a view takes are set to one for one network; with no time for that either, the mean costs it nothing."""
    material = with_ending(material, EndingPlan(1, (0.5, 0.8, 1.0), ("shift",)), 10)
    monkeypatch.setattr(combining, "time_of_views", lambda material, plain, passes: 1.0)
    monkeypatch.setattr(combining, "closing_time", lambda data: 0.0)
    fitted = trained(job, material)
    even = Selection(np.array([0.0, 0.5, 0.0, 0.5]), greedy([np.eye(2)], np.arange(2), "accuracy").steps)
    monkeypatch.setattr(combining, "greedy", lambda *others: even)
    monkeypatch.setattr(combining, "worth", lambda *others, asked: True)
    monkeypatch.setattr(Budget, "left", property(lambda budget: left))
    assert combine(job, material, fitted).built.name == name
    assert ("no time would be left for views" in str(rows(job)["snapshots"]["reason"])) == (name != "ensemble")


def test_a_training_without_anything_set_aside_stays_as_it_is(job: Job, material: Material) -> None:
    fitted = trained(job, with_ending(material, EndingPlan(), 4))
    before = state_of(fitted.module)
    after = combine(job, material, fitted)
    assert all(torch.equal(value, before[name]) for name, value in after.module.state_dict().items())
    assert {rows(job)[name]["status"] for name in combining.STEPS} == {"skipped"}
    assert not (job.folder.checkpoint.parent / "members").exists()


def test_a_stopped_training_is_not_combined(job: Job, material: Material) -> None:
    fitted = trained(job, with_ending(material, EndingPlan(2, (0.5, 1.0)), 4))
    after = combine(job, material, replace(fitted, interrupted=True))
    assert after.module is fitted.module
    assert rows(job)["ensemble"]["reason"] == "the run was stopped"


def test_a_network_that_is_there_is_not_trained_again(
    job: Job, material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = with_ending(material, EndingPlan(2, (0.5, 1.0)), 8)
    first = train_member(job, material, SETTINGS, 1)
    assert [kept.kind for kept in first.kept] == ["best", "snapshot", "snapshot", "average"]
    monkeypatch.setattr(fitting, "_train", None)
    again = train_member(job, material, SETTINGS, 1)
    assert (again.best.score, again.steps, again.settings) == (first.best.score, first.steps, first.settings)
    for name, value in first.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name])


def test_seeds_differ_in_start_and_order_and_repeat_themselves(job: Job, material: Material, tmp_path: Path) -> None:
    material = with_ending(material, EndingPlan(3), 4)
    one, two = (train_member(job, material, SETTINGS, number) for number in (1, 2))
    assert not torch.equal(one.best.weights["fc.weight"], two.best.weights["fc.weight"])
    folder = RunFolder(tmp_path / "again")
    other = Job("digits", Config(), folder, Record(folder.record), Budget(None, time.monotonic()))
    again = train_member(other, material, SETTINGS, 1)
    other.record.close()
    assert all(torch.equal(value, again.best.weights[name]) for name, value in one.best.weights.items())


def test_further_networks_take_the_searchs_other_good_settings(job: Job, material: Material) -> None:
    def trial(lr: float, score: float | None, epochs: float = 2.0, state: str = "finished") -> None:
        settings = {"lr": lr, "weight_decay": 0.1}
        job.record.write("trial", settings=settings, validation_accuracy=score, error=0.02, epochs=epochs, state=state)

    trial(3e-2, 0.99, epochs=1.0)  # short
    trial(4e-3, 0.90)  # hardly another rate
    trial(1e-2, 0.89)
    trial(1.2e-2, 0.89)  # hardly another rate than the one before
    trial(1e-1, 0.80)  # worse
    trial(2e-1, None, state="failed")
    found = combining.settings_of_kinds(job, material, SETTINGS)
    assert found[0] == SETTINGS
    assert [(each.lr, each.weight_decay) for each in found[1:]] == [(1e-2, 0.1)]


def test_the_mean_of_weights_by_hand() -> None:
    one = {"w": torch.tensor([1.0, 4.0]), "n": torch.tensor(7)}
    other = {"w": torch.tensor([3.0, 0.0]), "n": torch.tensor(9)}
    mean = mean_weights([one, other])
    assert mean["w"].tolist() == [2.0, 2.0]
    assert mean["n"].item() == 9


def test_views_are_kept_where_they_gain_and_the_card_names_them(job: Job, material: Material) -> None:
    material = with_ending(material, EndingPlan(1, (), ("shift",), ("views",)), 30)
    fitted = choose_views(job, material, trained(job, material))
    tried = next(line for line in read_record(job.folder.record) if line["kind"] == "views")
    assert tried["passes"] == 3
    assert fitted.views == ("shift" if tried["score"] >= tried["score"] - tried["gain"] else "none")
    save(job, material, fitted)
    assert read_card(job.folder)["views"] == fitted.views


def test_views_that_do_not_gain_are_left_out(job: Job, material: Material) -> None:
    """Mirrored digits are other digits, or none: five views of which half are mirrored lose."""
    material = with_ending(material, EndingPlan(1, (), ("flip",)), 60)
    fitted = choose_views(job, material, trained(job, material))
    assert fitted.views == "none"
    assert rows(job)["views"]["gain"] == 0.0


def test_a_probe_fitted_on_validation_too_is_not_judged_on_it(job: Job, material: Material) -> None:
    fitted = trained(job, with_ending(material, EndingPlan(), 4))
    fitted.held_out = (np.zeros((3, 10)), np.zeros(3, dtype=int))
    after = choose_views(job, with_ending(material, EndingPlan(1, (), ("shift",))), fitted)
    assert after.views == "none"
    assert rows(job)["views"]["status"] == "skipped"


FRESH = """
import sys
from pathlib import Path
import numpy as np, torch
from wellfit.models.saved import load_model
from wellfit.record import RunFolder
torch.set_num_threads(1)
inputs = torch.from_numpy(np.load(sys.argv[1])).contiguous(memory_format=torch.channels_last)
for folder in sys.argv[2:]:
    module, card = load_model(RunFolder(Path(folder)))
    module = module.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        np.save(Path(folder) / "outputs.npy", module(inputs).numpy())
"""


def test_a_fresh_process_answers_to_the_last_bit_as_memory_did(material: Material, tmp_path: Path) -> None:
    """Issue 6: the saved folder, loaded elsewhere, is the model that was judged; one network, and an ensemble."""
    material.plan.engine.activate()
    some = material.data.split.validation[:64]
    inputs = material.plan.engine.inputs(
        torch.cat([batch.images for batch in material.evaluation(some)]), material.preprocessing
    )
    np.save(tmp_path / "inputs.npy", inputs.contiguous().numpy())
    in_memory = {}
    for name in ("one", "three"):
        folder = RunFolder(tmp_path / name)
        job = Job("digits", Config(), folder, Record(folder.record), Budget(None, time.monotonic()))
        fitted = trained(job, with_ending(material, EndingPlan(), 10))
        if name == "three":
            others = [state_of(replace_seed(material, seed).network().module) for seed in (1, 2)]
            built = ensemble_of(material, fitted, [state_of(fitted.module), *others], [0.5, 0.25, 0.25])
            fitted = replace(fitted, built=built, module=built.module)
        save(job, material, fitted)
        job.record.close()
        with torch.inference_mode():
            in_memory[name] = fitted.module.eval()(inputs).numpy()
    folders = [str(tmp_path / name) for name in in_memory]
    subprocess.run([sys.executable, "-c", FRESH, str(tmp_path / "inputs.npy"), *folders], check=True, timeout=240)
    for name, answers in in_memory.items():
        assert np.load(tmp_path / name / "outputs.npy").tobytes() == answers.tobytes()


def replace_seed(material: Material, seed: int) -> Material:
    return replace(material, plan=material.plan.replace(seed=seed))


@without_page()
def test_a_run_killed_before_its_second_network_ends_with_the_same_bytes_and_says_what_became_of_each_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = EndingPlan(2, (0.5, 1.0), ("shift",))
    plan = write_plan(tmp_path / "p.toml", search=SearchPlan(), training=longer(30, average=0.8), ending=ending)
    untouched = api.fit("digits", plan=plan, out=tmp_path / "a")
    whole = combining.train_member

    def killed(job: Job, *arguments: object, **more: object) -> object:
        raise Interrupted("killed here")

    monkeypatch.setattr(combining, "train_member", killed)
    with pytest.raises(Interrupted):
        api.fit("digits", plan=plan, out=tmp_path / "b")
    monkeypatch.setattr(combining, "train_member", whole)
    resumed = api.resume(tmp_path / "b")
    assert resumed.folder.model_weights.read_bytes() == untouched.folder.model_weights.read_bytes()
    assert read_card(resumed.folder) == read_card(untouched.folder)
    for run in (untouched, resumed):
        done = {row["name"]: row for row in done_lines(read_record(run.folder.record))}
        for part in ("probe", "policy", "fine-tune", "averages", "snapshots", "ensemble", "views"):
            assert done[part]["status"] in ("done", "skipped")
            assert done[part]["reason"]
        text = run.folder.plan.read_text(encoding="utf-8")
        assert text.count("[[done]]") == len(done) - 1  # the report itself is still to come
        assert not run.folder.checkpoint.parent.exists()


def test_logits_of_an_ensemble_are_judged_like_a_networks(material: Material) -> None:
    states = [state_of(replace_seed(material, seed).network().module) for seed in (0, 1)]
    built = material.network()
    fitted = Fitted(built, built.module, 0.0, 0, SETTINGS)
    joined = ensemble_of(material, fitted, states, [1.0, 1.0]).module
    batches = material.evaluation(material.data.split.validation[:50])
    logits = logits_of(joined, batches, material.plan.engine, material.preprocessing)
    np.testing.assert_allclose(np.exp(logits).sum(1), 1, rtol=1e-5)

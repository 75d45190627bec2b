"""`wellfit ensemble`: finished runs joined; what one has learnt from never speaks for the mean."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.datasets import load_digits

from tests.recipe.plans import longer, small_plan, without_page, write_plan
from wellfit.cli.commands import wellfit as command
from wellfit.config import Config
from wellfit.data.preprocess import Preprocessing
from wellfit.errors import UserError
from wellfit.inference.export import export_model
from wellfit.inference.predict import predict
from wellfit.models.saved import load_model, read_card
from wellfit.recipe import api
from wellfit.recipe.answers import keep_held_out, read_answers, read_held_out
from wellfit.recipe.evaluation import evaluate_run
from wellfit.recipe.joining import ensemble, opened
from wellfit.recipe.plan import SearchPlan
from wellfit.recipe.run import Run
from wellfit.recipe.shared_images import shared_images
from wellfit.record import RunFolder, read_record


def fitted(folder: Path, name: str, seed: int, split_seed: int, size: int = 16, **changes: Any) -> Path:
    plan = small_plan(seed=seed, search=SearchPlan(), training=longer(110, average=0.8), **changes)
    model = replace(plan.model, image_size=size, resize=size + (size > 16))
    file = write_plan(folder / f"{name}.toml", **{**vars(plan), "model": model})
    config = Config().replace(**{"data.split_seed": split_seed})
    with without_page():
        return api.fit("digits", plan=file, config=config, out=folder / name, force=True).path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Digits three times: two divided alike (of two input sizes), one apart. Not to be changed."""
    folder = tmp_path_factory.mktemp("members")
    return {
        "a": fitted(folder, "a", 1, 0),
        "b": fitted(folder, "b", 2, 0, 20),
        "apart": fitted(folder, "apart", 3, 5),
    }


@pytest.fixture(scope="session")
def joined(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both runs that were divided alike, with equal shares. Not to be changed."""
    return ensemble([runs["a"], runs["b"]], out=tmp_path_factory.mktemp("joined") / "ab", equal=True)


def images() -> list[np.ndarray]:
    return [np.kron(digit, np.ones((4, 4))).astype(np.uint8) for digit in _digits()[::60]]


def _digits() -> np.ndarray:
    return np.asarray(load_digits().images * 15.9)


def table(answers: Any) -> np.ndarray:
    return np.array([list(answer["probabilities"].values()) for answer in answers])


def test_it_predicts_the_mean_of_its_members(runs: dict[str, Path], joined: Run) -> None:
    means = np.mean([table(predict(RunFolder(runs[name]), images())) for name in "ab"], axis=0)
    module, card = load_model(joined.folder)
    cards = [read_card(RunFolder(runs[name])) for name in "ab"]
    # Each run's own answers are at its own temperature; the ensemble's members are at 1, and it has one of its own.
    assert card["temperature"] != cards[0]["temperature"]
    got = table(joined.predict(images()))
    assert (got.argmax(1) == means.argmax(1)).mean() >= 0.9
    assert len(list(module.members)) == 2
    sizes = [Preprocessing.from_dict(each["preprocessing"]).size for each in (*cards, card)]
    assert sizes[2] >= max(sizes[:2])


def test_the_record_names_each_member_each_step_and_the_cost(joined: Run, runs: dict[str, Path]) -> None:
    line = joined.ensemble
    assert line is not None
    assert [row["name"] for row in line["tried"]] == [str(runs["a"]), str(runs["b"])]
    assert [member["share"] for member in line["members"]] == [0.5, 0.5]
    assert line["steps"][-1]["score"] == line["score"]
    assert line["gain"] == pytest.approx(line["score"] - line["steps"][0]["score"])
    assert 0 < line["milliseconds"][0] <= line["milliseconds"][1]
    names = {row["kind"] for row in read_record(joined.folder.record)}
    assert {"audit", "ensemble", "evaluation", "end"} <= names
    assert joined.folder.report.is_file()


def test_runs_divided_alike_share_their_validation_and_test_images(joined: Run, runs: dict[str, Path]) -> None:
    audited = next(line for line in read_record(joined.folder.record) if line["kind"] == "audit")
    own = next(line for line in read_record(runs["a"] / "record.jsonl") if line["kind"] == "audit")
    assert audited["splits"] == own["splits"]
    assert joined.test_images == own["splits"]["test"]


def test_of_runs_divided_apart_too_few_images_may_be_left(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wellfit.recipe.shared_images.FEWEST", 100)
    folders = [RunFolder(runs["a"]), RunFolder(runs["apart"])]
    with pytest.raises(UserError, match=r"divided apart, leave \d+ \(fewer than 100\).*--split-seed"):
        shared_images(folders, [read_card(folder) for folder in folders], None, None)


def test_no_image_that_a_member_learnt_from_is_ever_counted(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wellfit.recipe.shared_images.FEWEST", 5)
    made = ensemble([runs["a"], runs["apart"]], out=tmp_path / "mixed", equal=True)
    learnt = set.union(*(read_answers(RunFolder(runs[name])).seen for name in ("a", "apart")))
    kept = read_answers(made.folder)
    assert kept is not None
    assert kept.images
    assert not learnt & set(kept.images)
    assert learnt <= kept.seen
    said = next(line for line in read_record(made.folder.record) if line["kind"] == "audit")
    assert "divided apart" in said["sentences"][0]
    assert said["splits"]["validation"] < 60
    assert f"{len(kept.images)} are left" in said["sentences"][1]


def test_evaluate_and_export_take_it_like_any_other(joined: Run, tmp_path: Path) -> None:
    figures = evaluate_run(joined.path, "digits")
    assert figures["images"] == len(_digits())
    assert figures["accuracy"] > 0.8
    told = export_model(joined.folder, "torchscript", tmp_path / "model.pt")
    assert told["checked"]["difference"] <= 1e-4
    told = export_model(joined.folder, "safetensors", tmp_path / "model.safetensors")
    assert told["bytes"] > 0


def test_onnx_of_an_ensemble_agrees(joined: Run, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    told = export_model(joined.folder, "onnx", tmp_path / "model.onnx")
    assert told["checked"]["difference"] <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    pixels = np.stack([np.repeat(image[None], 3, 0) for image in images()])
    got = session.run(None, {"images": pixels})[0]
    want = table(joined.predict([image.transpose(1, 2, 0) for image in pixels]))
    assert (got.argmax(1) == want.argmax(1)).all()
    assert np.abs(got - want).max() <= 1e-4


def test_the_command_prints_shares_and_steps_or_one_object(runs: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["ensemble", str(runs["a"]), str(runs["b"]), "--out", str(tmp_path / "ab"), "--json"]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["schema"] == 1
    assert answer["run"] == str(tmp_path / "ab")
    assert answer["ensemble"]["images"] > 200
    assert 0.8 < answer["test_accuracy"] <= 1
    with pytest.raises(UserError, match="make it anew: `wellfit ensemble"):
        api.resume(tmp_path / "ab")
    with pytest.raises(UserError, match="is an ensemble itself"):
        ensemble([tmp_path / "ab", runs["b"]], out=tmp_path / "abb")
    assert not (tmp_path / "abb").exists()


def test_runs_that_do_not_go_together_are_refused_in_one_sentence(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two runs or more, got 1"):
        opened([runs["a"]])
    with pytest.raises(UserError, match=r"different runs, got .* twice"):
        opened([runs["a"], runs["b"], runs["a"]])
    other = tmp_path / "other"
    shutil.copytree(runs["b"], other)
    card = json.loads((other / "model.json").read_text(encoding="utf-8"))
    card["classes"][3] = "three"
    (other / "model.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(UserError, match=r"know the same classes, but 'three' is known to one alone"):
        opened([runs["a"], other])


def test_classes_in_another_order_are_put_into_the_firsts(runs: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs["a"], other)
    card = json.loads((other / "model.json").read_text(encoding="utf-8"))
    card["classes"] = card["classes"][::-1]
    (other / "model.json").write_text(json.dumps(card), encoding="utf-8")
    first, second = opened([runs["a"], other])
    # Grey, as the digits are: the stem blows up colours, which it has never seen.
    inputs = np.random.default_rng(0).normal(size=(2, 1, 16, 16)).astype(np.float32).repeat(3, axis=1)
    with torch.no_grad():
        one, two = first.module(torch.from_numpy(inputs)), second.module(torch.from_numpy(inputs))
    torch.testing.assert_close(two, one.flip(1))


def test_a_classifier_fitted_on_validation_too_leaves_nothing_to_choose_by(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "probe"
    shutil.copytree(runs["b"], other)
    card = json.loads((other / "model.json").read_text(encoding="utf-8"))
    (other / "model.json").write_text(json.dumps(card | {"learnt": "train and validation"}), encoding="utf-8")
    folders = [RunFolder(runs["a"]), RunFolder(other)]
    with pytest.raises(UserError, match=r"probe' was fitted on its validation images too"):
        shared_images(folders, [read_card(folder) for folder in folders], None, None)


def test_a_classifier_fitted_on_validation_too_speaks_for_it_by_what_was_held_out(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    """The file says of half of the images what no network would: it is the file that is heard of these."""
    other = tmp_path / "probe"
    shutil.copytree(runs["b"], other)
    card = read_card(RunFolder(other))
    (other / "model.json").write_text(json.dumps(card | {"learnt": "train and validation"}), encoding="utf-8")
    plain = shared_images([RunFolder(runs[name]) for name in "ab"], [card, card], None, None).data
    half = plain.split.validation[::2]
    wrong = np.full((len(half), len(card["classes"])), -20.0)
    wrong[np.arange(len(half)), (plain.targets(half) + 1) % len(card["classes"])] = 0.0
    keep_held_out(RunFolder(other), plain, half, wrong)
    made = ensemble([runs["a"], other], out=tmp_path / "joined", equal=True)
    line = made.ensemble
    assert line is not None
    assert line["images"] == len(half)  # of the others it has nothing to say that counts
    assert line["tried"][1]["score"] == 0.0
    assert line["tried"][0]["score"] > 0.8
    assert read_card(made.folder)["learnt"] == "train and validation"
    said = next(line for line in read_record(made.folder.record) if line["kind"] == "audit")
    assert "answered in its probe" in said["sentences"][0]


def test_what_was_held_out_comes_back_as_it_was_kept_and_a_damaged_file_is_named(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    cards = [read_card(RunFolder(runs[name])) for name in "ab"]
    data = shared_images([RunFolder(runs[name]) for name in "ab"], cards, None, None).data
    folder, some = RunFolder(tmp_path), data.split.validation[:3]
    assert read_held_out(folder) is None
    answers = np.log(np.random.default_rng(0).dirichlet(np.ones(10), 3))
    keep_held_out(folder, data, some, answers)
    kept = read_held_out(folder)
    assert kept is not None
    assert kept.images == [data.inspection.content_hash[i] for i in some.tolist()]
    np.testing.assert_array_equal(kept.answers, answers.astype(np.float32))
    (folder.arrays / "held-out.npz").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"held-out\.npz' is damaged"):
        read_held_out(folder)


def test_data_that_are_gone_or_changed_are_named(runs: dict[str, Path], tmp_path: Path) -> None:
    cards = [read_card(RunFolder(runs[name])) for name in "ab"]
    moved = tmp_path / "moved"
    shutil.copytree(runs["b"], moved)
    lines = (moved / "record.jsonl").read_text(encoding="utf-8")
    gone = lines.replace('"data": "digits"', '"data": "/nowhere/digits"')
    assert gone != lines
    (moved / "record.jsonl").write_text(gone, encoding="utf-8")
    with pytest.raises(UserError, match=r"no longer at '/nowhere/digits'; say where they are with --data"):
        shared_images([RunFolder(runs["a"]), RunFolder(moved)], cards, None, None)
    (moved / "record.jsonl").write_text(lines.replace('"train": 12', '"train": 13'), encoding="utf-8")
    with pytest.raises(UserError, match=r"are not those that .* was fitted on"):
        shared_images([RunFolder(runs["a"]), RunFolder(moved)], cards, None, None)


def test_unknown_views_and_a_count_of_none_are_refused_before_anything_is_read(runs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="did you mean 'flip'"):
        ensemble([runs["a"], runs["b"]], views="flap")
    with pytest.raises(UserError, match="at least one member"):
        ensemble([runs["a"], runs["b"]], most=0)

"""`wellfit compare` on two finished runs: the figures against a count of our own, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.cli.conftest import Command, photos
from tests.recipe.plans import longer, without_page, write_plan
from wellfit.recipe.answers import read_answers
from wellfit.recipe.api import fit
from wellfit.record import RunFolder

KEYS = {
    *("schema", "a", "b", "images", "accuracy", "interval", "both_right", "only_a", "only_b", "both_wrong"),
    *("difference", "difference_interval", "p_value", "more_than_chance", "sentence", "notes", "left_out"),
}


@pytest.fixture(scope="module")
def weak_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same digits, seed and split as `finished_run`, with four training steps. Not to be written to."""
    folder = tmp_path_factory.mktemp("weak")
    with without_page():
        fit("digits", plan=write_plan(folder / "p.toml", training=longer(4)), out=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def other_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits divided with another seed. Not to be written to."""
    folder = tmp_path_factory.mktemp("other")
    with without_page():
        fit("digits", plan=write_plan(folder / "p.toml", seed=1, training=longer(20)), out=folder / "run")
    return folder / "run"


def right_of(run: Path) -> dict[bytes, bool]:
    kept = read_answers(RunFolder(run))
    assert kept is not None
    return dict(zip(kept.images, (kept.targets == kept.predicted).tolist(), strict=True))


def test_figures_are_those_of_a_count_by_hand(wellfit: Command, finished_run: Path, weak_run: Path) -> None:
    ended = wellfit("compare", weak_run, finished_run, "--json")
    assert ended.code == 0
    result = ended.json
    assert result.keys() == KEYS
    a, b = right_of(weak_run), right_of(finished_run)
    assert a.keys() == b.keys()
    assert result["images"] == len(a) == 269
    assert result["only_b"] == sum(b[image] and not a[image] for image in a)
    assert result["only_a"] == sum(a[image] and not b[image] for image in a)
    assert result["accuracy"]["a"] == sum(a.values()) / 269
    assert result["difference"] == pytest.approx(result["accuracy"]["b"] - result["accuracy"]["a"])
    assert result["more_than_chance"] is True
    assert result["p_value"] < 0.001
    assert result["sentence"].startswith("B is better by more than chance")
    assert result["notes"] == []


def test_the_kept_answers_are_those_of_the_evaluation(finished_run: Path) -> None:
    lines = [json.loads(line) for line in (finished_run / "record.jsonl").read_text().splitlines()]
    evaluation = next(line for line in lines if line["kind"] == "evaluation")
    assert np.mean(list(right_of(finished_run).values())) == pytest.approx(evaluation["accuracy"])


def test_in_words(wellfit: Command, finished_run: Path, weak_run: Path) -> None:
    ended = wellfit("compare", finished_run, weak_run)
    assert ended.code == 0
    assert "A is better by more than chance" in ended.out
    assert "B right" in ended.out
    assert "McNemar's exact test" in ended.out
    assert "on 269 images" in ended.out


def test_a_copy_of_a_run_differs_by_nothing(wellfit: Command, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "copy")
    result = wellfit("compare", finished_run, tmp_path / "copy", "--json").json
    assert result["p_value"] == 1
    assert result["more_than_chance"] is False
    assert "nothing tells them apart" in result["sentence"]


def test_only_images_that_neither_learnt_from_count(wellfit: Command, finished_run: Path, other_seed: Path) -> None:
    ended = wellfit("compare", finished_run, other_seed, "--json")
    both = right_of(finished_run).keys() & right_of(other_seed).keys()
    assert 10 < len(both) < 150
    assert ended.json["images"] == len(both)
    assert f"the {len(both)} that both have" in ended.json["notes"][0]


def test_images_given_are_judged_without_those_that_were_learnt_from(
    wellfit: Command, finished_run: Path, weak_run: Path
) -> None:
    result = wellfit("compare", weak_run, finished_run, "digits", "--json").json
    own = wellfit("compare", weak_run, finished_run, "--json").json
    assert result["images"] == 269  # all digits but those for training and validation
    same = ("both_right", "only_a", "only_b", "both_wrong", "p_value")
    assert {key: result[key] for key in same} == {key: own[key] for key in same}
    assert "1,528 images that a run was trained or chosen on do not count" in result["notes"]


def test_new_images_given_as_a_file(wellfit: Command, finished_run: Path, weak_run: Path, tmp_path: Path) -> None:
    images, targets = load_digits(return_X_y=True)
    pixels = np.minimum(255, images.reshape(-1, 8, 8) * 16 + 3).astype(np.uint8)[:200]
    np.savez(tmp_path / "new.npz", images=pixels, labels=targets[:200])
    result = wellfit("compare", weak_run, finished_run, tmp_path / "new.npz", "--json").json
    assert result["images"] == 200
    assert result["both_right"] + result["only_a"] + result["only_b"] + result["both_wrong"] == 200
    assert result["more_than_chance"] is True


def test_a_run_against_itself_is_refused(wellfit: Command, finished_run: Path) -> None:
    ended = wellfit("compare", finished_run, finished_run)
    assert ended.code == 2
    assert "needs two runs" in ended.sentence


def test_other_classes_are_refused(wellfit: Command, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "b")
    card = json.loads((tmp_path / "b" / "model.json").read_text())
    card["classes"][3] = "three"
    (tmp_path / "b" / "model.json").write_text(json.dumps(card))
    ended = wellfit("compare", finished_run, tmp_path / "b")
    assert ended.code == 2
    assert f"'3' is a class of '{finished_run}' alone (and 1 more" in ended.sentence


def test_the_order_of_the_classes_does_not_matter(wellfit: Command, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "b")
    card = json.loads((tmp_path / "b" / "model.json").read_text())
    card["classes"].reverse()
    (tmp_path / "b" / "model.json").write_text(json.dumps(card))
    file = tmp_path / "b" / "arrays" / "answers-test.npz"
    with np.load(file) as arrays:
        kept = dict(arrays)
    np.savez(file, **{**kept, "targets": 9 - kept["targets"], "predicted": 9 - kept["predicted"]})
    result = wellfit("compare", finished_run, tmp_path / "b", "--json").json
    assert (result["images"], result["only_a"], result["only_b"]) == (269, 0, 0)


def test_no_common_image_is_refused(wellfit: Command, finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "b")
    file = tmp_path / "b" / "arrays" / "answers-test.npz"
    with np.load(file) as arrays:
        kept = dict(arrays)
    np.savez(file, **{**kept, "images": 255 - kept["images"]})
    ended = wellfit("compare", finished_run, tmp_path / "b")
    assert ended.code == 2
    assert "no test image in common (269 and 269)" in ended.sentence


@pytest.mark.parametrize("damage", ["gone", "torn", "short"])
def test_answers_that_are_missing_or_damaged_are_said(
    wellfit: Command, finished_run: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(finished_run, tmp_path / "b")
    file = tmp_path / "b" / "arrays" / "answers-test.npz"
    if damage == "gone":
        file.unlink()
    elif damage == "torn":
        file.write_bytes(file.read_bytes()[:200])
    else:
        with np.load(file) as arrays:
            kept = dict(arrays)
        np.savez(file, **{**kept, "targets": kept["targets"][:-1]})
    ended = wellfit("compare", finished_run, tmp_path / "b")
    assert ended.code == 2
    assert ("keeps no answers" if damage == "gone" else "is damaged") in ended.sentence


def test_foreign_data_are_refused(wellfit: Command, finished_run: Path, weak_run: Path, tmp_path: Path) -> None:
    ended = wellfit("compare", finished_run, weak_run, photos(tmp_path / "photos", images=3))
    assert ended.code == 2
    assert "has 'above' and others" in ended.sentence

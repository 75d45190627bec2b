"""`wellfit neighbours` on finished runs: what it finds, keeps, rebuilds, and says where it cannot."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Command, photos, png
from tests.recipe.plans import longer, small_plan, write_plan
from wellfit import Config, Run
from wellfit.errors import UserError
from wellfit.models.saved import card_of, load_model, save_model
from wellfit.recipe.api import fit
from wellfit.recipe.budget import Budget
from wellfit.recipe.feature_bank import read_bank
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.neighbourhood import look_around
from wellfit.recipe.prepare import prepare
from wellfit.record import Record, RunFolder

PLANTED = "below/<b>&00 00.png"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that are easily told apart, and one image of the upper kind in the lower's folder."""
    root = photos(tmp_path_factory.mktemp("pictures") / "data", images=40)
    (root / PLANTED).write_bytes(png(10_000))
    return root


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on them. Not to be written to."""
    folder = tmp_path_factory.mktemp("neighbours")
    plan = write_plan(folder / "p.toml", training=longer(40, batch_size=16, steps_per_epoch=4))
    fit(pictures, plan=plan, out=folder / "run", force=True)
    return folder / "run"


def lines_of(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "record.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_neighbours_are_those_of_a_search_by_hand(wellfit: Command, run: Path, pictures: Path) -> None:
    bank = np.load(run / "arrays" / "features.npy").astype(np.float32)
    about = json.loads((run / "arrays" / "features.json").read_text())
    file = pictures / about["files"][5]
    ended = wellfit("neighbours", run, file, "-k", "3", "--json")
    assert ended.code == 0
    result = ended.json
    assert result["metric"] == "L2"
    assert result["training_images"] == len(about["files"]) == len(bank)
    found = result["images"][0]["neighbours"]
    distances = np.linalg.norm(bank - bank[5], axis=1) / about["scale"]
    order = np.argsort(distances, kind="stable")[:3]
    assert [row["file"] for row in found] == [about["files"][i] for i in order]
    assert found[0] == {"file": about["files"][5], "label": about["classes"][about["labels"][5]], "distance": 0.0}
    assert [row["distance"] for row in found] == pytest.approx(distances[order].tolist(), rel=1e-3, abs=1e-4)


def test_features_are_the_networks_own(run: Path, pictures: Path) -> None:
    about = json.loads((run / "arrays" / "features.json").read_text())
    bank = np.load(run / "arrays" / "features.npy").astype(np.float32) / about["scale"]
    module, _ = load_model(RunFolder(run))
    assert about["layer"] == "fc"
    logits = bank @ module.fc.weight.detach().numpy().T + module.fc.bias.detach().numpy()
    said = [answer["label"] for answer in Run(run).predict([pictures / name for name in about["files"]])]
    assert [about["classes"][i] for i in logits.argmax(1)] == said


def test_the_planted_image_is_named_everywhere_and_never_as_markup(wellfit: Command, run: Path) -> None:
    finding = next(line for line in lines_of(run, "finding") if line["id"] == "perhaps-mislabelled")
    assert finding["severity"] == "info"
    assert {"file": PLANTED, "label": "below", "neighbours_label": "above"} in finding["evidence"]["files"]
    assert PLANTED in wellfit("neighbours", run).out
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Perhaps mislabelled" in page
    assert "&lt;b&gt;&amp;00" in page
    assert "<b>&00" not in page


def test_the_report_shows_test_images_beside_their_neighbours(run: Path) -> None:
    line = lines_of(run, "neighbours")[0]
    assert line["examples"]
    for row in [*line["examples"], *line["suspects"]]:
        for other in [row, *row["neighbours"]]:
            with Image.open(run / "arrays" / other["thumbnail"]) as picture:
                assert not picture.getexif()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count('class="cards strip"') == len(line["examples"]) + len(line["suspects"])


def test_python_gives_the_same_for_file_array_and_picture(run: Path, pictures: Path) -> None:
    file = pictures / "above" / "00.png"
    with Image.open(file) as picture:
        array = np.asarray(picture)
        found = Run(run).neighbours(file, k=4)
        assert Run(run).neighbours(array, k=4) == Run(run).neighbours(picture, k=4) == found
    assert len(found) == 4
    with pytest.raises(UserError, match=r"neighbours are those of a readable image, but .*nope\.png"):
        Run(run).neighbours("nope.png")
    with pytest.raises(UserError, match="-k is from 1 to"):
        Run(run).neighbours(file, k=5000)


def test_a_bad_file_is_named_and_the_others_answered(
    wellfit: Command, run: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad\x1b[31m.png").write_bytes(b"no picture")
    ended = wellfit("neighbours", run, tmp_path / "bad\x1b[31m.png", pictures / "above" / "00.png")
    assert ended.code == 0
    assert "left out: " in ended.err
    assert "\x1b" not in ended.out + ended.err
    assert "nearest of" in ended.out
    assert wellfit("neighbours", run, tmp_path / "bad\x1b[31m.png").code == 2


def test_missing_features_are_made_anew_from_the_data(
    wellfit: Command, run: Path, pictures: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    before = (copy / "arrays" / "features.npy").read_bytes()
    (copy / "arrays" / "features.npy").unlink()
    first = wellfit("neighbours", copy, pictures / "above" / "00.png", "--json")
    assert first.code == 0
    again = np.load(copy / "arrays" / "features.npy").astype(np.float32)
    assert again == pytest.approx(np.load(run / "arrays" / "features.npy").astype(np.float32), rel=2e-3, abs=0.05)
    assert len(before) == (copy / "arrays" / "features.npy").stat().st_size
    assert first.json["images"] == wellfit("neighbours", copy, pictures / "above" / "00.png", "--json").json["images"]
    assert len(lines_of(copy, "neighbours")) == 2


def test_features_of_another_model_are_not_taken(run: Path, finished_run: Path, tmp_path: Path) -> None:
    assert read_bank(RunFolder(run)) is not None
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.copy(finished_run / "model.safetensors", copy / "model.safetensors")
    assert read_bank(RunFolder(copy)) is None


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_data_that_are_gone_or_others_are_said_in_a_sentence(
    wellfit: Command, run: Path, pictures: Path, tmp_path: Path, what: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "arrays" / "features.json").unlink()
    record = (copy / "record.jsonl").read_text()
    elsewhere = tmp_path / "moved"
    shutil.copytree(pictures, elsewhere)
    if what == "changed":
        for i in range(20):
            (elsewhere / "above" / f"{i:02d}.png").unlink()
        ended = wellfit("neighbours", copy, elsewhere / "below" / "00.png", "--data", elsewhere)
        assert "are not those that it was fitted on" in ended.sentence
        return
    (copy / "record.jsonl").write_text(record.replace(json.dumps(str(pictures))[1:-1], "/no/such/place"))
    ended = wellfit("neighbours", copy, elsewhere / "below" / "00.png")
    assert ended.code == 2
    assert "its data are no longer at '/no/such/place'; say where they are with --data DIR" in ended.sentence
    assert wellfit("neighbours", copy, elsewhere / "below" / "00.png", "--data", elsewhere).code == 0


def test_without_time_the_step_is_skipped_with_what_does_it_later(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "late")
    made = Job("digits", Config(), folder, Record(folder.record), Budget(None, time.monotonic()))
    material = Material.of(prepare(made), small_plan())
    built = material.network()
    save_model(folder, built.module, card_of(built, material.data.classes, 16, material.preprocessing.as_dict()))
    job = replace(made, budget=Budget(20.0, time.monotonic() - 30))
    try:
        look_around(job, material, built.module)
    finally:
        job.record.close()
    assert job.outcomes[-1].status == "skipped"
    assert f"`wellfit neighbours {folder.path}` does it" in job.outcomes[-1].reason
    assert not list(folder.arrays.glob("*features*"))

"""The recipe from pretrained weights: a linear classifier on frozen features, then fine-tuning where it gains."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

import wellfit
from tests.recipe.plans import longer, small_plan, write_plan
from wellfit.data.split import Split
from wellfit.errors import UserError
from wellfit.models.zoo import build
from wellfit.recipe import steps
from wellfit.recipe.earlier import perhaps_seen
from wellfit.recipe.plan import ChecksPlan
from wellfit.recipe.prepare import Prepared
from wellfit.record import read_record


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page takes longer than these trainings, and has tests of its own."""
    monkeypatch.setattr(steps, "write_report", lambda folder: None)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 + 12 pictures of each of two classes, 32 pixels, told apart by their bright half."""
    for split, images in (("train", 40), ("test", 12)):
        for number, name in enumerate(("above", "below")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            rng = np.random.default_rng([len(split), number])
            for i in range(images):
                pixels = rng.integers(0, 100, (32, 32, 3))
                pixels[number * 16 : number * 16 + 16] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    return tmp_path / "photos"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A resnet20 of ten other classes, as if trained elsewhere."""
    module = build("resnet20", 10, image_size=32, seed=11).module.train()
    noise = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(40):  # running statistics that fit the weights, as any trained network has
        module(noise)
    torch.save(module.state_dict(), tmp_path / "pretrained.pth")
    return tmp_path / "pretrained.pth"


def plan_of(path: Path, weights: Path, steps_: int) -> Path:
    plan = small_plan()
    return write_plan(
        path,
        augment=("flip",),
        model=replace(
            plan.model, name="resnet20", weights=str(weights), image_size=32, resize=32, transfer="probe", options={}
        ),
        optimizer=replace(plan.optimizer, lr=3e-3),
        checks=ChecksPlan(10, 10),  # too few to pass; the runs are forced past them
        training=longer(steps_, steps_per_epoch=2, evaluate_every=4),
    )


@pytest.mark.parametrize("steps_", [0, 8], ids=["probe alone", "fine-tuned"])
def test_a_run_from_weights_repeats_itself_also_when_killed(
    steps_: int, photos: Path, weights: Path, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path / "plan.toml", weights, steps_)
    untouched = wellfit.fit(photos, plan=plan, out=tmp_path / "untouched", force=True)
    assert untouched.test_accuracy == 1.0  # the bright half stands in any features
    done = {step["name"]: step["status"] for step in untouched.as_dict()["plan"]}
    assert done["probe"] == "done"
    assert done["fine-tune"] == ("done" if steps_ else "skipped")
    assert "search" not in done

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "save", die)
        with pytest.raises(KeyboardInterrupt):
            wellfit.fit(photos, plan=plan, out=tmp_path / "killed", force=True)
    resumed = wellfit.resume(tmp_path / "killed")
    name = "model.safetensors"
    assert (resumed.path / name).read_bytes() == (untouched.path / name).read_bytes()


def test_going_on_from_an_earlier_run_starts_from_its_network(photos: Path, weights: Path, tmp_path: Path) -> None:
    earlier = wellfit.fit(
        photos, plan=plan_of(tmp_path / "plan.toml", weights, 0), out=tmp_path / "earlier", force=True
    )
    config = wellfit.Config().replace(**{"engine.dtype": "float32", "engine.threads": 1})
    later = wellfit.fit(photos, budget="30s", out=tmp_path / "later", start_from=earlier.path, config=config)
    assert later.test_accuracy == 1.0
    assert "test-perhaps-seen" not in [finding.id for finding in later.findings]  # the test folder was given
    assert str(earlier.path.resolve()) in later.folder.config.read_text()


def test_test_images_that_the_earlier_network_may_have_seen_are_a_finding(tmp_path: Path) -> None:
    def divided(splits: dict[str, int], stated: list[str]) -> Prepared:
        train, validation, test = (np.arange(splits[name]) for name in ("train", "validation", "test"))
        split = Split(train, validation, test, classes=["a", "b"], targets=np.zeros(0, dtype=np.int64))
        return cast(Prepared, SimpleNamespace(source=SimpleNamespace(splits=stated), split=split))

    sizes = {"train": 70, "validation": 15, "test": 15}
    lines = [
        {"kind": "run", "seed": 0, "request": {"data": str(tmp_path.resolve())}},
        {"kind": "audit", "splits": sizes},
    ]
    (tmp_path / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    weights = str(tmp_path / "model.safetensors")
    again = divided(sizes, [""])
    assert perhaps_seen(weights, str(tmp_path), again, 0) is None
    for seen in (
        perhaps_seen(weights, str(tmp_path), again, 1),
        perhaps_seen(weights, str(tmp_path.parent), again, 0),
        perhaps_seen(weights, str(tmp_path), divided(sizes | {"train": 71}, [""]), 0),
        perhaps_seen(weights, None, again, 0),
    ):
        assert seen is not None
        assert seen.id == "test-perhaps-seen"
    assert perhaps_seen(weights, str(tmp_path), divided(sizes, ["", "test"]), 1) is None


def test_weights_that_cannot_be_had_are_one_sentence(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cached file, no network: never a silent random start (SPEC T1)."""

    def refuse(*arguments: object, **named: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    config = wellfit.Config().replace(
        **{"model.name": "squeezenet1_1", "model.weights": "imagenet", "engine.dtype": "float32", "engine.threads": 1}
    )
    with pytest.raises(UserError, match="squeezenet1_1") as caught:
        wellfit.fit(photos, out=tmp_path / "run", config=config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_ants_and_bees_from_imagenet_weights(test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """245 training photos with a lone val/ beside them, kept sealed as the test: 153 photos, judged once."""
    monkeypatch.setenv("TORCH_HOME", str(test_data / "weights"))
    plan = small_plan()
    path = write_plan(
        tmp_path / "plan.toml",
        model=replace(
            plan.model,
            name="squeezenet1_1",
            weights="imagenet",
            image_size=160,
            resize=183,
            transfer="probe",
            options={},
        ),
        augment=("flip", "crop"),
        training=longer(0),
        engine=replace(plan.engine, threads=torch.get_num_threads()),
    )
    run = wellfit.fit(test_data / "data" / "ants-bees.tar", plan=path, out=tmp_path / "run")
    assert run.test_images == 153
    assert run.test_accuracy is not None
    assert run.test_accuracy > 0.8
    assert "val-kept-as-test" in [finding.id for finding in run.findings]
    audit = next(line for line in read_record(run.folder.record) if line["kind"] == "audit")
    assert audit["splits"]["train"] + audit["splits"]["validation"] == 245

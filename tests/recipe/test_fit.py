"""The whole recipe on real images, in a few steps: the same bytes each time, also across kills; sealed test images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import wellfit
from tests.recipe.plans import longer, small_plan, write_plan
from wellfit.config import load_config
from wellfit.data import store as pixel_store
from wellfit.errors import Interrupted, UserError
from wellfit.recipe import budget, fitting, steps
from wellfit.recipe.plan import load_plan
from wellfit.record import read_record
from wellfit.training import checkpoint, loop


def fit(out: Path, data: object = "digits", **changes: object) -> wellfit.Run:
    return wellfit.fit(data, plan=write_plan(out.with_suffix(".toml"), **changes), out=out)


def model_of(run: Path | wellfit.Run) -> bytes:
    folder = run if isinstance(run, Path) else run.path
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> wellfit.Run:
    """What every repetition must be equal to."""
    return fit(tmp_path_factory.mktemp("untouched") / "run")


@pytest.fixture(autouse=True)
def no_page(untouched: wellfit.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page takes longer than these trainings; one of the runs, the untouched one, has it."""
    monkeypatch.setattr(steps, "write_report", lambda folder: None)


def kinds(run: Path) -> list[str]:
    return [line["kind"] for line in read_record(run / "record.jsonl")]


def test_a_run_holds_what_it_promises(untouched: wellfit.Run) -> None:
    assert untouched.test_images == 269
    assert untouched.test_accuracy is not None
    assert untouched.test_accuracy > 0.3  # 60 steps; guessing gives 0.1
    assert untouched.classes == list("0123456789")
    lines = list(read_record(untouched.folder.record))
    assert {"run", "audit", "plan", "check", "stage", "trial", "step", "epoch", "evaluation", "end"} <= {
        line["kind"] for line in lines
    }
    assert sum(line["kind"] == "evaluation" for line in lines) == 1
    trials = [line for line in lines if line["kind"] == "trial"]
    # Coarse trials, the best of them longer, then fine ones; numbers count over all.
    assert [t["trial"] for t in trials] == list(range(len(trials)))
    assert list(dict.fromkeys((t["stage"], t["rung"]) for t in trials)) == [("coarse", 0), ("coarse", 1), ("fine", 0)]
    assert {"search.sqlite", "trials"} & {path.name for path in untouched.path.iterdir()} == {"search.sqlite"}
    html = untouched.folder.report.read_text(encoding="utf-8")
    assert "<script src" not in html
    assert 'src="http' not in html


def test_the_model_answers_as_the_evaluation_said(untouched: wellfit.Run) -> None:
    """Predictions through the saved model give the record's own test accuracy, image by image."""
    line = next(line for line in read_record(untouched.folder.record) if line["kind"] == "evaluation")
    digits = load_digits()
    shown = [*line["mistakes"], *line["samples"]]
    rows = [int(item["file"].rpartition("#")[2]) for item in shown]
    scale = np.round(digits.images * (255 / 16)).astype(np.uint8)
    answers = untouched.predict([scale[row] for row in rows])
    assert [a["label"] for a in answers] == [item["predicted"] for item in shown]
    assert [str(digits.target[row]) for row in rows] == [item["label"] for item in shown]


def test_the_same_plan_gives_the_same_bytes(untouched: wellfit.Run, tmp_path: Path) -> None:
    again = wellfit.fit("digits", plan=untouched.folder.plan, out=tmp_path / "again")
    assert model_of(again) == model_of(untouched)
    assert again.test_accuracy == untouched.test_accuracy


def test_another_seed_gives_another_model(untouched: wellfit.Run, tmp_path: Path) -> None:
    assert model_of(fit(tmp_path / "other", seed=1)) != model_of(untouched)


def test_the_settled_configuration_is_written_back(untouched: wellfit.Run) -> None:
    config = load_config(untouched.folder.config)
    assert config.model.name == "whitened"
    assert config.optimizer.name == "adamw"
    assert config.optimizer.lr > 0
    assert "auto" not in untouched.folder.config.read_text()
    assert load_plan(untouched.folder.plan) == small_plan()


def test_nothing_of_a_run_is_pickled(untouched: wellfit.Run) -> None:
    suffixes = {path.suffix for path in untouched.path.rglob("*") if path.is_file()}
    assert suffixes <= {".toml", ".jsonl", ".safetensors", ".json", ".html", ".sqlite", ".jpg", ".npz", ".npy"}
    for path in untouched.path.rglob("*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype != object for name in arrays)


# Kills


class Killed(BaseException):
    """Stands for kill -9 where a real one would need a process of its own: the run's own last words are muted."""


PLACES: dict[str, Callable[[pytest.MonkeyPatch, Callable[..., None]], None]] = {
    "while decoding": lambda patch, die: patch.setattr(pixel_store, "build", die),
    "before the checks": lambda patch, die: patch.setattr(steps, "check", die),
    "before the training": lambda patch, die: patch.setattr(fitting, "train", die),
    "before the model is saved": lambda patch, die: patch.setattr(steps, "save", die),
    "before the evaluation": lambda patch, die: patch.setattr(steps, "evaluate", die),
    "before the report": lambda patch, die: patch.setattr(steps, "report", die),
}


@pytest.mark.parametrize("place", PLACES)
def test_killed_between_any_two_steps_and_resumed_it_gives_the_same_bytes(
    place: str, untouched: wellfit.Run, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WELLFIT_CACHE", str(tmp_path / "cache"))

        def die(*arguments: object, **named: object) -> None:
            raise Killed

        PLACES[place](patch, die)
        patch.setattr(steps, "end_early", lambda job, error: None)
        with pytest.raises(Killed):
            fit(tmp_path / "run")
    assert "end" not in kinds(tmp_path / "run")
    resumed = wellfit.resume(tmp_path / "run")
    assert model_of(resumed) == model_of(untouched)
    assert resumed.test_accuracy == untouched.test_accuracy


@pytest.mark.parametrize("at", [1, 25, 59])
def test_killed_while_training_it_goes_on_from_its_checkpoint(
    at: int, untouched: wellfit.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint after every tenth step; the process dies where the monitor would have been told of step `at`."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    with pytest.MonkeyPatch.context() as patch:
        step = fitting.Monitor.step
        count = [0]

        def dies(self: object, *arguments: object, **named: object) -> object:
            count[0] += 1
            if count[0] == at:
                raise Killed
            return step(self, *arguments, **named)

        patch.setattr(fitting.Monitor, "step", dies)
        patch.setattr(steps, "end_early", lambda job, error: None)
        with pytest.raises(Killed):
            fit(tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoint").glob("*"))
    assert bool(kept) == (at > 10)
    before = [line for line in read_record(tmp_path / "run" / "record.jsonl") if line["kind"] == "step"]
    assert model_of(wellfit.resume(tmp_path / "run")) == model_of(untouched)
    after = [line for line in read_record(tmp_path / "run" / "record.jsonl") if line["kind"] == "step"][len(before) :]
    assert after[0]["step"] == (at - 1) // 10 * 10 + 1  # not from the beginning


def test_killed_by_the_system_at_random_moments(untouched: wellfit.Run, tmp_path: Path) -> None:
    """kill -9 of a real process, three times; `benchmarks/kills.py` does it many more times."""
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("this system has no kill -9")
    plan, out = write_plan(tmp_path / "plan.toml"), tmp_path / "run"
    environment = {**os.environ, "WELLFIT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "wellfit", "fit", "digits", "--plan", str(plan), "--out", str(out)]
    rng = np.random.default_rng(0)
    for kill in range(3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = _lines(out)
        while process.poll() is None and _lines(out) < lines + 4 + int(rng.integers(0, 20)):
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert out.exists(), kill
        command = [sys.executable, "-m", "wellfit", "resume", str(out)]
    if not any(line.get("status") == "done" for line in read_record(out / "record.jsonl") if line["kind"] == "end"):
        subprocess.run(command, env=environment, capture_output=True, check=True, timeout=120)
    assert model_of(out) == model_of(untouched)


def _lines(run: Path) -> int:
    path = run / "record.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


# Stops and full disks


def test_asked_to_stop_it_evaluates_saves_and_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first Ctrl-C finishes the step, evaluates and saves; what is left is done by resume."""
    plan = write_plan(tmp_path / "p.toml", training=longer(400))
    before = signal.getsignal(signal.SIGINT)  # ignored, where the tests run in the background of a script

    def listener(kind: str, fields: dict[str, object]) -> None:
        if kind == "step" and fields["step"] == 20:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped as asked, evaluated and saved"):
        wellfit.fit("digits", plan=plan, out=tmp_path / "run", listener=listener)
    stopped = wellfit.Run(tmp_path / "run")
    assert stopped.test_accuracy is not None
    assert signal.getsignal(signal.SIGINT) is before
    resumed = wellfit.resume(tmp_path / "run")
    lines = list(read_record(resumed.folder.record))
    assert max(line["step"] for line in lines if line["kind"] == "step") == 400
    assert [line["status"] for line in lines if line["kind"] == "end"] == ["interrupted", "done"]


def test_the_second_ctrl_c_aborts_and_the_run_can_be_resumed(untouched: wellfit.Run, tmp_path: Path) -> None:
    def listener(kind: str, fields: dict[str, object]) -> None:
        if kind == "step" and fields["step"] == 20:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        wellfit.fit("digits", plan=write_plan(tmp_path / "p.toml"), out=tmp_path / "run", listener=listener)
    assert model_of(wellfit.resume(tmp_path / "run")) == model_of(untouched)


def test_a_disk_that_fills_up_while_training_is_said_and_the_run_goes_on_later(
    untouched: wellfit.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    saved: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        write = checkpoint.write_atomically

        def full(path: Path, content: bytes) -> None:
            if len(saved) == 2:
                raise OSError(28, "No space left on device")
            write(path, content)
            saved.append(path.read_bytes())

        patch.setattr(checkpoint, "write_atomically", full)
        with pytest.raises(UserError, match=r"the disk is full.*the earlier one is intact.*wellfit resume"):
            fit(tmp_path / "run")
    (kept,) = (tmp_path / "run" / "checkpoint").iterdir()
    assert kept.read_bytes() == saved[-1]
    assert model_of(wellfit.resume(tmp_path / "run")) == model_of(untouched)


# The sealed test split (SPEC D5)


def photo_folder(root: Path, seed: int, *, names: list[str], swap: bool = False) -> None:
    """train/ and test/ of two classes; the test part's pixels from `seed`, its labels swapped where asked."""
    from PIL import Image

    for split, images in (("train", 40), ("test", 12)):
        for number, name in enumerate(names):
            folder = root / split / name
            folder.mkdir(parents=True)
            rng = np.random.default_rng([seed if split == "test" else 0, number])
            for i in range(images):
                pixels = rng.integers(0, 100, (20, 20, 3))
                shown = 1 - number if swap and split == "test" else number
                pixels[shown * 10 : shown * 10 + 10] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")


def test_test_labels_and_pixels_leave_no_trace_in_the_model(tmp_path: Path) -> None:
    """Permuted test labels and other test pixels: a byte-identical model (D5)."""
    model = replace(small_plan().model, image_size=20, resize=20)
    training = longer(30, steps_per_epoch=2, evaluate_every=10)
    made = []
    for name, seed, swap in (("one", 1, False), ("other", 2, True)):
        photo_folder(tmp_path / name, seed, names=["above", "below"], swap=swap)
        run = fit(tmp_path / f"run-{name}", tmp_path / name, model=model, training=training)
        made.append(run)
    assert model_of(made[0]) == model_of(made[1])
    cards = [json.loads(run.folder.model_card.read_text()) for run in made]
    assert cards[0] == cards[1]
    assert made[0].test_accuracy != made[1].test_accuracy  # the test images did differ


def test_the_test_split_is_decoded_after_the_model_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wellfit.data import store_build

    photo_folder(tmp_path / "photos", 3, names=["above", "below"])
    sealed = {path.read_bytes() for path in (tmp_path / "photos" / "test").rglob("*.png")}
    opened: list[bool] = []
    decode = store_build.decode

    def noted(data: bytes, *arguments: object, **named: object) -> np.ndarray:
        if data in sealed:
            opened.append((tmp_path / "run" / "model.safetensors").exists())
        return decode(data, *arguments, **named)

    monkeypatch.setattr(store_build, "decode", noted)
    model = replace(small_plan().model, image_size=20, resize=20)
    fit(tmp_path / "run", tmp_path / "photos", model=model, training=longer(6, steps_per_epoch=2, evaluate_every=6))
    assert opened == [True] * 24


# Data from Python, and a deadline


def test_arrays_in_python_give_the_run_that_the_files_give(untouched: wellfit.Run, tmp_path: Path) -> None:
    digits = load_digits()
    run = fit(tmp_path / "run", ((digits.images * 255 / 16).round().astype(np.uint8), digits.target))
    assert run.test_images == 269
    assert run.test_accuracy is not None
    assert run.test_accuracy > 0.3
    with pytest.raises(UserError, match="is finished"):
        wellfit.resume(run.path)


def test_under_a_deadline_a_run_ends_with_the_model_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SMALLEST", 5.0)
    config = wellfit.Config().replace(
        **{"model.name": "lenet5", "model.image_size": 28, "engine.dtype": "float32", "engine.threads": 1}
    )
    run = wellfit.fit("digits", budget="16s", config=config, out=tmp_path / "run")
    assert run.test_accuracy is not None
    done = {step["name"]: step["status"] for step in run.as_dict()["plan"]}
    assert done["train"] == done["evaluate"] == done["report"] == "done"
    assert [line["status"] for line in read_record(run.folder.record) if line["kind"] == "end"] == ["done"]

"""`wellfit search` and what can be done with what it leaves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.recipe.plans import small_plan
from wellfit.config import load_config
from wellfit.recipe import search_plan, search_preview, searching
from wellfit.recipe.plan import ChecksPlan, ModelPlan, Plan, SearchPlan
from wellfit.search import outage

KEYS = {"schema", "run", "best", "trials", "finished", "pruned", "failed", "stages", "importance", "seconds"}
KEYS |= {"train_seconds", "findings"}


def quick_plan(job: Any, data: Any) -> Plan:
    model = ModelPlan("lenet5", "none", 16, 16)
    return small_plan(model=model, search=SearchPlan(validation_images=100), checks=ChecksPlan(200, 40))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (searching, search_preview):
        monkeypatch.setattr(room, "make_search_plan", quick_plan)
    monkeypatch.setattr(search_plan, "SHORTEST_TRIAL", 200)


def test_search_prints_one_object_and_show_and_train_take_it_up(wellfit: Command, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text("[lr]\nlog_uniform = [1e-3, 1e-2]\n[batch_size]\nchoice = [32, 64]\n")
    (tmp_path / "c.toml").write_text("[training]\nepochs = 0.4\n")
    options = ("--trials", "3", "--workers", "1", "--config", "c.toml", "--out", "s")
    ended = wellfit("search", "digits", "space.toml", *options, "--json")
    assert ended.code == 0, ended.err
    said = ended.json
    assert said.keys() == KEYS
    assert (said["trials"], said["run"]) == (3, "s")
    assert said["stages"][0]["ranges"] == {"lr": [1e-3, 1e-2], "batch_size": [32, 64]}
    # Progress goes to stderr: gates, stages, trials.
    for part in ("no-good-lr", "coarse stage: the space as given", "trial coarse 0", "✓ search"):
        assert part in ended.err, part

    again = wellfit("show", "s", "--json")
    assert again.json == said
    shown = wellfit("show", "s")
    assert "trials, best first" in shown.out
    assert "wellfit train digits s/best.toml" in shown.out.replace("\n", " ")

    best = load_config(tmp_path / "s" / "best.toml")
    assert (best.optimizer.lr, best.training.batch_size) == (
        said["best"]["settings"]["lr"],
        said["best"]["settings"]["batch_size"],
    )
    finished = wellfit("resume", "s")
    assert finished.code == 0
    assert "wellfit train digits s/best.toml" in finished.out.replace("\n", " ")
    assert wellfit("resume", "s", "--json").json == said


def test_dry_run_says_what_would_be_done_and_does_nothing(wellfit: Command, tmp_path: Path) -> None:
    ended = wellfit("search", "digits", "--trials", "12", "--sampler", "qmc", "--dry-run")
    assert ended.code == 0, ended.err
    for part in ("lenet5", "sampler    qmc", "space      lr: ", "12 trials", "nothing was trained"):
        assert part in ended.out, part
    assert not (tmp_path / "runs").exists()
    planned = wellfit("search", "digits", "--trials", "12", "--dry-run", "--json").json
    assert (planned["trials"], planned["sampler"], planned["budget_epochs"]) == (12, "random", None)
    assert planned["first_round"] > 0


def test_dry_run_says_that_a_speed_is_not_known(wellfit: Command) -> None:
    """The quick plan measures nothing."""
    ended = wellfit("search", "digits", "--budget", "60s", "--dry-run")
    assert ended.code == 0, ended.err
    assert "of trials; the speed of this machine is not known" in ended.out
    assert "epochs of training in all" not in ended.out
    planned = wellfit("search", "digits", "--budget", "60s", "--dry-run", "--json").json
    assert planned["budget_epochs"] is None
    assert 30 < planned["budget_seconds"] < 60


def test_dry_run_asks_the_storage(wellfit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "OPENING", 0.3)
    away = ("--storage", "postgresql://me@127.0.0.1:9/none", "--study", "x")
    ended = wellfit("search", "digits", "--trials", "2", *away, "--dry-run")
    assert ended.code == 2
    assert re.search("postgresql://me@127.0.0.1:9/none did not answer for 0 s", ended.sentence)
    (tmp_path / "file").touch()
    ended = wellfit("search", "digits", "--trials", "2", "--storage", "file/s.sqlite", "--study", "x", "--dry-run")
    assert "is no folder that can be written to" in ended.sentence

    shared = ("--storage", "s.sqlite", "--study", "x")
    asked = ("search", "digits", "--trials", "2", *shared, "--dry-run")
    assert "study      'x' is to be founded in" in wellfit(*asked).out
    assert not (tmp_path / "s.sqlite").exists()
    monkeypatch.setattr(searching, "check", lambda job, material: [])
    monkeypatch.setattr(searching, "write_report", lambda folder: None)
    (tmp_path / "c.toml").write_text("[training]\nepochs = 0.2\n")
    made = ("search", "digits", "--trials", "2", *shared, "--config", "c.toml", "--workers", "1", "--sampler", "qmc")
    assert wellfit(*made, "--out", "s").code == 0
    joined = wellfit("search", "digits", *shared, "--config", "c.toml", "--sampler", "qmc", "--dry-run")
    assert "is joined, its plan taken over; 2 trials have ended" in joined.out
    assert "sampler    qmc" in joined.out
    assert "another trials (2 there, 3 here)" in wellfit(*made, "--trials", "3", "--dry-run").sentence


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ("[lr]\nlog_uniform = [0, 1]\n", r"space.toml: 'lr': .*0 < low < high"),
        ("[lr]\nlog_uniform = [1, 1]\n", r"space.toml: 'lr': .*0 < low < high"),
        ("[learning_rate]\nlog_uniform = [1e-3, 1]\n", "space.toml: unknown setting 'learning_rate'"),
        ("", "space.toml is empty"),
        ("[lr\n", "no valid TOML"),
    ],
)
def test_a_space_that_cannot_be_is_one_sentence(space: str, sentence: str, wellfit: Command, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(space)
    ended = wellfit("search", "digits", "space.toml", "--trials", "3")
    assert ended.code == 2
    assert re.search(sentence, ended.sentence)
    assert not (tmp_path / "runs").exists()


def test_the_passwords_of_an_address_stay_out_of_the_folder(
    wellfit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is not there: the run ends, and what it wrote until then holds no password."""
    monkeypatch.setattr(outage, "OPENING", 0.3)
    address = "postgresql://me:secret77@127.0.0.1:9/none"
    ended = wellfit("search", "digits", "--trials", "2", "--storage", address, "--study", "x", "--out", "s")
    assert ended.code == 2
    assert "secret77" not in ended.out + ended.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"secret77" not in path.read_bytes(), path

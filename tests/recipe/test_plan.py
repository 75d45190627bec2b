from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.recipe.plans import longer, small_plan
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.recipe.plan import EndingPlan, Plan, load_plan, plan_in_words, save_plan

PLANS = [
    small_plan(),
    small_plan(augment=(), reasons=(), engine=Engine("cpu", "bfloat16", "contiguous", 7)),
    small_plan(training=longer(1, balance="sampler", l1=1e-5, patience=3)),
    small_plan(model=replace(small_plan().model, options={}, transfer="probe", weights="imagenet")),
]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_comes_back(plan: Plan, tmp_path: Path) -> None:
    save_plan(tmp_path / "plan.toml", plan)
    assert load_plan(tmp_path / "plan.toml") == plan


def test_what_was_done_stands_in_the_file_and_does_not_change_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    rows = [
        {"name": "search", "status": "skipped", "seconds": 0.0, "reason": "no time", "gain": None},
        {"name": "train", "status": "done", "seconds": 9.5, "reason": "3 epochs", "gain": 0.02},
    ]
    save_plan(path, small_plan(), rows)
    assert load_plan(path) == small_plan()
    done = tomllib.loads(path.read_text(encoding="utf-8"))["done"]
    assert [row["name"] for row in done] == ["search", "train"]
    assert done[1] == rows[1]


def test_a_plan_counts_and_never_times(tmp_path: Path) -> None:
    """Seconds and deadlines would make a repetition depend on the machine."""
    save_plan(tmp_path / "plan.toml", small_plan())
    text = (tmp_path / "plan.toml").read_text()
    assert not [word for word in ("second", "minute", "deadline", "budget", "time") if word in text]


def test_the_same_plan_gives_the_same_file(tmp_path: Path) -> None:
    save_plan(tmp_path / "a", small_plan())
    save_plan(tmp_path / "b", load_plan(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_plan_in_words_names_what_is_decided() -> None:
    text = "\n".join(plan_in_words(small_plan()))
    for part in (
        "whitened at 16 px",
        "up to 8 trials of 4 to 9 steps",
        "60 steps of 32 images",
        "adamw",
        "crop",
    ):
        assert part in text
    assert "because    made by hand" in text


def test_a_foreign_toml_file_is_no_plan(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("seed = 1\n")
    with pytest.raises(
        UserError, match=r"is no complete plan: .*model.* missing; give the plan.toml of an earlier run"
    ):
        load_plan(tmp_path / "config.toml")


def test_a_plan_from_before_ensembles_and_views_is_read_without_them(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    save_plan(path, small_plan())
    text = path.read_text(encoding="utf-8")
    begin = text.index("[ending]")
    path.write_text(text[:begin] + text[text.find("\n[", begin) + 1 :], encoding="utf-8")
    assert "[ending]" not in path.read_text(encoding="utf-8")
    assert load_plan(path) == small_plan()
    asked = small_plan(ending=EndingPlan(3, (0.7, 1.0), ("flip", "ten"), ("views",)))
    save_plan(path, asked)
    assert load_plan(path) == asked
    said = "\n".join(plan_in_words(asked))
    assert "an ensemble of 3 networks" in said
    assert "2 snapshots" in said
    assert "flip, ten" in said

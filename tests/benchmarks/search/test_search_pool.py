"""The pool: disjoint parts, trials that are kept, no mixing of definitions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import search_pool
from search_pool import fill_pool, parts_of, read_pool

from wellfit.errors import UserError
from wellfit.recipe.material import Material
from wellfit.search.space import contains


def test_training_validation_and_judges_are_disjoint() -> None:
    given = np.arange(3, 60_003)
    parts = parts_of(given)
    assert [len(part) for part in parts] == [20_000, 10_000, 10_000]
    together = np.concatenate(parts)
    assert len(np.unique(together)) == 40_000
    assert np.isin(together, given).all()
    assert all((np.diff(part) > 0).all() for part in parts)
    assert all(np.array_equal(a, b) for a, b in zip(parts, parts_of(given), strict=True))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match="40,000"):
        parts_of(np.arange(39_999))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of half an epoch and one of the small net."""
    monkeypatch.setattr(search_pool, "LOOKS", (0.5, 1.0))
    space = {name: kind for name, kind in search_pool.SPACE.items() if name in ("lr", "weight_decay")}
    monkeypatch.setattr(search_pool, "SPACE", space)


@pytest.mark.usefixtures("short")
def test_a_pool_that_was_cut_off_goes_on_to_the_same(material: Material, pool_file: Path, tmp_path: Path) -> None:
    whole = fill_pool(material, tmp_path / "other" / "pool.jsonl", 4)
    fill_pool(material, pool_file, 2)
    # A kill leaves half a line.
    with pool_file.open("a") as file:
        file.write('{"kind": "trial", "number": 2, "sett')
    again = fill_pool(material, pool_file, 4)
    lines = [json.loads(line) for line in pool_file.read_text().splitlines() if line.endswith("}")]
    assert [line["number"] for line in lines if line["kind"] == "trial"] == [0, 1, 2, 3]
    for one, other in zip(whole, again, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.usefixtures("short")
def test_a_trial_of_the_pool_counts_its_images_and_is_judged(material: Material, pool_file: Path) -> None:
    for trial in fill_pool(material, pool_file, 4):
        assert contains(search_pool.SPACE, trial["settings"])
        if trial["state"] != "finished":
            assert trial["judged"] is None
            continue
        steps = len(material.data.split.train) // 128
        assert trial["images"] == steps * 128
        assert len(trial["scores"]) == 2
        right = trial["judged"] * len(material.data.split.test)
        assert right == pytest.approx(round(right), abs=1e-6)


@pytest.mark.usefixtures("short")
def test_a_pool_of_another_definition_is_refused(
    material: Material, pool_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_pool(material, pool_file, 1)
    monkeypatch.setattr(search_pool, "POOL_SEED", 1)
    with pytest.raises(UserError, match="made otherwise"):
        read_pool(pool_file)

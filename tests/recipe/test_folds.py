"""Below 500 images the trials of the search are cross-validated (SPEC D5)."""

from __future__ import annotations

from pathlib import Path

import pytest
from sklearn.datasets import load_digits

import wellfit
from tests.recipe.plans import without_page, write_plan
from wellfit.recipe.plan import SearchPlan
from wellfit.record import read_record


@without_page()
@pytest.mark.parametrize(("folds", "runs"), [(5, 5), (0, 1)])
def test_each_trial_is_run_once_a_fold(folds: int, runs: int, tmp_path: Path) -> None:
    digits = load_digits()
    images = (digits.images[:300] * 15).astype("uint8")
    plan = write_plan(tmp_path / "p.toml", search=SearchPlan(3, 2, 3, 4, 40, folds))
    run = wellfit.fit((images, [str(label) for label in digits.target[:300]]), plan=plan, out=tmp_path / "run")
    trials = [line for line in read_record(run.folder.record) if line["kind"] == "trial"]
    assert trials
    assert {trial["runs"] for trial in trials} == {runs}
    if folds:  # judged on each image that is not in the test split, once
        judged = 300 - (run.test_images or 0)
        for trial in trials:
            right = trial["validation_accuracy"] * judged
            assert abs(right - round(right)) < 1e-6

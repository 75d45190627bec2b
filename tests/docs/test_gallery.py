"""The gallery's pages run on small settings, draw something, and say where in the recipe they belong.

`make docs` runs them in full. WELLFIT_KEEP_FIGURES names a folder in which the figures are kept.
"""

from __future__ import annotations

import ast
import os
import re
import runpy
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "gallery").glob("*/plot_*.py"))
# Drawn by hand-picked parts of the course; a page that is taken away must be taken away here too.
PICTURES = {
    "activations",
    "augmentations",
    "boundaries",
    "curves",
    "depth",
    "detector",
    "dropout",
    "filters",
    "initialisation",
    "normalisation",
    "optimizers",
    "receptive_field",
    "schedules",
    "search",
}


def test_each_picture_of_the_courses_has_a_page() -> None:
    assert {page.stem.removeprefix("plot_") for page in PAGES} == PICTURES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_and_draws(
    page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WELLFIT_GALLERY", "quick")
    monkeypatch.chdir(page.parent)
    kept = Path(os.environ.get("WELLFIT_KEEP_FIGURES", tmp_path))
    kept.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context():
        mpl.use("Agg")
        plt = pytest.importorskip("matplotlib.pyplot")
        plt.close("all")
        try:
            runpy.run_path(str(page), run_name="__main__")
            numbers = plt.get_fignums()
            assert numbers
            for number in numbers:
                figure = plt.figure(number)
                assert figure.axes
                file = kept / f"{page.stem}_{number}.png"
                figure.savefig(file, dpi=40)
                pixels = plt.imread(file)[..., :3]
                assert np.ptp(pixels) > 0.3, "an empty figure"
                assert all(np.isfinite(axes.get_position().bounds).all() for axes in figure.axes)
        finally:
            plt.close("all")
    capsys.readouterr()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_its_row_and_says_what_it_means(page: Path) -> None:
    source = page.read_text(encoding="utf-8")
    opening = ast.get_docstring(ast.parse(source)) or ""
    title, rule = opening.splitlines()[:2]
    assert set(rule) == {"="}
    assert len(rule) == len(title)
    assert re.search(r"\brows?\s+[A-Z]\d", opening), "the row of the recipe"
    assert "What it means for your choice" in source


def test_pages_neither_fetch_nor_read_what_is_not_shipped() -> None:
    for page in PAGES:
        source = page.read_text(encoding="utf-8")
        assert not re.search(r"https?://|urlopen|fetch_|download=True|WELLFIT_TEST_DATA", source), page.name

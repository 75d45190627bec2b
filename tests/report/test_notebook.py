"""A run, a search and findings as a notebook shows them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report.conftest import RunMaker, write_run
from tests.report.test_page import ATTACK, Page, assert_asks_nothing
from wellfit.findings import Finding, Findings, explanations
from wellfit.recipe.run import Run
from wellfit.recipe.search_run import SearchRun
from wellfit.record import Record, RunFolder
from wellfit.report.notebook import card


def shown(text: str) -> Page:
    """What a browser makes of it: no script, no request, no style sheet, every element closed."""
    page = Page(text)
    assert_asks_nothing(page)
    assert "style" not in {tag for tag, _ in page.elements}
    assert not any("id" in attributes for _, attributes in page.elements)  # the page is somebody else's
    return page


def test_a_run_shows_its_verdict_its_curves_and_its_warnings(make_run: RunMaker) -> None:
    folder = make_run(steps=900)
    text = Run(folder)._repr_html_()
    page = shown(text)
    for words in ("How good.", "How sure.", "What next.", "resnet18, done in 9 min 43 s", "overfitting", "loss, 0."):
        assert words in page.words, words
    assert [tag for tag, _ in page.elements].count("polyline") == 3
    assert len(text) < 12_000
    names = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    assert names[0].startswith("loss, ")
    assert names[1].startswith("accuracy, best validation ")


@pytest.mark.parametrize("until", ["run", "audit", "plan", "step", "epoch", "evaluation", "end"])
def test_a_run_in_any_state_shows_itself(make_run: RunMaker, until: str) -> None:
    page = shown(card(make_run(steps=30, until=until)))
    assert "unfinished" in page.words
    assert "nan" not in page.words.lower()


def test_a_curve_lies_within_its_frame(make_run: RunMaker) -> None:
    for tag, attributes in shown(card(make_run(steps=500))).elements:
        if tag == "polyline":
            points = [tuple(map(float, pair.split(","))) for pair in attributes["points"].split()]
            assert all(0 <= x <= 220 and 0 <= y <= 44 for x, y in points)
            assert len(points) <= 110


def test_hostile_names_are_text(make_run: RunMaker) -> None:
    folder = make_run(ATTACK.replace("/", ""), steps=20, classes=[ATTACK, "b"])
    record = Record(folder.record)
    record.write("finding", id=ATTACK, severity="error", message=ATTACK, action=f"`{ATTACK}`", step=None)
    record.write("plan", model=ATTACK)
    record.close()
    assert ATTACK in shown(card(folder)).words


def test_a_finding_shows_itself_with_its_explanation() -> None:
    finding = Finding("overfitting", "warning", f"{ATTACK} \u202e", {"classes": [ATTACK]}, "Use `--weights imagenet`.")
    page = shown(finding._repr_html_())
    assert page.words.count(ATTACK) == 2  # message and evidence
    assert explanations()["overfitting"]["title"] in page.words
    assert "\u202e" not in page.words
    assert "--weights imagenet" in page.words
    assert [tag for tag, _ in page.elements].count("details") == 1


@pytest.mark.parametrize("name", sorted(explanations()))
def test_every_kind_of_finding_can_be_shown(name: str) -> None:
    assert name in shown(Finding(name, "info", "m")._repr_html_()).words


def test_findings_show_themselves_one_below_the_other(make_run: RunMaker) -> None:
    findings = Run(make_run(steps=10)).findings
    assert isinstance(findings, list)
    places = [findings._repr_html_().index(finding.id) for finding in findings]
    assert len(places) == 3
    assert places == sorted(places)
    assert shown(Findings()._repr_html_()).words == "No findings."


def test_a_search_shows_itself(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    record = Record(folder.record)
    record.write("run", schema=1, request={"search": {}, "data": "digits"})
    for number in range(3):
        fields = {"stage": "coarse", "state": "finished", "validation_accuracy": 0.5 + number / 10, "curve": [[1, 2.0]]}
        record.write("trial", trial=number, settings={"lr": 10.0**-number}, **fields)
    record.close()
    run = SearchRun(folder)
    assert "So far the search has reached 70.0%" in shown(run._repr_html_()).words
    assert run.figures.setting("lr").data


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)


def test_in_a_real_notebook(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="a notebook is executed by nbclient: pip install nbclient")
    pytest.importorskip("ipykernel", reason="a notebook is executed by a kernel: pip install ipykernel")
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    folder = write_run(tmp_path / "<b>run", steps=40)
    cells = (f"from wellfit import Run\nrun = Run({str(folder.path)!r})\nrun", "run.findings", "run.figures.loss()")
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    nbformat.validate(notebook)
    run, findings, figure = ((cell.outputs[0].data if cell.outputs else {}) for cell in notebook.cells)
    assert run["text/html"] == Run(folder)._repr_html_()
    assert run["text/plain"].startswith("Run(")
    assert "overfitting" in findings["text/html"]
    tags = Tags()
    tags.feed(run["text/html"] + findings["text/html"])
    assert not {"script", "style", "link"} & tags.seen
    plotted = figure["application/vnd.plotly.v1+json"]
    assert len(plotted["data"][0]["x"]) > 0

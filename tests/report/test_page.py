from __future__ import annotations

import html
import json
import re
import shutil
import stat
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import RunMaker, write_run
from wellfit.errors import UserError
from wellfit.findings import explanations
from wellfit.record import RunFolder, read_record
from wellfit.report.history import read_history
from wellfit.report.page import write_report
from wellfit.report.verdict import judge

ATTACK = "<img src=x onerror=alert(1)>"
BREAKS = ("run", "audit", "plan", "check", "stage", "trial", "step", "epoch", "finding", "evaluation", "end")
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """What a browser would see: elements with attributes, the text of each section, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.styles: list[str] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        (self.styles if self.open and self.open[-1] == "style" else self.text).append(data)

    @property
    def style(self) -> str:
        return "".join(self.styles)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def page_of(folder: RunFolder) -> Page:
    path = write_report(folder)
    assert path == folder.report
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= 5_000_000
    page = Page(text)
    assert_asks_nothing(page)
    return page


def assert_asks_nothing(page: Page) -> None:
    assert page.unbalanced == []
    assert page.open == []
    for tag, attributes in page.elements:
        assert tag not in {"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject"}
        for key, value in attributes.items():
            assert not key.startswith("on"), (tag, key)
            if key in {"src", "srcset", "href", "xlink:href", "action", "data", "poster"}:
                assert value.startswith(("data:image/", "#")), (tag, key, value)
            assert "url(http" not in value
            assert "javascript:" not in value
    assert "@import" not in page.style
    assert "url(" not in page.style


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Page:
    findings = ("overfitting", "near-duplicates", "lr-too-high")
    return page_of(write_run(tmp_path_factory.mktemp("whole") / "run", steps=300, trials=16, findings=findings))


def test_a_whole_run_shows_every_section(whole: Page) -> None:
    page = whole
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == ["training", "search", "classes", "pictures", "checks", "findings", "data", "steps", "origin"]
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == [f"#{name}" for name in sections]
    for words in (
        "right on test images",
        "Loss and learning rate",
        "Train and validation accuracy",
        "Update / weight ratio",
        "Learning rate and weight decay",
        "Trials, step by step",
        "The search: done (+3.1 points on validation). 40 short trials in two stages.",
        "widths 64, 128",
        "balance sampler",
        "image size 40 px",
        "Confusion matrix",
        "Reliability",
        "Most frequent mistakes",
        "Most confident mistakes",
        "Twenty images were learnt by heart",
        "Training is far ahead of validation",
        "a Git-LFS pointer",
        "the budget leaves no time for several views",
        "wellfit fit photos/ --budget 10m --seed 0",
        "2.15.0",
        "lr = 0.021",
        "bfloat16",
    ):
        assert words in page.words, words
    pictures = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(pictures) == 24
    assert all(attributes["alt"] for attributes in pictures)


def test_verdict_comes_first_and_findings_root_cause_first(whole: Page) -> None:
    words = whole.words
    places = [words.index(text) for text in ("How good", "How sure", "What next", "Loss and learning rate")]
    assert places == sorted(places)
    findings = words[words.index("Findings", words.index("Checks", places[-1])) :]
    order = [findings.index(name) for name in ("near-duplicates", "lr-too-high", "overfitting")]
    assert order == sorted(order)


@pytest.mark.parametrize("until", ["", "step", "evaluation"])
def test_the_verdict_is_three_sentences_before_any_figure(make_run: RunMaker, until: str) -> None:
    folder = make_run(steps=20, trials=0, until=until)
    text = write_report(folder).read_text(encoding="utf-8")
    said = re.findall(r"<dt>([^<]+)</dt><dd>(.*?)</dd>", text)[:3]
    assert [term for term, _ in said] == ["How good", "How sure", "What next"]
    for (_, shown), sentence in zip(said, judge(read_history(folder)).sentences, strict=True):
        assert html.unescape(re.sub("<[^>]*>", "", shown)) == sentence.replace("`", "")
        assert sentence.endswith(".")
    assert "<svg" not in text[: text.index("What next")]


def test_the_explanation_of_a_finding_reads_as_it_was_written(make_run: RunMaker) -> None:
    text = write_report(make_run(steps=5, trials=0, findings=("overfitting", "lr-too-high"))).read_text("utf-8")
    plain = html.unescape(re.sub("<[^>]*>", "", text))
    for name in ("overfitting", "lr-too-high"):
        assert " ".join(explanations()[name]["text"].replace("`", "").split()) in plain


def test_rules_for_narrow_windows_are_for_screens_alone(whole: Page) -> None:
    # A sheet of paper is narrower than most windows: with their rules each page would hold one figure.
    queries = re.findall(r"@media[^{]*max-width[^{]*", whole.style)
    assert queries
    assert all("screen" in query for query in queries)


def test_a_report_prints_on_a_few_pages(make_run: RunMaker, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("printing is tested with chromium, which is not installed here: apt-get install chromium")
    folder = make_run(steps=200)
    printed = tmp_path / "report.pdf"
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}")
    command = [browser, *options, f"--print-to-pdf={printed}", write_report(folder).as_uri()]
    subprocess.run(command, capture_output=True, timeout=100, check=True)
    pages = len(re.findall(rb"/Type /Page\b", printed.read_bytes()))
    assert 4 <= pages <= 10


def test_every_figure_has_a_name_and_a_caption(whole: Page) -> None:
    drawings = [attributes for tag, attributes in whole.elements if tag == "svg"]
    assert len(drawings) == 10
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)
    ids = [attributes["id"] for _, attributes in whole.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_hostile_names_are_shown_as_text(make_run: RunMaker) -> None:
    classes = [ATTACK, "</style><script>alert(1)</script>", '" onmouseover="alert(1)', "\u202egnp.exe", "$\\frac$"]
    folder = make_run(ATTACK.replace("/", ""), steps=20, classes=classes)
    for file in (folder.config, folder.plan, folder.model_card):
        file.write_text(f"</pre>{ATTACK}</details>", encoding="utf-8")
    lines = [poisoned(line) for line in read_record(folder.record)]
    folder.record.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    page = page_of(folder)
    assert ATTACK in page.words
    assert "</style><script>alert(1)</script>" in page.words
    assert "\u202e" not in page.words


def poisoned(value: Any, key: str = "") -> Any:
    """Every text in a line made hostile, except those that steer the reading."""
    if isinstance(value, dict):
        return {k if k != "ram" else ATTACK: poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(item, key) for item in value]
    steering = {"kind", "id", "severity", "state", "split", "status", "thumbnail", "class", "stage"}
    return f"{ATTACK}{value}" if isinstance(value, str) and key not in steering else value


@pytest.mark.parametrize("until", BREAKS)
def test_a_record_may_break_off_anywhere(make_run: RunMaker, until: str) -> None:
    page = page_of(make_run(steps=12, trials=3, until=until))
    assert "was killed" in page.words
    assert "nan%" not in page.words


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_the_state_of_a_run_is_said(make_run: RunMaker, status: str) -> None:
    words = page_of(make_run(steps=12, trials=0, status=status)).words
    assert {"failed": "The run failed", "interrupted": "The run was interrupted"}[status] in words


def test_a_check_that_ran_out_of_time_has_not_failed(make_run: RunMaker) -> None:
    folder = make_run(steps=4, trials=0)
    for name, finished in (("initial-loss", True), ("no-good-lr", False)):
        line = {"kind": "check", "check": name, "passed": False, "finished": finished, "message": "seen"}
        with folder.record.open("a", encoding="utf-8") as record:
            record.write(json.dumps(line) + "\n")
    words = page_of(folder).words
    assert "1 of 3 checks failed; 1 of 3 checks ran out of time" in words
    assert "The first loss is that of an even guess failed" in words
    assert "A learning rate makes the loss fall undecided" in words
    assert "A few images can be learnt by heart passed" in words


def test_an_empty_record_gives_a_page(tmp_path: Path) -> None:
    (tmp_path / "record.jsonl").write_text("", encoding="utf-8")
    words = page_of(RunFolder(tmp_path)).words
    assert "Not measured yet" in words
    assert "No training step is recorded" in words


@pytest.mark.parametrize("junk", [None, "junk", -1, "nan", [], [[1]], {"a": None}, 10**400, True])
def test_fields_of_any_type_are_survived(make_run: RunMaker, junk: object) -> None:
    folder = make_run(steps=4, trials=2)
    lines = [dict.fromkeys(line, junk) | {"kind": line["kind"], "schema": 1} for line in read_record(folder.record)]
    folder.record.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    page_of(folder)


@pytest.mark.parametrize("junk", [None, "junk", -1, {}])
def test_inner_fields_of_any_type_are_survived(make_run: RunMaker, junk: object) -> None:
    folder = make_run(steps=4, trials=3)

    def inner(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: inner(item) if isinstance(item, dict | list) else junk for key, item in value.items()}
        return [inner(item) if isinstance(item, dict | list) else junk for item in value]

    lines = []
    for line in read_record(folder.record):
        lines.append({key: inner(item) if isinstance(item, dict | list) else item for key, item in line.items()})
    folder.record.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    page_of(folder)


def test_the_page_is_the_same_for_the_same_record(make_run: RunMaker) -> None:
    folder = make_run(steps=20, trials=3, parameters=3)
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_nothing_but_the_report_is_written(make_run: RunMaker) -> None:
    folder = make_run(steps=10, trials=0)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    write_report(folder)
    after = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert set(after) - set(before) == {folder.report}
    assert all(after[path] == content for path, content in before.items())


def test_long_lists_are_cut_and_the_page_stays_small(make_run: RunMaker) -> None:
    folder = make_run(steps=10, trials=2, classes=[f"kind {i}" for i in range(700)], test_images=1400)
    left_out = [{"file": f"{i}/" + "x" * 200, "reason": "empty"} for i in range(20_000)]
    with folder.record.open("a", encoding="utf-8") as record:
        record.write(json.dumps({"kind": "audit", "images": 9, "classes": {}, "left_out": left_out}) + "\n")
    folder.config.write_text("x = 1\n" * 500_000, encoding="utf-8")
    words = page_of(folder).words
    assert "19,600 more in record.jsonl" in words
    assert "300 more in record.jsonl" in words


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run"):
        write_report(RunFolder(tmp_path))


def test_a_report_that_cannot_be_written_is_one_sentence(make_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(steps=4, trials=0, until="epoch")

    def refuse(path: Path, content: str | bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("wellfit.report.document.write_atomically", refuse)
    with pytest.raises(UserError, match=r"Permission denied; free some space"):
        write_report(folder)
    assert stat.S_ISDIR(folder.path.stat().st_mode)

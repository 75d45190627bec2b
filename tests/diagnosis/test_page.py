"""monitor.report writes a page that asks nothing of the network and holds what it says it holds."""

import os
import re
import stat
from array import array
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.diagnosis.conftest import batch, cnn, digits, mlp, one_step
from tests.report.test_page import Page, assert_asks_nothing
from wellfit.diagnosis.history import History, Parameter, Sample
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.page import render
from wellfit.diagnosis.rules import RULES, judge
from wellfit.diagnosis.rules.needs import NOT_HERE
from wellfit.diagnosis.standing import Watched
from wellfit.errors import UserError
from wellfit.findings import explanations

SGD = torch.optim.SGD
ATTACK = "</style><script>alert(1)</script>"


def watched(model, *, lr=0.05, steps=30, epochs=2):
    """A monitor that saw a short training with its validations."""
    optimizer = SGD(model.parameters(), lr, momentum=0.9)
    monitor = Monitor(model, optimizer)
    x, y = digits()
    for _ in range(epochs):
        model.train()
        for step in range(steps):
            part = slice(32 * step, 32 * step + 32)
            loss = one_step(model, optimizer, x[part], y[part])
            monitor.step(loss, targets=y[part])
        model.eval()
        with torch.no_grad():
            out = model(x[1200:])
        accuracy = float((out.argmax(1) == y[1200:]).float().mean())
        monitor.end_epoch(train_accuracy=0.9, val_loss=float(F.cross_entropy(out, y[1200:])), val_accuracy=accuracy)
    monitor.close()
    return monitor


def page_of(path):
    page = Page(path.read_text(encoding="utf-8"))
    assert_asks_nothing(page)
    return page


def headings(page):
    return [attributes["id"] for tag, attributes in page.elements if tag == "section"]


def test_a_healthy_training(tmp_path):
    monitor = watched(cnn())
    path = monitor.report(tmp_path / "doctor.html")
    assert path == tmp_path / "doctor.html"
    page = page_of(path)
    assert headings(page) == ["findings", "curves", "weights", "layers", "images", "judged"]
    for words in ("Nothing wrong was seen", "60 steps", "Update / weight ratio", "Gradient norms", "Activations"):
        assert words in page.words, words
    assert "1×8×8" in page.words
    assert not [tag for tag, _ in page.elements if tag in ("script", "iframe", "object", "link")]
    figures = re.findall(r"<svg .*?</svg>", path.read_text(encoding="utf-8"), re.DOTALL)
    assert len(figures) == 5
    for svg in figures:
        ElementTree.fromstring(svg)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_a_sick_training_begins_with_its_cause_and_shows_every_finding(tmp_path):
    monitor = watched(mlp(), lr=1000.0)
    findings = monitor.findings()
    page = page_of(monitor.report(tmp_path / "doctor.html"))
    causes = [f for f in findings if f.severity != "info"]
    assert len(causes) > 1
    (heading,) = [title for title in [explanations()[causes[0].id]["title"]] if title in page.words]
    places = [page.words.index(f"{f.id} ") for f in findings]
    assert page.words.index(heading) < places[0]
    for f in findings:
        assert f.message[1:] in page.words
        assert f.action[1:].rstrip(".") in page.words
        assert " ".join(explanations()[f.id]["text"].split())[:60] in page.words


def test_what_could_not_be_judged_is_listed_with_what_was_lacking(tmp_path):
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)
    monitor.step(one_step(model, optimizer, *batch()))
    page = page_of(monitor.report(tmp_path / "doctor.html"))
    for name, reason in monitor.unjudged.items():
        assert name in page.words
        assert reason.removeprefix(NOT_HERE) in page.words
    assert "No images were seen" not in page.words


def test_a_training_of_which_only_losses_are_known(tmp_path):
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    inner = mlp()  # another network makes the loss: nothing of the watched one is called
    monitor = Monitor(model, optimizer)
    for _ in range(12):
        F.cross_entropy(inner(batch()[0]), batch()[1]).backward()
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        monitor.step(float("nan"))
    page = page_of(monitor.report(tmp_path / "doctor.html"))
    assert "No step had a finite loss" in page.words
    assert "No activation was seen" in page.words
    assert "No images were seen" in page.words


def test_names_from_the_network_are_text_never_markup():
    norms = np.ones(1)
    history = History(
        losses=[2.3, 2.2, 2.1],
        lrs=[0.1] * 3,
        samples=[Sample(i, norms, 1e-3 * norms, norms) for i in range(3)],
        parameters=[Parameter(ATTACK, 10)],
        unseen={"layers": ATTACK},
    )
    text = render(history, Watched(ATTACK, [ATTACK]), *judge(history))
    page = Page(text)
    assert_asks_nothing(page)
    assert "<script" not in text
    assert ATTACK in page.words


def test_the_same_history_gives_the_same_page(tmp_path):
    monitor = watched(mlp(), steps=12, epochs=1)
    first = monitor.report(tmp_path / "a.html").read_bytes()
    assert monitor.report(str(tmp_path / "new" / "b.html")).read_bytes() == first


def test_a_long_training_of_a_deep_network_stays_small(tmp_path):
    layers, steps = 120, 20_000
    draw = np.random.default_rng(0)
    norms = draw.random((600, layers)) + 0.1
    history = History(
        losses=array("d", 1 + draw.random(steps)),
        lrs=array("d", [0.1] * steps),
        samples=[Sample(30 * i, row, 1e-3 * row, row) for i, row in enumerate(norms)],
        parameters=[Parameter(f"layer{i}.weight", 10) for i in range(layers)],
    )
    text = render(history, Watched("Net", ["SGD"]), *judge(history))
    assert len(text) < 2_500_000
    assert "Shown are 64 of 120" in text


# ---- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"), [(3, "a path"), (None, "a path"), ("", "is a folder"), (".", "is a folder"), (b"x", "a path")]
)
def test_what_is_no_file_is_refused(path, words):
    with pytest.raises(UserError, match=words) as error:
        watched(mlp(), steps=3, epochs=1).report(path)
    assert "; " in str(error.value)


def test_nothing_to_report_before_the_first_step(tmp_path):
    model = mlp()
    with pytest.raises(UserError, match="before the first step"):
        Monitor(model, SGD(model.parameters(), 0.1)).report(tmp_path / "doctor.html")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path, monkeypatch):
    monitor = watched(mlp(), steps=3, epochs=1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written") as error:
        monitor.report(tmp_path / "file" / "doctor.html")
    assert "\n" not in str(error.value)
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(UserError, match="cannot be written"):
            monitor.report(tmp_path / "doctor.html")
        tmp_path.chmod(stat.S_IRWXU)


# ---- where it stands -----------------------------------------------------------------------------------


def test_printing_a_monitor_says_where_it_stands():
    model = cnn()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    monitor = Monitor(model, optimizer)
    assert str(monitor) == "wellfit.Monitor of Sequential, trained by AdamW: no step yet"
    assert monitor._repr_html_() == "<p><b>wellfit.Monitor</b> of Sequential, trained by AdamW: no step yet</p>"
    monitor = watched(mlp(), lr=1000.0)
    said = str(monitor).splitlines()
    assert said[0].startswith("wellfit.Monitor of Sequential, trained by SGD: 60 steps, 2 epochs, loss 2.")
    assert said[0].endswith("; closed")
    assert explanations()[monitor.findings()[0].id]["title"] in said[1]
    assert f"of {len(RULES)} questions" in said[1]
    assert [line.strip() for line in said[2:]] == [str(f) for f in monitor.findings()]
    shown = monitor._repr_html_()
    assert shown.count("<li>") == len(monitor.findings())
    ElementTree.fromstring(f"<div>{shown}</div>")


def test_the_network_inside_wrappers_is_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(x)

    for wrap in (lambda m: m, nn.DataParallel, lambda m: torch.compile(m, backend="eager")):
        model = wrap(Net())
        assert " of Net, " in str(Monitor(model, SGD(model.parameters(), 0.1)))


def test_importing_the_monitor_does_not_import_matplotlib():
    import subprocess
    import sys

    code = "import sys, wellfit.diagnosis.monitor; print('matplotlib' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"

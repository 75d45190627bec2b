"""The figures of a notebook: the same data as the page's, drawn by Plotly; names stay text."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.report.conftest import RunMaker, write_transfer_run
from wellfit.errors import UserError
from wellfit.record import Record, RunFolder
from wellfit.report import curves
from wellfit.report.curves_filters import filters_of
from wellfit.report.figures import Figures
from wellfit.report.history import read_history

pytest.importorskip("plotly", reason="the figures of a notebook are Plotly's: pip install plotly")
from wellfit.report import interactive
from wellfit.report.interactive_frame import as_text
from wellfit.report.interactive_search import draw_parallel

ATTACK = '<a href="javascript:alert(1)">$x$</a>'
OF_A_RUN = ("loss", "rates", "accuracy", "updates", "confusion", "reliability", "search", "trials", "parallel")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    from tests.report.conftest import write_run

    folder = write_run(tmp_path_factory.mktemp("figures") / "run", steps=120)
    record = Record(folder.record)
    record.write("importance", shares={"lr": 0.7, "weight_decay": 0.1})
    record.close()
    np.savez(folder.arrays / "first_layer.npz", filters=np.linspace(-1, 1, 8 * 27).reshape(8, 3, 3, 3))
    return folder


@pytest.mark.parametrize("name", [*OF_A_RUN, "importance", "filters"])
def test_every_figure_is_plotlys_and_becomes_json(run: RunFolder, name: str) -> None:
    figure = getattr(Figures(run), name)()
    assert type(figure).__module__.startswith("plotly.")
    assert json.loads(figure.to_json())["data"]


def test_loss_and_its_average_are_those_of_the_page(run: RunFolder) -> None:
    curve = curves.loss_curve(read_history(run))
    assert curve is not None
    dots, line = Figures(run).loss().data
    np.testing.assert_array_equal(dots.y, curve.losses)
    np.testing.assert_array_equal(line.x, curve.average_steps)
    np.testing.assert_array_equal(line.y, curve.average)


def test_accuracy_names_the_gap_where_both_were_last_measured(run: RunFolder) -> None:
    curve = curves.accuracy_curve(read_history(run))
    assert curve is not None
    assert curve.gap is not None
    figure = Figures(run).accuracy()
    np.testing.assert_array_equal(figure.data[0].y, curve.train[np.isfinite(curve.train)])
    said = [note.text for note in figure.layout.annotations]
    assert f"gap {100 * curve.gap:+.1f} points" in said


def test_one_spike_does_not_flatten_the_loss(make_run: RunMaker) -> None:
    steps = np.arange(1.0, 1001)
    losses = np.where(steps == 500, 1e6, 1.0)
    curve = curves.loss_points(steps, losses, np.full(1000, 0.1))
    assert curve is not None
    figure = interactive.draw_loss(curve)
    assert figure.layout.yaxis.range[1] < 2
    assert "highest: 1e6" in [note.text for note in figure.layout.annotations]


def test_a_confusion_is_blue_where_right_and_orange_where_wrong() -> None:
    counts = np.array([[9, 1], [0, 4]])
    (map_,) = interactive.draw_confusion(curves.Confusion(["a", "b"], counts)).data
    assert map_.z[0][0] == pytest.approx(math.sqrt(0.9))
    assert map_.z[0][1] == pytest.approx(-math.sqrt(0.1))
    assert np.isnan(map_.z[1][0])
    assert [list(row) for row in map_.text] == [["9", "1"], ["", "4"]]
    assert list(map_.customdata[0][1]) == ["a", "b", 1, 0.1]


def test_many_classes_are_drawn_without_a_text_for_each_field() -> None:
    counts = np.eye(300, dtype=np.int64)
    figure = interactive.draw_confusion(curves.Confusion([f"class {i}" for i in range(300)], counts))
    assert figure.data[0].customdata is None
    assert len(figure.to_json()) < 2_000_000


def test_few_parameters_are_lines_and_many_a_map() -> None:
    steps, ratios = np.arange(1.0, 6), np.full((9, 5), 1e-3)
    few = curves.ratio_table([f"p{i}" for i in range(8)], steps, ratios[:8])
    many = curves.ratio_table([f"p{i}" for i in range(9)], steps, ratios)
    assert few is not None
    assert many is not None
    lines = interactive.draw_updates(few).data
    assert [line.type for line in lines] == ["scatter"] * 8
    np.testing.assert_allclose(lines[0].y, 1e-3)
    (heat,) = interactive.draw_updates(many).data
    assert heat.type == "heatmap"
    np.testing.assert_allclose(heat.z, -3)


def test_parallel_coordinates_keep_zeros_and_missing_settings_apart(make_run: RunMaker) -> None:
    folder = make_run(steps=5, trials=0)
    record = Record(folder.record)
    trials = ({"lr": 0.1, "l2": 0.0}, {"lr": 0.01, "l2": 1e-4}, {"lr": 0.001})
    for number, settings in enumerate(trials):
        fields = {"stage": "coarse", "trial": number, "state": "finished", "validation_accuracy": 0.5 + number / 10}
        record.write("trial", settings=settings, curve=[[1, 2.0]], **fields)
    record.close()
    from wellfit.report.curves_search import search

    found = search(read_history(folder))
    assert found is not None
    rate, penalty, accuracy = draw_parallel(found).data[0].dimensions
    np.testing.assert_allclose(rate["values"], [-1, -2, -3])
    at = dict(zip(penalty.ticktext, penalty.tickvals, strict=True))
    np.testing.assert_allclose(penalty["values"], [at["0"], -4, at["–"]])
    assert at["–"] < at["0"] < -4
    np.testing.assert_allclose(accuracy["values"], [0.5, 0.6, 0.7])


def test_filters_keep_their_colours() -> None:
    weights = np.zeros((1, 3, 1, 1))
    weights[0, 0] = 1.0
    figure = interactive.draw_filters(filters_of(weights))
    assert list(figure.data[0].z[0][0]) == [255, 128, 128, 255]


def test_a_probes_scores_are_drawn_and_the_one_taken_is_ringed(tmp_path: Path) -> None:
    figure = Figures(write_transfer_run(tmp_path / "run")).probe()
    assert [trace.name for trace in figure.data] == ["224 px", "288 px", "taken"]
    assert figure.data[2].x[0] == pytest.approx(0.03)


def test_hostile_names_are_text(make_run: RunMaker) -> None:
    folder = make_run(steps=20, classes=[ATTACK, "b"], trials=3)
    record = Record(folder.record)
    fields = {"trial": "<b>9</b>", "state": "finished", "validation_accuracy": 0.5, "curve": [[1, 2.0], [2, 1.0]]}
    record.write("trial", stage=ATTACK, settings={"lr": 0.1, "weight_decay": 0.1, ATTACK: "<i>"}, **fields)
    record.write("stage", name=ATTACK, ranges={"lr": [0.1, 1], "weight_decay": [0.1, 1]}, reason="")
    record.write("step", step=21, loss=1.0, lr=0.1, update_ratio={ATTACK: 1e-3})
    record.close()
    for name in (*OF_A_RUN, "setting"):
        figures = Figures(folder)
        text = json.dumps(
            json.loads((figures.setting("lr") if name == "setting" else getattr(figures, name)()).to_json())
        )
        for part in ("<a", "$x$", "<b>9", "<i>"):
            assert part not in text, (name, part)


def test_as_text_says_the_name_and_nothing_else() -> None:
    assert as_text("a & b") == "a &amp; b"
    assert as_text("\x1b\u202egnp.exe") == "\ufffd\ufffdgnp.exe"
    assert as_text(ATTACK).count("&#36;") == 2


@pytest.mark.parametrize(
    ("name", "what"),
    [("loss", "training steps"), ("probe", "classifiers"), ("trials", "trials"), ("filters", "filters")],
)
def test_what_a_run_has_not_is_said_in_a_sentence(make_run: RunMaker, name: str, what: str) -> None:
    folder = make_run(steps=0, trials=0)
    with pytest.raises(UserError, match=f"has no .*{what}.*wellfit show"):
        getattr(Figures(folder), name)()


def test_an_unknown_setting_names_its_neighbour(run: RunFolder) -> None:
    with pytest.raises(UserError, match="did you mean 'weight_decay'"):
        Figures(run).search(up="weightdecay")


def test_without_plotly_one_sentence_says_what_to_install(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("plotly", "wellfit.report.interactive"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    package = importlib.import_module("wellfit.report")
    for name in ("interactive", "interactive_search", "interactive_frame"):
        monkeypatch.delattr(package, name, raising=False)
    with pytest.raises(UserError, match=r"Plotly, which is not installed; pip install 'wellfit\[notebook\]'"):
        Figures(run).loss()

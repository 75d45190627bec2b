from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import numpy as np
import pytest

from tests.report.conftest import write_run
from wellfit.randomness import generator
from wellfit.report import curves, static, static_search
from wellfit.report.curves_search import Search, Trial
from wellfit.report.curves_search import search as search_of
from wellfit.report.drawing import PALETTE, as_percent, themed
from wellfit.report.history import History, read_history

HOSTILE = ["<img src=x onerror=alert(1)>", "$\\frac$", "a & b", "猫", "\x00\x1b[31m", "]]>", "x" * 500]


def drawings(history: History) -> Iterator[tuple[str, str]]:
    loss, accuracy, search = curves.loss_curve(history), curves.accuracy_curve(history), search_of(history)
    ratios, matrix, calibration = curves.update_ratios(history), curves.confusion(history), curves.reliability(history)
    assert loss is not None
    assert accuracy is not None
    assert search is not None
    assert ratios is not None
    assert matrix is not None
    assert calibration is not None
    yield "loss", static.draw_loss(loss)
    yield "accuracy", static.draw_accuracy(accuracy)
    yield "map", static_search.draw_search_map(search)
    yield "lr", static_search.draw_setting(search, "lr")
    yield "weight_decay", static_search.draw_setting(search, "weight_decay")
    yield "trials", static_search.draw_trial_curves(search)
    yield "ratios", static.draw_update_ratios(ratios)
    yield "confusion", static.draw_confusion(matrix)
    yield "reliability", static.draw_reliability(calibration)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> History:
    return read_history(write_run(tmp_path_factory.mktemp("static") / "run", steps=60))


@pytest.fixture(scope="module")
def figures(run: History) -> dict[str, str]:
    return dict(drawings(run))


def test_every_figure_is_well_formed_and_names_no_outside_address(figures: dict[str, str]) -> None:
    for name, svg in figures.items():
        root = ET.fromstring(svg)
        assert root.tag.endswith("svg"), name
        for element in root.iter():
            for key, value in element.attrib.items():
                if key.endswith("href"):
                    assert value.startswith(("#", "data:image/png")), name
        assert "url(http" not in svg
        assert "<script" not in svg
        assert "<metadata" not in svg


def test_ids_are_unique_over_all_figures_of_a_page(figures: dict[str, str]) -> None:
    ids = [set(re.findall(r'\sid="([^"]+)"', svg)) for svg in figures.values()]
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_references_lead_to_ids_of_the_same_figure(figures: dict[str, str]) -> None:
    for name, svg in figures.items():
        ids = set(re.findall(r'\sid="([^"]+)"', svg))
        wanted = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
        assert wanted, name
        assert wanted <= ids, name


def test_the_same_record_gives_the_same_bytes_whatever_the_readers_settings(
    run: History, figures: dict[str, str]
) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "path", "font.size": 30.0, "text.parse_math": True}):
        again = dict(drawings(run))
        assert mpl.rcParams["font.size"] == 30.0
    assert again == figures


def test_text_stays_text(figures: dict[str, str]) -> None:
    assert "step of the trial" in figures["trials"]
    assert "gap +" in figures["accuracy"]
    assert "learning rate" in figures["loss"]
    assert "coarse" in figures["map"]
    assert "perfectly calibrated" in figures["reliability"]


@pytest.mark.parametrize("n", [2, 10, 100, 150])
def test_confusion_names_its_classes_up_to_a_hundred(n: int) -> None:
    names = [f"kind-{i}" for i in range(n)]
    counts = generator(0, "confusion", n).integers(0, 50, (n, n))
    svg = static.draw_confusion(curves.Confusion(names, counts))
    ET.fromstring(svg)
    assert [name in svg for name in (names[0], names[-1])] == [n <= 120] * 2
    # A cell is told by its number where there is room, and is one pixel of an image where there is not.
    assert ("<image" in svg) == (n > 20)
    if n <= 20:
        assert all(str(count) in svg for count in counts.ravel().tolist())


def test_hostile_names_are_text() -> None:
    n = len(HOSTILE)
    svg = static.draw_confusion(curves.Confusion(HOSTILE, np.eye(n, dtype=np.int64) * 3))
    texts = [
        "".join(element.itertext()).strip() for element in ET.fromstring(svg).iter() if element.tag.endswith("text")
    ]
    assert HOSTILE[1] in texts
    assert HOSTILE[2] in texts
    assert HOSTILE[3] in texts
    assert "<img src=x onerror=al…" in texts
    assert not any(element.tag.endswith("img") for element in ET.fromstring(svg).iter())


def test_few_parameters_are_lines_and_many_a_heat_map() -> None:
    steps = np.arange(5.0)
    few = curves.UpdateRatios(["a", "b"], steps, np.full((2, 5), -3.0), 2)
    many = curves.UpdateRatios([f"p{i}" for i in range(30)], steps, np.full((30, 5), -3.0), 30)
    assert "<image" not in static.draw_update_ratios(few)
    assert "healthy: about 1e-3" in static.draw_update_ratios(few)
    assert "<image" in static.draw_update_ratios(many)


def test_figures_of_very_little_data_are_drawn() -> None:
    one = np.array([1.0])
    nan = np.array([np.nan])
    for svg in (
        static.draw_loss(curves.LossCurve(one, one, one, one, one, np.zeros(1), 5, [1], None)),
        static.draw_accuracy(curves.AccuracyCurve(one, nan, one, nan, None, None, 1.0, 1.0, None)),
        static.draw_update_ratios(curves.UpdateRatios(["w"], one, np.full((1, 1), -3.0), 1)),
        static.draw_update_ratios(curves.UpdateRatios([str(i) for i in range(9)], one, np.full((9, 1), -3.0), 9)),
        static.draw_confusion(curves.Confusion(["only"], np.array([[0]]))),
    ):
        ET.fromstring(svg)


def test_a_search_in_which_every_trial_failed_is_drawn() -> None:
    trials = [
        Trial(str(i), "coarse", "failed", {"lr": 0.1, "weight_decay": 0.0}, "", np.nan, False, np.zeros(0), np.zeros(0))
        for i in range(2)
    ]
    search = Search(trials, {}, {}, None)
    for svg in (
        static_search.draw_search_map(search),
        static_search.draw_setting(search, "lr"),
        static_search.draw_trial_curves(search),
    ):
        ET.fromstring(svg)


def test_a_page_can_swap_every_colour_of_the_palette(figures: dict[str, str]) -> None:
    for svg in figures.values():
        swapped = themed(svg)
        assert not any(value in swapped for value in PALETTE.values())
        assert "var(--muted)" in swapped


def test_a_limit_far_above_every_loss_takes_no_room_from_the_axes() -> None:
    steps = np.arange(5.0)
    trial = Trial("0", "coarse", "finished", {"lr": 0.1}, "lr 0.1", 0.4, True, steps, np.linspace(2.3, 1.6, 5))
    near = static_search.draw_trial_curves(Search([trial], {}, {}, 2.4))
    far = static_search.draw_trial_curves(Search([trial], {}, {}, 6.9))
    assert "3× the first loss" in near
    assert "3× the first loss" not in far
    assert _axes_height(far) == pytest.approx(_axes_height(near), rel=0.05)


def _axes_height(svg: str) -> float:
    """The tallest of the vertical lines of the figure: an axes' spine. matplotlib warns where it is about zero."""
    lines = re.findall(r"M ([\d.]+) ([\d.]+)\s+L ([\d.]+) ([\d.]+)\s*\"", svg)
    return max(abs(float(y) - float(v)) for x, y, u, v in lines if x == u)


def test_ticks_of_shares_have_the_digits_that_they_need() -> None:
    assert [as_percent(share) for share in (0.0, 0.3, 0.375, 0.925, 1.0)] == ["0%", "30%", "37.5%", "92.5%", "100%"]

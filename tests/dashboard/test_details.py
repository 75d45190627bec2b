"""The page of a run is the report's figure data, JSON that any reader can take, in every state of a run."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.dashboard.conftest import append, opening, step
from tests.report.conftest import write_run, write_transfer_run
from wellfit.dashboard.details import numbers, page_of, trials_of
from wellfit.dashboard.pages import Pages
from wellfit.record import RunFolder
from wellfit.report import curves
from wellfit.report.history import read_history


def test_the_figures_are_those_of_the_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    history = read_history(folder)
    page = json.loads(Pages().get(folder, "page"))
    loss, accuracy, ratios = curves.loss_curve(history), curves.accuracy_curve(history), curves.update_ratios(history)
    assert loss is not None
    assert accuracy is not None
    assert ratios is not None
    assert page["loss"]["average"] == pytest.approx(loss.average.tolist(), rel=1e-4)
    assert page["accuracy"]["gap"] == pytest.approx(accuracy.gap)
    assert page["ratios"]["names"] == ratios.parameters
    assert np.array(page["ratios"]["logs"], float) == pytest.approx(ratios.logs, rel=1e-3)
    assert page["confusion"]["counts"] == curves.confusion(history).counts.tolist()
    calibration = curves.reliability(history)
    assert calibration is not None
    assert page["reliability"]["accuracy"] == pytest.approx(calibration.accuracy.tolist(), rel=1e-4)
    assert page["reliability"]["images"] == calibration.images.tolist()
    assert page["reliability"]["error"] == pytest.approx(calibration.error)
    # By hand: confidence minus accuracy, weighted by the images of each bin.
    bins = history.evaluation["reliability"]
    total = sum(row["images"] for row in bins)
    excess = sum(row["images"] * (row["confidence"] - row["accuracy"]) for row in bins) / total
    assert page["reliability"]["excess"] == pytest.approx(excess)
    assert page["verdict"][0].startswith("On 1,000 test images")
    assert len(page["mistakes"]) > 0
    assert {finding["id"] for finding in page["findings"]} == {"overfitting", "imbalanced-classes", "still-improving"}


@pytest.mark.parametrize("until", ["run", "audit", "plan", "check", "stage", "step", "epoch", "evaluation", "end"])
def test_a_run_in_any_state_has_a_page(tmp_path: Path, until: str) -> None:
    folder = write_run(tmp_path / "run", until=until, steps=60)
    for what in ("page", "trials"):
        json.loads(Pages().get(folder, what))


def test_a_page_of_a_probe_says_what_was_taken(tmp_path: Path) -> None:
    page = page_of(read_history(write_transfer_run(tmp_path / "run")))
    assert ["taken", "strength 0.03 at 288 px"] in page["probe"]


def test_layers_gradients_alarms_and_notes_stand_at_their_steps(tmp_path: Path) -> None:
    run = tmp_path / "run"
    layers = {"a": {"std": 1.0, "dead": 0.25}, "b": {"std": 0.5, "mean": 0.0}}
    append(run, opening(), step(1, 2.0, layers=layers, gradient_norm=3.0, update_ratio={"w": 1e-3}))
    append(run, step(2, 1.0), {"kind": "alarm", "id": "dead-units", "severity": "warning", "step": 2, "message": "m"})
    append(run, {"kind": "note", "text": "<b>colder"}, step(3, 0.5, layers=layers, gradient_norm="nan"))
    page = page_of(read_history(RunFolder(run)))
    assert page["layers"]["std"] == {
        "names": ["a", "b"], "steps": [1.0, 3.0], "values": [[1.0, 1.0], [0.5, 0.5]], "scale": "log", "in_all": 2,
    }  # fmt: skip
    assert page["layers"]["dead"]["names"] == ["a"]
    assert page["layers"]["saturated"] is None
    assert page["gradients"] == {"steps": [1.0], "norms": [3.0]}
    assert [(alarm["id"], alarm["step"]) for alarm in page["alarms"]] == [("dead-units", 2)]
    assert page["notes"] == [{"step": 2, "text": "<b>colder"}]


def test_a_resume_takes_its_alarms_back(tmp_path: Path) -> None:
    run = tmp_path / "run"
    alarm = {"kind": "alarm", "id": "plateau", "severity": "warning", "message": "m"}
    append(run, opening(), step(1, 1.0), step(2, 1.0), {**alarm, "step": 2}, {**alarm, "id": "x", "step": 2}, opening())
    assert len(read_history(RunFolder(run)).alarms) == 2
    append(run, step(2, 1.0), {**alarm, "step": 2})
    assert [line["id"] for line in read_history(RunFolder(run)).alarms] == ["plateau"]


def test_a_page_that_is_open_reads_on(tmp_path: Path) -> None:
    """Read in pieces, also within a line, it is what a fresh reader makes of the whole."""
    whole = write_run(tmp_path / "whole", thumbnails=False, until="end")
    content = whole.record.read_bytes()
    grown = RunFolder(tmp_path / "grown")
    grown.path.mkdir()
    pages = Pages()
    for end in (1, len(content) // 3, len(content) // 2, len(content)):
        grown.record.write_bytes(content[:end])
        answers = [pages.get(grown, what) for what in ("page", "trials")]
    (grown.path / "config.toml").write_bytes(whole.config.read_bytes())
    (grown.path / "plan.toml").write_bytes(whole.plan.read_bytes())
    answers = [json.loads(pages.get(grown, what)) for what in ("page", "trials")]
    fresh = [json.loads(Pages().get(grown, what)) for what in ("page", "trials")]
    assert answers == fresh
    assert answers[0]["loss"]["steps"]
    grown.record.write_bytes(content[: len(content) // 4])  # another record under the same name
    assert json.loads(pages.get(grown, "page")) == json.loads(Pages().get(grown, "page"))


def test_trials_come_with_their_settings_and_the_edges_of_stages(tmp_path: Path) -> None:
    found = trials_of(read_history(write_run(tmp_path / "run", trials=12)))
    assert len(found["runs"]) == 12
    assert found["ranges"]["coarse"]["lr"] == [1e-4, 1.0]
    assert {"lr", "weight_decay", "stage"} <= set(found["runs"][0]["settings"])
    assert sum(run["best"] for run in found["runs"]) == 1
    assert all(len(run["curve"]["steps"]) == len(run["curve"]["loss"]) for run in found["runs"])


def test_filters_are_a_picture_with_a_pixel_a_weight(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    weights = np.random.default_rng(0).standard_normal((6, 3, 5, 5))
    np.savez(folder.arrays / "first_layer.npz", filters=weights)
    filters = page_of(read_history(folder))["filters"]
    with Image.open(io.BytesIO(base64.b64decode(filters["image"].partition(",")[2]))) as image:
        assert image.size == (filters["width"], filters["height"])
        assert image.mode == "RGBA"
        assert np.asarray(image)[0, 0, :3] == pytest.approx(
            255 * (0.5 + weights[0, :, 0, 0] / (2 * np.abs(weights[0]).max())), abs=1
        )
    assert filters["count"] == 6


def test_many_classes_are_listed_and_not_drawn(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(70)]
    confusion = page_of(read_history(write_run(tmp_path / "run", classes=names)))["confusion"]
    assert confusion["classes"] is None
    assert confusion["in_all"] == 70
    assert confusion["pairs"]


def test_numbers_are_what_json_can_hold() -> None:
    assert numbers([1.23456789, float("nan"), float("-inf"), 0]) == [1.2346, None, None, 0.0]

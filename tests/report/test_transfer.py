from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.conftest import write_transfer_run
from tests.report.test_page import page_of
from wellfit.record import RunFolder
from wellfit.report import static_transfer
from wellfit.report.curves_transfer import ProbeCurve, ProbeLine, probe_curve
from wellfit.report.history import History, read_history
from wellfit.report.settled import image_size, model_name, parameters, settings
from wellfit.report.terminal import show
from wellfit.report.verdict import judge, state_sentences


def history(*probes: dict[str, Any], reason: str = "", **more: Any) -> History:
    steps = [{"name": "probe", "reason": reason}]
    return History(RunFolder(Path("nowhere")), probes=list(probes), recipe_steps=steps, **more)


def line(size: object, strength: object, accuracy: object, loss: object = 0.5) -> dict[str, Any]:
    return {"image_size": size, "strength": strength, "accuracy": accuracy, "loss": loss}


def test_lines_are_by_size_and_rise_in_strength() -> None:
    curve = probe_curve(history(line(288, 1.0, 0.8), line(224, 0.1, 0.7) | {"chosen": True}, line(224, 0.001, 0.6)))
    assert curve is not None
    assert [found.image_size for found in curve.lines] == [224, 288]
    assert curve.lines[0].strengths.tolist() == [0.001, 0.1]
    assert curve.lines[0].scores.tolist() == [0.6, 0.7]
    assert curve.chosen is not None
    assert (curve.chosen.image_size, curve.chosen.strength, curve.chosen.score) == (224, 0.1, 0.7)


@pytest.mark.parametrize("more", [{}, {"chosen": False}, {"chosen": "yes"}, {"chosen": True, "strength": None}])
def test_nothing_is_marked_where_the_choice_is_not_known(more: dict[str, Any]) -> None:
    curve = probe_curve(history(line(224, 0.1, 0.7), line(224, 1.0, 0.6) | more))
    assert curve is not None
    assert curve.chosen is None


def test_scores_are_of_the_metric_that_is_maximised() -> None:
    probe = line(224, 0.1, 0.7) | {"macro_f1": 0.5}
    curve = probe_curve(history(probe, config={"metric": "macro_f1"}))
    assert curve is not None
    assert curve.metric == "macro-F1"
    assert curve.lines[0].scores.tolist() == [0.5]


def test_lines_without_a_size_a_strength_or_a_score_are_left_out() -> None:
    bad = [line(None, 0.1, 0.7), line(224, "x", 0.7), line(224, 0, 0.7), line(224, 0.1, None)]
    assert probe_curve(history(*bad)) is None
    curve = probe_curve(history(*bad, line(224, 1.0, 0.7, loss="inf")))
    assert curve is not None
    assert curve.lines[0].strengths.tolist() == [1.0]
    assert not curve.has_losses


def test_figures_name_sizes_and_mark_the_one_taken(tmp_path: Path) -> None:
    curve = probe_curve(read_history(write_transfer_run(tmp_path / "run")))
    assert curve is not None
    for svg in (static_transfer.draw_probe_scores(curve), static_transfer.draw_probe_losses(curve)):
        texts = ["".join(element.itertext()).strip() for element in ET.fromstring(svg).iter() if "text" in element.tag]
        assert {"224 px", "288 px", "taken", "strength"} <= set(texts)


def test_figures_of_one_classifier_are_drawn() -> None:
    one = np.array([0.1])
    curve = ProbeCurve([ProbeLine(64, one, one, np.array([np.nan]))], "accuracy", None)
    for svg in (static_transfer.draw_probe_scores(curve), static_transfer.draw_probe_losses(curve)):
        assert "taken" not in svg
        ET.fromstring(svg)


def test_a_probe_run_has_a_transfer_section_in_place_of_training_and_search(tmp_path: Path) -> None:
    folder = write_transfer_run(tmp_path / "run")
    page = page_of(folder)
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections[:2] == ["transfer", "classes"]
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == [f"#{name}" for name in sections]
    assert "lacks" not in page.words
    for words in (
        "Taken was the one at 288 px with strength 0.03: accuracy 91.2%, loss 0.2.",
        "The classifier: done (+1.6 points on validation). 1,024 features of squeezenet1_1 at 288 px",
        "Fine-tuning: skipped. No fine-tuning: with 209 images",
        "one classifier on frozen features",
        "Accuracy on held-out images",
        "Loss on held-out images",
        "All classifiers",
    ):
        assert words in page.words, words
    assert state_sentences(read_history(folder)) == []


def test_a_fine_tuned_run_shows_its_training_too(tmp_path: Path) -> None:
    folder = write_transfer_run(tmp_path / "run", fine_tuned=True)
    page = page_of(folder)
    assert [a["id"] for tag, a in page.elements if tag == "section"][:3] == ["transfer", "training", "classes"]
    assert "Fine-tuning: done (+2.0 points on validation)" in page.words
    assert "Loss and learning rate" in page.words
    found = read_history(folder)
    assert "one training" in judge(found).sure
    assert dict(settings(found))["learning rate"] == "2.5e-5"


def test_a_probe_that_was_killed_gives_a_page(tmp_path: Path) -> None:
    folder = write_transfer_run(tmp_path / "run")
    lines = folder.record.read_text(encoding="utf-8").splitlines(keepends=True)
    first = next(i for i, text in enumerate(lines) if json.loads(text)["kind"] == "probe")
    folder.record.write_text("".join(lines[: first + 3]), encoding="utf-8")
    words = page_of(folder).words
    assert "was killed" in words
    assert "Accuracy on held-out images" in words
    assert "Taken was" not in words


def test_what_is_shown_is_what_was_settled_on(tmp_path: Path) -> None:
    found = read_history(write_transfer_run(tmp_path / "run"))
    # The plan says 32 px and 11,173,962 parameters; the saved model is what counts.
    assert (image_size(found), parameters(found)) == ("288 px", "725,572")
    # Nothing was trained, so there is neither a learning rate nor a decay to speak of.
    assert settings(found) == [("weights", "imagenet"), ("strength", "0.03"), ("balance", "none")]
    found.card = {}
    assert (image_size(found), parameters(found)) == ("32 px", "11,173,962")


def test_settings_of_a_training_come_from_its_configuration() -> None:
    config = {
        "model": {"weights": "none", "options": {"widths": [16, 32], "depth": 3, "slope": 0.00025}},
        "optimizer": {"name": "adamw", "lr": 0.006, "weight_decay": 0.0},
        "training": {"balance": "weights"},
    }
    found = settings(History(RunFolder(Path("nowhere")), config=config))
    assert found == [
        ("widths", "16, 32"),
        ("depth", "3"),
        ("slope", "2.5e-4"),
        ("optimizer", "adamw"),
        ("learning rate", "0.006"),
        ("weight decay", "0"),
        ("balance", "weights"),
    ]


def test_settings_that_are_still_open_are_left_out() -> None:
    config = {
        "model": {"weights": "auto", "options": {}},
        "optimizer": {"name": "auto", "lr": 0.0, "weight_decay": -1.0},
        "training": {"balance": "auto"},
    }
    assert settings(History(RunFolder(Path("nowhere")), config=config)) == []


@pytest.mark.parametrize("junk", [None, "junk", 3, [], {"options": 7}])
def test_a_configuration_of_any_shape_is_survived(junk: object) -> None:
    found = History(RunFolder(Path("nowhere")), config=dict.fromkeys(("model", "optimizer", "training"), junk))
    assert settings(found) == []


def test_the_model_is_named_by_the_plan_or_else_by_the_card() -> None:
    card = {"architecture": {"name": "probe_net", "options": {"backbone": "squeezenet1_1"}}}
    nowhere = RunFolder(Path("nowhere"))
    assert model_name(History(nowhere, plan={"model": "resnet18"}, card=card)) == "resnet18"
    assert model_name(History(nowhere, card=card)) == "squeezenet1_1"
    assert model_name(History(nowhere, card={"architecture": {"name": "lenet5"}})) == "lenet5"
    assert model_name(History(nowhere, card={"architecture": "lenet5"})) == "the model"


def test_the_terminal_tells_of_the_classifiers(tmp_path: Path) -> None:
    text = " ".join(show(read_history(write_transfer_run(tmp_path / "run")).folder).split())
    assert "8 linear classifiers on frozen features; taken: strength 0.03 at 288 px, accuracy 91.2%" in text
    assert "725,572 parameters, 288 px" in text
    assert "weights imagenet; strength 0.03; balance none" in text
    assert "lacks" not in text


def test_places_are_lines_of_their_own_and_a_figure_shows_the_best_of_each_layer() -> None:
    rows = [
        line(224, strength, accuracy) | {"layer": layer, "pooling": pooling}
        for layer, pooling, scores in (
            ("low", "mean", (0.5, 0.6)),
            ("low", "grid2", (0.6, 0.7)),
            ("high", "mean", (0.8, 0.9)),
            ("high", "mean+max", (0.7, 0.8)),
        )
        for strength, accuracy in zip((0.01, 0.1), scores, strict=True)
    ]
    rows[6]["chosen"] = True
    curve = probe_curve(history(*rows))
    assert curve is not None
    assert [found.name for found in curve.lines] == [
        "224 px, low mean",
        "224 px, low grid2",
        "224 px, high mean",
        "224 px, high mean+max",
    ]
    assert curve.chosen is not None
    assert curve.chosen.features == "high mean+max"
    assert [found.features for found in curve.shown] == ["low grid2", "high mean+max"]  # the one taken is shown
    assert "high mean+max" in static_transfer.draw_probe_scores(curve)

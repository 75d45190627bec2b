from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import RunMaker
from wellfit.record import RunFolder
from wellfit.report.history import History, read_history
from wellfit.report.verdict import judge, state_sentences


def evaluated(
    accuracy: float, interval: tuple[float, float], sizes: tuple[int, ...] = (50, 50), **more: Any
) -> History:
    per_class = [{"class": f"kind{i}", "images": n} for i, n in enumerate(sizes)]
    line = {
        "split": "test",
        "images": sum(sizes),
        "accuracy": accuracy,
        "interval": list(interval),
        "per_class": per_class,
        "balanced_accuracy": accuracy,
        **more,
    }
    return History(RunFolder(Path("runs/a")), evaluations={"test": line}, end={"status": "done"}, run={"seed": 3})


def finding(name: str, severity: str, action: str = "do this.") -> dict[str, Any]:
    return {"id": name, "severity": severity, "message": "seen", "action": action}


def test_how_good_gives_accuracy_interval_and_chance() -> None:
    verdict = judge(evaluated(0.91, (0.84, 0.95)))
    assert "100 test images" in verdict.good
    assert "91.0% of the time (95% interval 84.0–95.0%)" in verdict.good
    assert "guessing gives 50.0%" in verdict.good
    assert (verdict.chance, verdict.largest) == (0.5, 0.5)


def test_the_largest_class_is_the_baseline_of_imbalanced_data() -> None:
    verdict = judge(evaluated(0.91, (0.84, 0.95), sizes=(90, 10), balanced_accuracy=0.6))
    assert verdict.largest == pytest.approx(0.9)
    assert "always answering “kind0” 90.0%" in verdict.good
    # The interval reaches down to what the largest class alone would give.
    assert "not clearly better than chance" in verdict.good
    assert "counting every class equally it is 60.0%" in verdict.good


def test_a_result_clearly_above_chance_is_not_called_into_doubt() -> None:
    assert "not clearly" not in judge(evaluated(0.7, (0.6, 0.8))).good


def test_how_sure_names_images_seed_and_calibration() -> None:
    bins = [{"confidence": 0.9, "accuracy": 0.7, "images": 100}]
    verdict = judge(evaluated(0.7, (0.6, 0.8), reliability=bins, calibration_error=0.2))
    assert "100 images and one training (seed 3)" in verdict.sure
    assert "below about 10.0 points" in verdict.sure
    assert "too sure of itself" in verdict.sure
    assert "20.0 points" in verdict.sure
    shy = [{"confidence": 0.5, "accuracy": 0.7, "images": 100}]
    assert "more often right" in judge(evaluated(0.7, (0.6, 0.8), reliability=shy, calibration_error=0.2)).sure
    honest = judge(evaluated(0.7, (0.6, 0.8), reliability=shy, calibration_error=0.01))
    assert "taken at their word" in honest.sure


def test_next_is_the_worst_root_cause() -> None:
    history = evaluated(0.7, (0.6, 0.8))
    history.findings = [finding("unreadable-files", "info", "no."), finding("train-val-leak", "warning", "look here")]
    assert judge(history).next.endswith("Look here.")
    history.findings.append(finding("nan", "error", "lower it."))
    assert judge(history).next.endswith("Lower it.")
    assert "1 error and 1 warning" in judge(history).sure


def test_next_without_findings_follows_the_curves() -> None:
    history = evaluated(0.7, (0.6, 0.8))
    assert "wellfit predict" in judge(history).next
    history.epochs = [{"step": 1, "train_accuracy": 0.99, "validation_accuracy": 0.7}]
    assert "29 points ahead" in judge(history).next
    history.epochs = [{"step": 1, "train_accuracy": 0.71, "validation_accuracy": 0.7}]
    assert "--budget" in judge(history).next


@pytest.mark.parametrize("status", ["done", "interrupted", "failed", None])
def test_without_an_evaluation_the_verdict_says_so(status: str | None) -> None:
    history = History(RunFolder(Path("runs/a")), end={"status": status} if status else {})
    history.epochs = [{"step": 5, "validation_accuracy": 0.42}]
    verdict = judge(history)
    assert not verdict.measured
    assert "no test figure" in verdict.good
    assert "42.0%" in verdict.good
    assert "no interval" in verdict.sure
    assert verdict.next


def test_validation_figures_are_called_that() -> None:
    history = evaluated(0.9, (0.8, 0.95))
    history.evaluations = {"validation": {**history.evaluations["test"], "split": "validation"}}
    assert "validation images (no test figure" in judge(history).good


def test_a_complete_run_needs_no_remark_and_a_broken_one_gets_it(make_run: RunMaker) -> None:
    assert state_sentences(read_history(make_run("whole", steps=10, trials=2))) == []
    killed = " ".join(state_sentences(read_history(make_run("killed", steps=10, trials=2, until="evaluation"))))
    assert "still going or was killed" in killed
    assert "a test evaluation" in killed
    assert "model.json" in killed
    failed = state_sentences(read_history(make_run("failed", steps=10, trials=2, status="failed")))
    assert failed == ["The run failed; the findings say why it stopped. What it wrote until then is shown."]


def test_why_a_run_failed_is_said_and_an_empty_record_is_no_run_to_go_on_with(make_run: RunMaker) -> None:
    history = read_history(make_run("failed", steps=10, trials=2, status="failed"))
    history.end = {**history.end, "reason": "the disk is full: make room."}
    assert state_sentences(history)[0].startswith("The run failed: the disk is full: make room. What")
    empty = read_history(make_run("empty", until="run"))
    assert empty.empty
    assert "no whole line" in state_sentences(empty)[0]
    assert "resume" not in " ".join([*state_sentences(empty), *judge(empty).sentences])
    begun = read_history(make_run("begun", until="audit"))
    assert not begun.empty
    assert "resume" in judge(begun).next


def test_every_sentence_is_one_sentence(make_run: RunMaker) -> None:
    for how in ({}, {"until": "trial"}, {"until": "audit"}, {"findings": ()}):
        verdict = judge(read_history(make_run(f"run{how}"[:12].strip("{'"), steps=10, trials=2, **how)))
        for sentence in verdict.sentences:
            assert sentence.endswith(".")
            assert "nan" not in sentence
            assert "None" not in sentence

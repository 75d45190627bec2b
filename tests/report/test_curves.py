from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from wellfit.randomness import generator
from wellfit.record import RunFolder
from wellfit.report import curves
from wellfit.report.curves_search import search
from wellfit.report.history import History


def history(**lines: Any) -> History:
    return History(RunFolder(Path("nowhere")), **lines)


def test_moving_average_agrees_with_pandas() -> None:
    values = generator(0, "curves").normal(size=300).cumsum()
    expected = pd.Series(values).ewm(alpha=1 / 25, adjust=True).mean().to_numpy()
    np.testing.assert_allclose(curves.moving_average(values, horizon=25), expected, rtol=1e-10)


def test_moving_average_of_a_constant_is_the_constant_from_the_first_step() -> None:
    np.testing.assert_allclose(curves.moving_average(np.full(50, 2.3), horizon=100), 2.3)


def test_moving_average_passes_over_what_is_not_finite() -> None:
    found = curves.moving_average([math.nan, 1.0, math.inf, 1.0], horizon=3)
    np.testing.assert_allclose(found, [math.nan, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("n", [1, 2, 1999, 2000, 2001, 50_000])
def test_thin_keeps_ends_and_extremes(n: int) -> None:
    values = generator(1, "thin", n).normal(size=n)
    kept = curves.thin(values)
    assert len(kept) <= 2000
    assert (np.diff(kept) > 0).all()
    assert {0, n - 1, int(values.argmin()), int(values.argmax())} <= set(kept.tolist())


def test_thin_of_nothing_and_of_nothing_known() -> None:
    assert curves.thin([]).tolist() == []
    assert len(curves.thin(np.full(5000, np.nan))) <= 2000


def test_loss_curve_sets_lost_steps_apart() -> None:
    losses = [2.0, 1.5, "nan", "inf", 1.0]
    steps = [{"step": i + 1, "loss": loss, "lr": 0.1} for i, loss in enumerate(losses)]
    curve = curves.loss_curve(history(steps=steps, audit={"classes": {"a": 3, "b": 4}}))
    assert curve is not None
    assert curve.lost == [3, 4]
    assert curve.steps.tolist() == [1, 2, 5]
    assert curve.losses.tolist() == [2.0, 1.5, 1.0]
    assert curve.guessing == pytest.approx(math.log(2))
    assert np.isfinite(curve.average).all()


def test_loss_curve_of_many_steps_is_thinned_but_keeps_its_spike() -> None:
    steps = [{"step": i, "loss": 1.0, "lr": 0.1} for i in range(1, 30_001)]
    steps[12_345]["loss"] = 50.0
    curve = curves.loss_curve(history(steps=steps))
    assert curve is not None
    assert max(len(curve.steps), len(curve.average_steps), len(curve.lr_steps)) <= 2000
    assert curve.losses.max() == 50.0


def test_nothing_to_draw_is_none() -> None:
    empty = history()
    assert curves.loss_curve(empty) is None
    assert curves.accuracy_curve(empty) is None
    assert search(empty) is None
    assert curves.update_ratios(empty) is None
    assert curves.confusion(empty) is None
    assert curves.reliability(empty) is None


def test_accuracy_names_the_gap_and_the_best() -> None:
    epochs = [
        {"step": 10, "train_accuracy": 0.5, "validation_accuracy": 0.45},
        {"step": 20, "train_accuracy": 0.9, "validation_accuracy": 0.7, "averaged_validation_accuracy": 0.75},
        {"step": 30, "train_accuracy": 0.95, "validation_accuracy": 0.65},
    ]
    curve = curves.accuracy_curve(history(epochs=epochs, audit={"classes": dict.fromkeys("abcd", 1)}))
    assert curve is not None
    assert curve.gap == pytest.approx(0.30)
    assert curve.gap_step == 30
    assert (curve.best, curve.best_step) == (0.75, 20)
    assert curve.chance == 0.25


def trial(number: int, accuracy: float | None, state: str = "finished", **settings: Any) -> dict[str, Any]:
    curve = [[0, 2.0], [10, 1.0]]
    return {
        "trial": number,
        "stage": "coarse",
        "state": state,
        "settings": settings,
        "validation_accuracy": accuracy,
        "curve": curve,
    }


def test_search_reads_trials_ranges_and_the_limit() -> None:
    found = search(
        history(
            trials=[
                trial(0, 0.4, lr=0.1, weight_decay=0.0, momentum=0.9),
                trial(1, 0.6, lr=0.01, weight_decay=1e-4, momentum=0.9),
                trial(2, 0.9, "pruned", lr=1.0, weight_decay=1e-4, momentum=0.9, optimizer="sgd"),
            ],
            stages=[{"name": "coarse", "ranges": {"optimizer.lr": [1e-3, 1.0]}, "reason": "wide"}],
        )
    )
    assert found is not None
    # A trial that was broken off is never the best, whatever it claims.
    assert found.best is not None
    assert found.best.number == "1"
    assert found.varied() == ["lr", "weight_decay"]
    assert found.broken_off == 1
    assert found.trials[2].named == "lr 1, weight_decay 1e-4, momentum 0.9, optimizer sgd"
    assert found.ranges == {"coarse": {"lr": (1e-3, 1.0)}}
    assert found.limit == pytest.approx(6.0)


def test_search_without_any_result_has_no_best() -> None:
    found = search(history(trials=[trial(0, None, "pruned", lr=1.0)]))
    assert found is not None
    assert found.best is None


def test_update_ratios_are_logarithms_and_zero_norms_are_gaps() -> None:
    steps = [{"step": i, "update_ratio": {"w": 1e-3, "b": None if i == 1 else 1e-2}} for i in (1, 2)]
    ratios = curves.update_ratios(history(steps=[*steps, {"step": 3}]))
    assert ratios is not None
    assert ratios.parameters == ["w", "b"]
    np.testing.assert_allclose(ratios.logs, [[-3, -3], [math.nan, -2]])


def test_update_ratios_of_a_large_network_keep_weights_and_a_drawable_size() -> None:
    names = [f"layer{i}.{part}" for i in range(100) for part in ("weight", "bias")]
    steps = [{"step": i, "update_ratio": dict.fromkeys(names, 1e-3)} for i in range(1000)]
    ratios = curves.update_ratios(history(steps=steps))
    assert ratios is not None
    assert ratios.logs.shape == (curves.MOST_ROWS, curves.MOST_COLUMNS)
    assert all(name.endswith("weight") for name in ratios.parameters)
    assert ratios.parameters_in_all == 200


def test_worst_pairs_are_the_largest_off_the_diagonal() -> None:
    matrix = curves.Confusion(["a", "b", "c"], np.array([[90, 10, 0], [3, 97, 0], [0, 20, 20]]))
    assert matrix.worst_pairs(2) == [("c", "b", 20, 0.5), ("a", "b", 10, 0.1)]
    assert len(matrix.worst_pairs()) == 3
    np.testing.assert_allclose(matrix.shares.sum(1), 1)


def test_reliability_knows_which_way_the_model_errs() -> None:
    bins = [{"confidence": 0.9, "accuracy": 0.7, "images": 30}, {"confidence": 0.5, "accuracy": 0.5, "images": 10}]
    found = curves.reliability(history(evaluations={"test": {"reliability": bins, "calibration_error": 0.15}}))
    assert found is not None
    assert found.excess == pytest.approx(0.15)

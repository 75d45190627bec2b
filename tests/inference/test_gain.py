"""What counts as a gain on validation (SPEC E4)."""

from __future__ import annotations

import numpy as np
import pytest

from wellfit.inference.gain import gain, judge


def answers(right: int, wrong: int, sure: float = 3.0) -> np.ndarray:
    table = np.zeros((right + wrong, 2))
    table[:right, 0] = table[right:, 1] = sure
    return table


def test_scores_and_losses_by_hand() -> None:
    targets = np.zeros(1000, dtype=int)
    judged = judge(answers(800, 200), targets, "accuracy")
    assert judged.score == 0.8
    # At the temperature that suits it, 8 of 10 are right with 0.8; the prior pulls a little.
    assert judged.loss == pytest.approx(-0.8 * np.log(0.8) - 0.2 * np.log(0.2), abs=1e-3)
    assert judged.losses.shape == (1000,)
    assert judged.loss == pytest.approx(judged.losses.mean())


def test_the_temperature_takes_out_how_sure_a_model_is_of_itself() -> None:
    targets = np.zeros(2000, dtype=int)
    losses = [judge(answers(1700, 300, sure), targets, "accuracy").loss for sure in (1.0, 1.7, 3.0)]
    assert max(losses) - min(losses) < 2e-3


def test_a_gain_is_paired_over_the_images() -> None:
    targets = np.zeros(400, dtype=int)
    before, after = judge(answers(300, 100), targets, "accuracy"), judge(answers(340, 60), targets, "accuracy")
    found = gain(before, after)
    assert found.score == pytest.approx(0.1)
    assert found.loss == pytest.approx(before.loss - after.loss)
    fall = before.losses - after.losses
    assert found.error == pytest.approx(np.std(fall, ddof=1) / 20)
    assert found.helps
    assert not gain(after, before).helps
    assert not gain(before, before).helps
    assert gain(before, before).harmless
    assert not gain(after, before).harmless


def test_one_image_more_by_luck_is_no_gain_that_helps() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 300)
    truth = np.eye(3)[targets] * 1.5
    one, other = truth + rng.normal(size=(300, 3)), truth + rng.normal(size=(300, 3))
    found = gain(judge(one, targets, "accuracy"), judge(other, targets, "accuracy"))
    assert abs(found.loss) < 3 * found.error
    both = gain(judge(one, targets, "accuracy"), judge((one + other) / 2, targets, "accuracy"))
    assert both.helps


def test_metrics_other_than_accuracy_are_the_runs() -> None:
    targets = np.array([0] * 9 + [1])
    table = np.tile([2.0, 0.0], (10, 1))
    assert judge(table, targets, "accuracy").score == 0.9
    assert judge(table, targets, "balanced_accuracy").score == 0.5


def test_a_loss_of_endless_certainty_stays_a_number() -> None:
    judged = judge(np.array([[0.0, -1e9], [0.0, -1e9]]), np.array([0, 1]), "accuracy")
    assert np.isfinite(judged.losses).all()

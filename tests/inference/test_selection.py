"""Greedy selection of members on validation (Caruana et al. 2004; SPEC E1, E4)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from wellfit.errors import UserError
from wellfit.inference.evaluate import softmax
from wellfit.inference.gain import judge
from wellfit.inference.selection import greedy, mean_answers

CLASSES, IMAGES = 4, 1500


def independent(count: int, noise: float = 1.0, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Networks that know the same and err apart."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, CLASSES, IMAGES)
    truth = np.eye(CLASSES)[targets] * 1.5
    return [truth + noise * rng.normal(size=truth.shape) for _ in range(count)], targets


def test_the_mean_is_of_probabilities_with_their_weights() -> None:
    tables, _ = independent(3)
    got = np.exp(mean_answers(tables, [2, 0, 1]))
    np.testing.assert_allclose(got, (2 * softmax(tables[0]) + softmax(tables[2])) / 3)
    with pytest.raises(UserError, match="at least one member"):
        mean_answers(tables, [0, 0, 0])


def test_independent_networks_are_all_taken_and_gain() -> None:
    tables, targets = independent(3)
    chosen = greedy(tables, targets, "accuracy")
    assert chosen.chosen == [0, 1, 2]
    assert chosen.weights.sum() == pytest.approx(1)
    assert chosen.gain.helps
    assert chosen.judged.score == pytest.approx(
        judge(mean_answers(tables, chosen.weights), targets, "accuracy").score, abs=1e-12
    )
    assert chosen.single.score == max(judge(t, targets, "accuracy").score for t in tables)


def test_copies_of_one_network_are_worth_nothing() -> None:
    tables, targets = independent(1)
    chosen = greedy([tables[0], tables[0].copy(), 1.0 * tables[0]], targets, "accuracy")
    assert len(chosen.steps) == 1
    assert chosen.gain.score == 0
    assert not chosen.gain.helps


def test_a_network_that_guesses_is_left_out() -> None:
    tables, targets = independent(2)
    noise = np.random.default_rng(5).normal(size=tables[0].shape)
    assert greedy([noise, *tables], targets, "accuracy").chosen == [1, 2]


def test_each_step_is_the_best_of_all_that_could_be_taken() -> None:
    """Against an independent search over what the first two steps could be."""
    tables, targets = independent(4, noise=1.3, seed=2)
    chosen = greedy(tables, targets, "accuracy")
    first = chosen.steps[0].member
    losses = {
        second: judge(np.log((softmax(tables[first]) + softmax(tables[second])) / 2), targets, "accuracy").loss
        for second in range(4)
    }
    assert chosen.steps[1].member == min(losses, key=losses.__getitem__)
    for before, after in itertools.pairwise(chosen.steps):
        assert after.gain.loss == pytest.approx(before.judged.loss - after.judged.loss)
        assert after.gain.loss > after.gain.error


def test_no_more_members_than_asked_for_and_weights_count_repeats() -> None:
    tables, targets = independent(6)
    chosen = greedy(tables, targets, "accuracy", most_members=2)
    assert len(chosen.chosen) == 2
    strong, weak = independent(1, noise=0.9, seed=3)[0][0], independent(1, noise=0.9, seed=3)[0][0]
    rng = np.random.default_rng(9)
    targets = independent(1, noise=0.9, seed=3)[1]
    weak = weak * 0 + np.eye(CLASSES)[targets] * 0.7 + rng.normal(size=weak.shape)
    uneven = greedy([strong, weak], targets, "accuracy")
    assert uneven.weights[0] > uneven.weights[1]


def test_nothing_to_choose_from_is_said() -> None:
    with pytest.raises(UserError, match="got none"):
        greedy([], np.zeros(0, dtype=int), "accuracy")

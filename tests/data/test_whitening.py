"""Whitened vectors have the identity as covariance; each step against numpy (SPEC D4)."""

from __future__ import annotations

import numpy as np
import pytest

from wellfit.data.whitening import fit_whitening
from wellfit.errors import UserError


def vectors(count: int = 300, width: int = 6, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    mixed = draw.normal(size=(count, width)) @ draw.normal(size=(width, width))
    return (mixed * 10.0 ** np.arange(width) + 50).astype(np.float32)


@pytest.mark.parametrize("shape", [(300, 6), (12, 40)], ids=["tall", "wide"])
def test_each_step_does_what_it_says(shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(1)
    features = draw.normal(size=shape) @ draw.normal(size=(shape[1], shape[1])) + 5
    whitening = fit_whitening(features)
    rank = min(shape[1], shape[0] - 1)
    np.testing.assert_allclose(whitening.centred(features).mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(whitening.normalised(features).std(0), 1, rtol=1e-12)
    turned = whitening.decorrelated(features)
    correlation = np.corrcoef(features.T)
    expected = np.sort(np.linalg.eigvalsh(correlation))[::-1][:rank]
    np.testing.assert_allclose(np.cov(turned.T, bias=True), np.diag(expected), atol=1e-9)
    white = whitening.whitened(features)
    assert white.shape == (shape[0], rank)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(rank), atol=1e-9)


def test_scales_far_apart_do_not_matter_and_float32_is_summed_in_float64() -> None:
    features = vectors()
    white = fit_whitening(features).whitened(features)
    assert white.dtype == np.float64
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(6), atol=1e-8)


def test_fewer_components_are_the_first_and_others_are_treated_by_the_training_vectors_figures() -> None:
    features, others = vectors(), vectors(seed=0)[:7] * 1.5
    whole, part = fit_whitening(features), fit_whitening(features, 2)
    np.testing.assert_allclose(part.whitened(others), whole.whitened(others)[:, :2])
    assert (np.diff(whole.variances) <= 0).all()
    by_hand = (others - features.mean(0, dtype=float)) / features.std(0, dtype=float) @ whole.axes
    np.testing.assert_allclose(whole.decorrelated(others), by_hand, rtol=1e-6)


def test_dimensions_that_never_vary_or_repeat_another_are_left_out() -> None:
    features = vectors(width=3).astype(float)
    features = np.column_stack([features, np.full(300, 0.1), 2 * features[:, 0]])
    whitening = fit_whitening(features)
    assert whitening.whitened(features).shape == (300, 3)
    np.testing.assert_allclose(np.cov(whitening.whitened(features).T, bias=True), np.eye(3), atol=1e-9)
    with pytest.raises(UserError, match="vary in, 3, got 4"):
        fit_whitening(features, 4)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (np.ones(5), r"N×D, got shape \(5,\)"),
        (np.ones((1, 5)), r"got shape \(1, 5\)"),
        (np.array([[1.0, np.nan], [2.0, 3.0]]), "finite"),
        (np.full((4, 3), 0.1), "vary in, 0, got 0"),
    ],
)
def test_mistakes_are_one_sentence(features: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        fit_whitening(features)

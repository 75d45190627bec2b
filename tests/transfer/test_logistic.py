"""Many logistic regressions at once, each against scikit-learn's own (SPEC T2)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from wellfit.transfer.logistic import fit_logistic, principal_axes


def samples(count: int, width: int, classes: int, distance: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([count, width, classes])
    targets = rng.integers(0, classes, count)
    centres = distance * rng.normal(size=(classes, width))
    return (centres[targets] + rng.normal(size=(count, width))).astype(np.float32), targets


def standardised(features: np.ndarray) -> np.ndarray:
    return (features - features.mean(0)) / (features.std(0) + 1e-6)


@pytest.mark.parametrize(("count", "width", "classes"), [(60, 200, 2), (200, 12, 2), (60, 200, 5), (300, 12, 5)])
def test_every_problem_is_scikit_learns(count: int, width: int, classes: int) -> None:
    features, targets = samples(count, width, classes)
    folds = np.arange(count) % 3
    strengths = np.array([1e-3, 1e-1] * 3)
    weights = np.stack([(folds != problem // 2) for problem in range(6)]).astype(np.float32)
    fits = fit_logistic(principal_axes(features), targets, classes, strengths, weights, iterations=2000, tolerance=1e-6)
    scaled = standardised(features)
    for problem in range(6):
        kept = folds != problem // 2
        model = LogisticRegression(C=strengths[problem], max_iter=2000, tol=1e-7).fit(scaled[kept], targets[kept])
        ours = torch.softmax(fits.logits(slice(None), problem), dim=1).numpy()
        np.testing.assert_allclose(ours, model.predict_proba(scaled), atol=3e-3)
        weight, bias = fits.classifier(problem)
        logits = torch.from_numpy(features @ weight.T + bias)
        np.testing.assert_allclose(torch.softmax(logits, 1).numpy(), ours, atol=1e-3)


def test_weights_of_samples_are_those_of_scikit_learn() -> None:
    features, targets = samples(150, 8, 3)
    weights = np.random.default_rng(0).uniform(0.1, 3.0, (1, 150)).astype(np.float32)
    fits = fit_logistic(principal_axes(features), targets, 3, np.array([0.3]), weights, iterations=2000)
    model = LogisticRegression(C=0.3, max_iter=2000).fit(standardised(features), targets, sample_weight=weights[0])
    ours = torch.softmax(fits.logits(slice(None), 0), dim=1).numpy()
    np.testing.assert_allclose(ours, model.predict_proba(standardised(features)), atol=3e-3)


def test_the_axes_give_the_features_back() -> None:
    for count, width in ((20, 50), (50, 20)):
        features, _ = samples(count, width, 2)
        axes = principal_axes(features)
        again = (axes.scores @ axes.rotation) * axes.std.float() + axes.mean.float()
        np.testing.assert_allclose(again.numpy(), features, atol=1e-3)
        gram = axes.scores.T @ axes.scores
        largest = float(axes.variances.max())
        np.testing.assert_allclose(gram.numpy(), torch.diag(axes.variances).numpy(), atol=1e-4 * largest)


def test_constant_features_do_no_harm() -> None:
    features, targets = samples(80, 6, 2)
    fits = fit_logistic(principal_axes(np.ones((80, 3), np.float32)), targets, 2, np.ones(1), np.ones((1, 80)))
    share = np.bincount(targets) / 80
    np.testing.assert_allclose(torch.softmax(fits.logits()[:, 0], 1).numpy(), np.tile(share, (80, 1)), atol=1e-2)
    with_constant = np.concatenate([features, np.full((80, 1), 5.0, np.float32)], axis=1)
    ones = np.ones((1, 80), np.float32)
    first = fit_logistic(principal_axes(features), targets, 2, np.ones(1), ones, iterations=1000)
    second = fit_logistic(principal_axes(with_constant), targets, 2, np.ones(1), ones, iterations=1000)
    np.testing.assert_allclose(first.logits().numpy(), second.logits().numpy(), atol=1e-2)


def test_few_steps_rank_settings_as_many_do() -> None:
    features, targets = samples(300, 60, 4, distance=0.25)
    held = np.arange(300) % 3 == 0
    strengths = 10.0 ** np.arange(-4, 1)
    weights = np.tile((~held).astype(np.float32), (5, 1))
    losses = []
    for steps in (40, 2000):
        fits = fit_logistic(principal_axes(features), targets, 4, strengths, weights, iterations=steps)
        logits = fits.logits(torch.from_numpy(np.flatnonzero(held)))
        right = torch.log_softmax(logits, 2)[np.arange(held.sum()), :, targets[held]]
        losses.append((-right.mean(0)).numpy())
    assert losses[0].argmin() == losses[1].argmin()

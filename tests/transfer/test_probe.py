"""Linear classifiers on frozen features, against scikit-learn used directly (SPEC T2)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.data.memory_store import MemoryStore, random_images
from wellfit.data.batches import EvaluationBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.inference.evaluate import softmax
from wellfit.models.probe_net import ProbeNet
from wellfit.models.zoo import build
from wellfit.transfer.probe import choose_probe, extract_features, fit_probe, install


def blobs(count: int, classes: int, width: int = 6, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """N×1×F features around one centre a class, channels of very different scale."""
    rng = np.random.default_rng(0)
    targets = np.arange(count) % classes
    centres = rng.normal(size=(classes, width))
    features = (centres[targets] + spread * rng.normal(size=(count, width))) * 10.0 ** np.arange(-2, width - 2)
    return features[:, None].astype(np.float32), targets


def direct(strength: float, balanced: bool = False) -> object:
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, max_iter=300, class_weight="balanced" if balanced else None)
    )


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("balanced", [False, True])
def test_probabilities_are_scikit_learns(classes: int, balanced: bool) -> None:
    features, targets = blobs(60, classes)
    targets[:20] = 0  # uneven
    model = direct(0.1, balanced).fit(features[:, 0].astype(np.float64), targets)
    ours = softmax(fit_probe(features, targets, classes, 0.1, balanced=balanced).logits(features[:, 0]))
    np.testing.assert_allclose(ours, model.predict_proba(features[:, 0].astype(np.float64)), atol=2e-3)


def test_every_view_is_a_sample_of_its_own() -> None:
    features, targets = blobs(40, 3)
    two = np.concatenate([features, features[::-1]], axis=1)
    model = direct(1.0).fit(np.concatenate([features[:, 0], features[::-1, 0]]), np.concatenate([targets, targets]))
    ours = softmax(fit_probe(two, targets, 3, 1.0).logits(features[:, 0]))
    np.testing.assert_allclose(ours, model.predict_proba(features[:, 0]), atol=2e-3)


def test_a_class_that_is_missing_is_never_predicted() -> None:
    features, targets = blobs(40, 4)
    present = targets != 2
    probe = fit_probe(features[present], targets[present], 4, 1.0)
    probabilities = softmax(probe.logits(features[:, 0]))
    assert probabilities.shape == (40, 4)
    assert probabilities[:, 2].max() < 0.01


def test_the_strength_is_chosen_by_cross_validation_as_scikit_learn_would() -> None:
    features, targets = blobs(90, 3, spread=3.0)
    fold = np.random.default_rng(1).permutation(90) % 5
    folds = [np.flatnonzero(fold == i) for i in range(5)]
    strengths = (1e-4, 1e-2, 1.0, 100.0)
    result = choose_probe(features, targets, 3, folds, "accuracy", strengths=strengths)
    expected = []
    for strength in strengths:
        predicted = cross_val_predict(direct(strength), features[:, 0], targets, cv=PredefinedSplit(fold))
        expected.append((predicted == targets).mean())
    assert [row["accuracy"] for row in result.table] == pytest.approx(expected)
    top = max(expected)
    close = [row for row in result.table if row["accuracy"] >= top - (top * (1 - top) / 90) ** 0.5]
    assert result.probe.strength == min(close, key=lambda row: row["loss"])["strength"]
    assert result.score == expected[strengths.index(result.probe.strength)]
    assert np.isfinite(result.held_out).all()


def test_a_validation_split_is_judged_by_a_classifier_that_has_not_seen_it() -> None:
    features, targets = blobs(60, 3)
    held_out = np.arange(40, 60)
    result = choose_probe(features, targets, 3, [held_out], "accuracy", strengths=(0.1,))
    model = direct(0.1).fit(features[:40, 0], targets[:40])
    assert result.score == pytest.approx(model.score(features[40:, 0], targets[40:]))
    assert np.isnan(result.held_out[:40]).all()
    np.testing.assert_allclose(result.held_out[40:], model.predict_proba(features[40:, 0]), atol=2e-3)
    whole = direct(0.1).fit(features[:, 0], targets)  # what is handed over is fitted on all images
    ours = softmax(result.probe.logits(features[:, 0]))
    np.testing.assert_allclose(ours, whole.predict_proba(features[:, 0]), atol=2e-3)


def test_features_of_an_image_and_its_mirror_image_go_into_a_network_that_agrees() -> None:
    images = random_images(12, 32, 32)
    preprocessing = Preprocessing(32, 32, (0.5,) * 3, (0.25,) * 3)
    batches = EvaluationBatches(MemoryStore(images), np.arange(12), np.arange(12) % 2, preprocessing, 5)
    net = ProbeNet(build("resnet20", 2, image_size=32, seed=0).module, 2, 32)
    engine, done = Engine(threads=1), []
    features = extract_features(net, batches, engine, preprocessing, done.append)
    assert features.shape == (12, 2, 128)
    assert done == [5, 5, 2]
    inputs = preprocessing.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
    with torch.no_grad():
        np.testing.assert_allclose(features[:, 0], net.features(inputs), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(features[:, 1], net.features(inputs.flip(3)), rtol=1e-4, atol=1e-5)
        probe = fit_probe(features, np.arange(12) % 2, 2, 0.1)
        install(net, probe)
        np.testing.assert_allclose(net(inputs), probe.logits(features[:, 0]), rtol=1e-3, atol=1e-3)

"""Linear classifiers on frozen features, against scikit-learn used directly (SPEC T2)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.data.memory_store import random_images
from wellfit.data.preprocess import Preprocessing
from wellfit.inference.evaluate import softmax
from wellfit.models.probe_net import ProbeNet
from wellfit.models.zoo import build
from wellfit.transfer.probe import STRENGTHS, best_row, choose_probe, fit_probe, install
from wellfit.transfer.stage_features import Spot, StageFeatures


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
    scaled = StandardScaler().fit_transform(features[:, 0])  # one scale serves all folds: it sees no label
    for strength in strengths:
        predicted = cross_val_predict(
            LogisticRegression(C=strength, max_iter=300), scaled, targets, cv=PredefinedSplit(fold)
        )
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
    scaled = StandardScaler().fit_transform(features[:, 0])
    model = LogisticRegression(C=0.1, max_iter=300).fit(scaled[:40], targets[:40])
    assert result.score == pytest.approx(model.score(scaled[40:], targets[40:]))
    assert np.isnan(result.held_out[:40]).all()
    np.testing.assert_allclose(result.held_out[40:], model.predict_proba(scaled[40:]), atol=2e-3)
    whole = direct(0.1).fit(features[:, 0], targets)  # what is handed over is fitted on all images
    ours = softmax(result.probe.logits(features[:, 0]))
    np.testing.assert_allclose(ours, whole.predict_proba(features[:, 0]), atol=2e-3)


def test_settings_of_several_stages_are_compared_and_the_best_is_fitted_on_all() -> None:
    features, targets = blobs(120, 3, width=6, spread=1.0)
    noise = np.random.default_rng(3).normal(size=(120, 1, 4)).astype(np.float32)
    columns = {Spot("early", "mean"): [(0, 4)], Spot("late", "mean"): [(4, 7)], Spot("late", "mean+max"): [(4, 10)]}
    stages = StageFeatures(np.concatenate([noise, features], axis=2), columns)
    fold = np.random.default_rng(1).permutation(120) % 4
    folds = [np.flatnonzero(fold == i) for i in range(4)]
    result = choose_probe(stages, targets, 3, folds, "accuracy")
    assert len(result.table) == 3 * len(STRENGTHS)
    assert result.spot is not None
    assert result.spot.layer == "late"
    by_layer = result.stages("accuracy")
    assert list(by_layer) == ["early", "late"]
    assert by_layer["late"]["accuracy"] > by_layer["early"]["accuracy"] + 0.2
    alone = choose_probe(stages, targets, 3, folds, "accuracy", spots=[Spot("early", "mean")])
    assert alone.spot == Spot("early", "mean")
    assert alone.probe.weight.shape == (3, 4)
    direct_fit = direct(result.probe.strength).fit(stages.of(result.spot)[:, 0], targets)
    ours = softmax(result.probe.logits(stages.of(result.spot)[:, 0]))
    np.testing.assert_allclose(ours, direct_fit.predict_proba(stages.of(result.spot)[:, 0]), atol=2e-3)


def test_many_images_are_compared_on_some_of_them_and_judged_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wellfit.transfer.probe.COMPARED_BY", 60)
    features, targets = blobs(600, 3, spread=1.0)
    held_out = np.arange(400, 600)
    result = choose_probe(features, targets, 3, [held_out], "accuracy")
    assert {row["judged"] for row in result.table} == {60}
    assert np.isfinite(result.held_out[400:]).all()
    model = direct(result.probe.strength)
    scaled = model.fit(features[:400, 0], targets[:400]).score(features[400:, 0], targets[400:])
    assert result.score == pytest.approx(scaled, abs=0.02)
    folds = [np.flatnonzero(np.arange(600) % 5 == i) for i in range(5)]
    crossed = choose_probe(features, targets, 3, folds, "accuracy")
    assert {row["judged"] for row in crossed.table} == {75}
    assert np.isfinite(crossed.held_out).all()


def test_of_level_scores_the_lowest_loss_is_taken() -> None:
    rows = [
        {"layer": "a", "accuracy": 0.90, "loss": 0.9, "judged": 100},
        {"layer": "a", "accuracy": 0.88, "loss": 0.3, "judged": 100},
        {"layer": "b", "accuracy": 0.80, "loss": 0.1, "judged": 100},
    ]
    assert best_row(rows) == 1
    assert best_row(rows, "b") == 2


def test_classes_weigh_alike_where_a_setting_is_balanced() -> None:
    features, targets = blobs(200, 2, spread=4.0)
    targets[:160] = 0
    folds = [np.flatnonzero(np.arange(200) % 4 == i) for i in range(4)]
    plain = choose_probe(features, targets, 2, folds, "balanced_accuracy", balances=(False,))
    both = choose_probe(features, targets, 2, folds, "balanced_accuracy", balances=(False, True))
    assert max(row["balanced_accuracy"] for row in both.table) > max(row["balanced_accuracy"] for row in plain.table)


def test_an_installed_classifier_answers_as_it_does_on_its_own() -> None:
    images = random_images(12, 32, 32)
    preprocessing = Preprocessing(32, 32, (0.5,) * 3, (0.25,) * 3)
    net = ProbeNet(build("resnet20", 2, image_size=32, seed=0).module, 2, 32, layer="layer2", pooling="grid2")
    inputs = preprocessing.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
    net.eval()
    with torch.no_grad():
        features = net.features(inputs).numpy()[:, None]
        probe = fit_probe(features, np.arange(12) % 2, 2, 0.1)
        install(net, probe)
        np.testing.assert_allclose(net(inputs), probe.logits(features[:, 0]), rtol=1e-3, atol=1e-3)

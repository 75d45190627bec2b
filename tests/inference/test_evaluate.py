"""Logits of a split once, every figure from them, against torch and scikit-learn used directly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as theirs
from torch import nn
from torch.nn import functional

from tests.data.memory_store import MemoryStore, random_images
from wellfit.data.batches import EvaluationBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.inference.evaluate import SCORES, ValidationScore, cross_entropy, logits_of, softmax

IMAGES, CLASSES = 37, 4
PIXELS = random_images(IMAGES, 8, 8, seed=5)
TARGETS = np.random.default_rng(0).integers(0, CLASSES, IMAGES)
PREPROCESSING = Preprocessing(8, 8, (0.5,) * 3, (0.25,) * 3)


def batches(size: int = 10) -> EvaluationBatches:
    return EvaluationBatches(MemoryStore(PIXELS), np.arange(IMAGES), TARGETS, PREPROCESSING, size)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5), nn.Flatten(), nn.Linear(216, CLASSES))


def test_logits_are_those_of_the_whole_split_at_once_in_evaluation_mode(network: nn.Module) -> None:
    network.train()
    logits = logits_of(network, batches(), Engine(layout="contiguous"), PREPROCESSING)
    assert not network.training
    with torch.no_grad():
        whole = network((torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255.0 - 0.5) / 0.25)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        logits_of(network, batches(37), Engine(layout="contiguous"), PREPROCESSING), logits, rtol=1e-4, atol=1e-5
    )


def test_judging_leaves_weights_and_statistics_alone(network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    logits_of(network, batches(), Engine(), PREPROCESSING)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_softmax_and_cross_entropy_are_torchs_also_for_large_logits() -> None:
    logits = np.random.default_rng(1).normal(size=(IMAGES, CLASSES)).astype(np.float32) * 300
    expected = torch.from_numpy(logits).double()
    np.testing.assert_allclose(softmax(logits), functional.softmax(expected, 1), rtol=1e-6, atol=1e-12)
    loss = functional.cross_entropy(expected, torch.from_numpy(TARGETS))
    assert cross_entropy(logits, TARGETS) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize("metric", SCORES)
def test_the_score_is_the_metric_asked_for_and_all_are_told(metric: str, network: nn.Module) -> None:
    score, figures = ValidationScore(batches(), list("abcd"), Engine(), PREPROCESSING, metric)(network)
    predicted = logits_of(network, batches(), Engine(), PREPROCESSING).argmax(1)
    expected = {
        "accuracy": theirs.accuracy_score(TARGETS, predicted),
        "balanced_accuracy": theirs.balanced_accuracy_score(TARGETS, predicted),
        "macro_f1": theirs.f1_score(TARGETS, predicted, average="macro", zero_division=0),
    }
    assert score == pytest.approx(expected[metric])
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_a_network_that_answers_nan_scores_below_any_other(network: nn.Module) -> None:
    with torch.no_grad():
        network[4].bias.fill_(float("nan"))
    score, _ = ValidationScore(batches(), list("abcd"), Engine(), PREPROCESSING, "accuracy")(network)
    assert score == -1.0


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown metric 'balanced' \(did you mean 'balanced_accuracy'\?\)"):
        ValidationScore(batches(), list("abcd"), Engine(), PREPROCESSING, "balanced")

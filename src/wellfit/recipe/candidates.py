"""Several pretrained networks on this machine: linear classifiers on some of the images rank them (SPEC T4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wellfit.config import Config
from wellfit.data.batches import EvaluationBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import CORES, Engine, available_device
from wellfit.models.zoo import Built
from wellfit.recipe.prepare import Prepared
from wellfit.transfer.probe import best_row, choose_probe
from wellfit.transfer.stage_features import stage_features

COMPARED_ON = 200  # training images
LEAST_SECONDS = 45.0  # of the budget that must be left: with less the first candidate is taken unseen
COMPARED_STRENGTHS = (1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Ranked:
    """A candidate; score and loss of its best linear classifier, cross-validated on some training images."""

    built: Built
    score: float
    loss: float


def rank(built: Sequence[Built], data: Prepared, config: Config) -> list[Ranked]:
    """The networks, the best score first, and among equals the lowest loss. All see the same images in five folds."""
    train = data.split.train
    chosen = train[np.unique(np.linspace(0, len(train) - 1, COMPARED_ON).round().astype(int))]
    targets, classes = data.targets(chosen), len(data.classes)
    order = np.argsort(targets, kind="stable")  # each fold has its share of every class
    folds = [np.sort(order[fold::5]) for fold in range(5)]
    device = available_device(config.engine.device)
    engine = Engine(device, "float32", "channels_last", config.engine.threads or CORES)
    engine.activate()
    ranked = []
    for one in built:
        size = one.image_size or 224
        resize = round(size / (one.crop_pct or 0.875))
        mean, std = one.mean or [0.5] * 3, one.std or [0.5] * 3
        preprocessing = Preprocessing(size, resize, tuple(mean), tuple(std))
        batches = EvaluationBatches(data.store, data.rows(chosen), targets, preprocessing, 32)
        features = stage_features(engine.place(one.module), batches, engine, preprocessing, views=1)
        found = choose_probe(
            features, targets, classes, folds, config.metric, strengths=COMPARED_STRENGTHS, seed=config.seed
        )
        row = found.table[best_row(found.table, metric=config.metric)]
        ranked.append(Ranked(one, row[config.metric], row["loss"]))
    return sorted(ranked, key=lambda one: (-one.score, one.loss))

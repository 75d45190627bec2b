"""What many settings of a linear classifier cost beside the one pass over the images that they share (SPEC T2).

SqueezeNet 1.1 with ImageNet weights on the ants-bees photos, two views of each: one pass, then every stage, pooling and
strength by five-fold cross-validation, and the fit of the one that is chosen. Seconds of processor time, which other
work on the machine disturbs less than the clock.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/probe_settings.py [--settings 64] [--rounds 3] [--size 224]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np

from wellfit.data.audit import audit
from wellfit.data.batches import EvaluationBatches
from wellfit.data.inspect import inspect
from wellfit.data.preprocess import Preprocessing
from wellfit.data.sources import open_source
from wellfit.data.split import FOLDS, make_split
from wellfit.data.store import build_store
from wellfit.engine import Engine
from wellfit.models.zoo import build
from wellfit.recipe.machine import machine
from wellfit.transfer.probe import STRENGTHS, choose_probe
from wellfit.transfer.stage_features import stage_features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224, help="side of the input in pixels")
    given = parser.parse_args()
    root = Path(os.environ["WELLFIT_TEST_DATA"])
    os.environ.setdefault("TORCH_HOME", str(root / "weights"))
    source = open_source(root / "data" / "ants-bees.tar")
    inspection = inspect(source)
    own = np.flatnonzero((np.array(source.splits) != "test") & inspection.usable)
    store = build_store(source, inspection, own, short_side=320)
    split = make_split(source, audit(source, inspection, store), seed=0)
    indices = np.concatenate([split.train, split.validation])
    targets = split.targets[indices]
    built = build("squeezenet1_1", 2, image_size=given.size, weights="imagenet")
    assert built.mean is not None
    assert built.std is not None
    preprocessing = Preprocessing(given.size, round(given.size / 0.875), tuple(built.mean), tuple(built.std))
    engine = Engine("cpu", "bfloat16", "channels_last", 1)
    engine.activate()
    module = engine.place(built.module)
    batches = EvaluationBatches(store, store.row_of[indices], targets, preprocessing, 32)
    folds = [np.flatnonzero(np.arange(len(indices)) % FOLDS == fold) for fold in range(FOLDS)]
    shares = []
    for _ in range(given.rounds):
        begun = time.process_time()
        features = stage_features(module, batches, engine, preprocessing)
        between = time.process_time()
        spots = features.spots[-max(1, given.settings // len(STRENGTHS)) :]
        result = choose_probe(features, targets, 2, folds, "accuracy", spots=spots)
        ended = time.process_time()
        shares.append((ended - begun) / (between - begun))
        print(
            f"{len(indices)} images, {features.values.shape[2]:,} features: pass {between - begun:.2f} s, "
            f"{len(result.table)} settings {ended - between:.2f} s, together {shares[-1]:.3f} × the pass; "
            f"chosen {result.spot}, {result.score:.4f}",
            flush=True,
        )
    print(f"{machine()}\nmedian {np.median(shares):.3f}, {min(shares):.3f} to {max(shares):.3f}, n = {len(shares)}")


if __name__ == "__main__":
    main()

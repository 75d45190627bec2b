"""What many settings of a linear classifier cost beside the one pass over the images that they share (SPEC T2).

SqueezeNet 1.1 with ImageNet weights on the ants-bees photos, one view of each and two, as `fit` takes them, in the
engine that the probe chooses: one pass, then the last stages and poolings with every strength, judged on a fifth of the
images (as many classifiers as settings) or by five-fold cross-validation (five times as many, as `fit` does on so few
images), and the fit of the one that is chosen. Seconds of processor time, which other work on the machine disturbs less
than the clock.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/probe_settings.py [--settings 64] [--rounds 3] [--size 224]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from spread import spread, versions

from wellfit.config import EngineConfig
from wellfit.data.audit import audit
from wellfit.data.batches import EvaluationBatches
from wellfit.data.inspect import inspect
from wellfit.data.preprocess import Preprocessing
from wellfit.data.sources import open_source
from wellfit.data.split import FOLDS, make_split
from wellfit.data.store import build_store
from wellfit.models.zoo import build
from wellfit.recipe.model_choice import probe_engine
from wellfit.transfer.probe import STRENGTHS, choose_probe
from wellfit.transfer.stage_features import stage_features

MOST, BUDGET = 1.1, 400.0  # to reach; seconds that the engine is chosen for

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


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
    engine = probe_engine(EngineConfig(device="cpu", threads=1), built.module, given.size, 2, BUDGET).engine
    engine.activate()
    module = engine.place(built.module)
    batches = EvaluationBatches(store, store.row_of[indices], targets, preprocessing, 32)
    folds = [np.flatnonzero(np.arange(len(indices)) % FOLDS == fold) for fold in range(FOLDS)]
    ways = {"one held-out part": folds[:1], f"{FOLDS} folds": folds}
    ratios: dict[str, list[float]] = {}
    for _ in range(given.rounds):
        for views in (1, 2):
            whole, features = seconds(stage_features, module, batches, engine, preprocessing, views=views)
            spots = features.spots[-max(1, given.settings // len(STRENGTHS)) :]
            print(f"{len(indices)} images, {views} views each, {features.values.shape[2]:,} features: {whole:.2f} s")
            for way, held_out in ways.items():
                took, result = seconds(choose_probe, features, targets, 2, held_out, "accuracy", spots=spots)
                ratios.setdefault(f"{views} views, {way}", []).append(1 + took / whole)
                print(
                    f"  {way}: {len(result.table)} settings {took:.2f} s; {result.spot}, {result.score:.4f}", flush=True
                )
    print(f"{versions()}; {engine.line}")
    for name, values in ratios.items():
        late = "  <- missed" if statistics.median(values) > MOST else ""
        print(f"{name}: together {spread(values, 3)} times the pass{late}, n = {len(values)}")


def seconds(
    work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> tuple[float, Result]:
    """Processor's seconds of a call, and what it returned."""
    begun = time.process_time()
    result = work(*arguments, **named)
    return time.process_time() - begun, result


if __name__ == "__main__":
    main()

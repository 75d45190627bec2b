"""Data, network and space of search.py, and its pool of full-length random trials, computed once.

From the 60,000 training images of Fashion-MNIST, three disjoint sets by one draw: 20,000 to train on, 10,000 to
choose by ("validation"), 10,000 to judge the winners by ("judges"), which no search sees. All trainings start from
the same weights and see the same batches (one training seed), at a constant rate.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept_trials import judge

from wellfit.data.audit import audit
from wellfit.data.inspect import inspect
from wellfit.data.sources import open_source
from wellfit.data.sources.cache import cache_folder
from wellfit.data.split import Split
from wellfit.data.store import build_store
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.randomness import generator
from wellfit.recipe.material import Material
from wellfit.recipe.plan import ChecksPlan, ModelPlan, OptimizerPlan, Plan, SearchPlan, TrainingPlan
from wellfit.recipe.prepare import Prepared
from wellfit.recipe.trials import TrialRunner
from wellfit.record import Record, read_record
from wellfit.search.kinds import Choice, LogUniform, Uniform
from wellfit.search.samplers import settings_of
from wellfit.search.space import Space
from wellfit.search.space_file import space_to_dict
from wellfit.search.trial import Task, Trial

TRAINING, VALIDATION, JUDGES = 20_000, 10_000, 10_000
EPOCHS = 5.0  # of a full-length trial
POOL = 240
POOL_SEED = 1_000  # draws the pool's settings; no search uses it
LOOKS = (0.25, 0.5, 1.0, 2.5, EPOCHS)  # epochs at which a trial of the pool is scored, each gone on from the one before

SPACE: Space = {
    "lr": LogUniform(1e-5, 1.0),
    "weight_decay": LogUniform(1e-6, 1.0),
    "dropout": Uniform(0.0, 0.9),
    "batch_size": Choice((128, 256)),
}
"""Momentum 0.9 throughout. About a tenth of this trains well: lr within a factor of four of the best, the decay below
about 1e-2 and less than half of the units dropped."""

PLAN = Plan(
    seed=0,
    metric="accuracy",
    loss="cross-entropy",
    schedule="constant",
    augment=(),
    reasons=("made for benchmarks/search.py",),
    model=ModelPlan("search_nets:StridedLeNet", "none", 28, 28, "none", 59_822, {}),
    optimizer=OptimizerPlan("momentum", 0.03, 0.0),
    engine=Engine("cpu", "float32", "contiguous", 1),
    checks=ChecksPlan(100, 20),
    search=SearchPlan(),
    training=TrainingPlan(steps=780, batch_size=128, steps_per_epoch=156, evaluate_every=156),
)


def default_folder() -> Path:
    return cache_folder() / "benchmarks" / "search"


def parts_of(given: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(training, validation, judges): sorted and disjoint, of the source indices that may be used."""
    order = generator(0, "search benchmark").permutation(given)
    ends = np.cumsum([TRAINING, VALIDATION, JUDGES])
    if len(order) < ends[-1]:
        raise UserError(f"the benchmark needs {ends[-1]:,} training images, and the data has {len(order):,}")
    return np.sort(order[: ends[0]]), np.sort(order[ends[0] : ends[1]]), np.sort(order[ends[1] : ends[2]])


def fashion_material() -> Material:
    """20,000 / 10,000 / 10,000 images; the judges stand in the test split, which no trial reads."""
    root = os.environ.get("WELLFIT_TEST_DATA")
    if not root:
        raise UserError("the data is found through WELLFIT_TEST_DATA, which is not set; set it to the folder of data/")
    source = open_source(Path(root) / "data" / "fashion-mnist")
    training, validation, judges = parts_of(np.flatnonzero(np.array(source.splits) != "test"))
    inspection = inspect(source)
    store = build_store(source, inspection, np.sort(np.concatenate([training, validation, judges])), short_side=28)
    classes = sorted(set(source.labels))
    number = {name: i for i, name in enumerate(classes)}
    targets = np.array([number[label] for label in source.labels], dtype=np.int64)
    split = Split(training, validation, judges, classes, targets)
    return Material.of(Prepared(source, inspection, store, audit(source, inspection, store), split), PLAN)


def definition() -> dict[str, Any]:
    """What a trial of the pool follows from; pools of another definition are not gone on with."""
    plan = json.dumps(vars(PLAN), default=vars, sort_keys=True)
    return {
        "space": space_to_dict(SPACE),
        "parts": [TRAINING, VALIDATION, JUDGES],
        "looks": list(LOOKS),
        "seed": POOL_SEED,
        "plan": hashlib.blake2b(plan.encode(), digest_size=8).hexdigest(),
        "torch": torch.__version__,
    }


def read_pool(path: Path) -> list[dict[str, Any]]:
    """The finished trials of the pool by number. UserError for a pool of another definition."""
    trials = {}
    for line in read_record(path):
        if line["kind"] == "pool":
            known = {name: line.get(name) for name in definition()}
            if known != json.loads(json.dumps(definition())):
                raise UserError(f"the pool in '{path}' was made otherwise than this benchmark makes it; give --out")
        elif line["kind"] == "trial":
            trials[line["number"]] = line
    return [trials[number] for number in sorted(trials)]


def fill_pool(material: Material, path: Path, count: int = POOL) -> list[dict[str, Any]]:
    """Runs what is missing of the pool; each trial is kept as it ends."""
    done = {trial["number"] for trial in read_pool(path)}
    record = Record(path)
    if not any(line["kind"] == "pool" for line in read_record(path)):
        record.write("pool", **definition())
    try:
        for number in range(count):
            if number not in done:
                line = full_trial(material, number, path.parent / f"at-{number}")
                record.write("trial", **line)
                shown = "pruned" if line["judged"] is None else f"{line['scores'][-1]:.4f} judged {line['judged']:.4f}"
                print(f"pool {number + 1}/{count}: {shown} in {line['seconds']:.1f} s  {line['settings']}", flush=True)
    finally:
        record.close()
    return read_pool(path)


def full_trial(material: Material, number: int, folder: Path) -> dict[str, Any]:
    """One random trial of full length, scored at each of LOOKS; judged where it was not broken off."""
    shutil.rmtree(folder, ignore_errors=True)
    runner = TrialRunner(material, folder, lambda kind, **fields: None)
    settings = settings_of("random", SPACE, seed=POOL_SEED, number=number)
    trials: list[Trial] = []
    for place, epochs in enumerate(LOOKS):
        trials.append(runner(Task(place, "full", settings, epochs, place, place - 1 if place else None)))
        if trials[-1].state != "finished":
            break
    finished = trials[-1].state == "finished"
    judged = judge(material, settings, runner.checkpoint(len(LOOKS) - 1)) if finished else None
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "number": number,
        "settings": settings,
        "state": trials[-1].state,
        "scores": [trial.score for trial in trials],
        "losses": [trial.loss for trial in trials],
        "judged": judged,
        "images": sum(trial.images for trial in trials),
        "seconds": round(sum(trial.seconds for trial in trials), 2),
    }


def training_speed(material: Material) -> float:
    """Training images a second of processor time, one thread, evaluation apart: the quickest of five trainings."""
    few = replace(material.data.split, validation=material.data.split.validation[:100])
    material = replace(material, data=replace(material.data, split=few))
    folder = default_folder() / "speed"
    runner = TrialRunner(material, folder, lambda kind, **fields: None, keep=lambda task: False)
    speeds = []
    for number in range(5):
        begun = time.process_time()
        trial = runner(Task(number, "full", {"lr": 0.03, "batch_size": 256}, 1.0))
        speeds.append(trial.images / (time.process_time() - begun))
    shutil.rmtree(folder, ignore_errors=True)
    return max(speeds)

"""The search as it is taught: a two-layer net on CIFAR-10, coarse over decades, then fine (SPEC S2-S6).

Fifty hidden units on mean-subtracted pixels of 0 to 255, momentum 0.9, batches of 100, no decay of the rate; 45,000
training and 5,000 validation images. Learning rate 10^U(-6, -3), strength of ½·reg·Σw² 10^U(-5, 5). A trial is broken
off where its loss rises above three times the first. The best of the fine stage is trained on with a decaying rate,
and read on the 10,000 test images once.

Then a space whose best rates lie outside of it, 10^U(-6.5, -4.7), with shorter runs: the edge is noticed and widened.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/taught_search.py [story ...] [--seed 0] [--epochs 300] [--out FOLDER]

Stories: taught, edge. Each trial is kept as it ends, so that the benchmark can be interrupted and started again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from kept_trials import KeptTrials, follow

from wellfit.data.audit import audit
from wellfit.data.inspect import inspect
from wellfit.data.preprocess import fit_preprocessing
from wellfit.data.sources import open_source
from wellfit.data.sources.cache import cache_folder
from wellfit.data.split import Split
from wellfit.data.store import build_store
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.findings import Finding
from wellfit.randomness import generator
from wellfit.recipe.machine import machine
from wellfit.recipe.material import Material
from wellfit.recipe.plan import ChecksPlan, ModelPlan, OptimizerPlan, Plan, SearchPlan, TrainingPlan
from wellfit.recipe.prepare import Prepared
from wellfit.search.kinds import LogUniform
from wellfit.search.rounds import Round
from wellfit.search.schedule import Schedule
from wellfit.search.space import Space, ranges
from wellfit.search.stages import in_words
from wellfit.search.trial import Task, Trial

VALIDATION = 5_000
LONGEST = 10.0  # epochs of a trial
REACHED = 0.47
TAUGHT: Space = {"lr": LogUniform(1e-6, 1e-3), "weight_decay": LogUniform(1e-5, 1e5)}
TOO_LOW: Space = {"lr": LogUniform(10**-6.5, 10**-4.7), "weight_decay": LogUniform(1e-5, 1e5)}
EDGE_LONGEST, EDGE_EPOCHS = 6.0, 48.0

PLAN = Plan(
    seed=0,
    metric="accuracy",
    loss="cross-entropy",
    schedule="constant",
    augment=(),
    reasons=("made for benchmarks/taught_search.py",),
    model=ModelPlan("two_layer", "none", 32, 32, "none", 154_160, {"hidden": 50, "std": 1e-4}),
    optimizer=OptimizerPlan("momentum", 1e-4, 0.0),
    engine=Engine("cpu", "float32", "contiguous", 1),
    checks=ChecksPlan(100, 20),
    search=SearchPlan(),
    training=TrainingPlan(steps=4_500, batch_size=100, steps_per_epoch=450, evaluate_every=450),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stories", nargs="*", metavar="story", help=f"of {', '.join(STORIES)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=300.0, help="that all trials of the taught story may train")
    parser.add_argument("--out", type=Path, default=cache_folder() / "benchmarks" / "taught-search")
    arguments = parser.parse_args()
    for story in arguments.stories:
        if story not in STORIES:
            parser.error(f"a story is one of {', '.join(STORIES)}, got '{story}'")
    print(machine(), flush=True)
    material = cifar_material()
    for story in arguments.stories or STORIES:
        print(f"\n{story}", flush=True)
        STORIES[story](material, arguments)


def cifar_material() -> Material:
    """45,000 / 5,000 / 10,000 images of 32×32, their pixels 0 to 255 less the training images' mean colour."""
    root = os.environ.get("WELLFIT_TEST_DATA")
    if not root:
        raise UserError("the data is found through WELLFIT_TEST_DATA, which is not set; set it to the folder of data/")
    source = open_source(Path(root) / "data" / "cifar10-jpg.tar.gz")
    is_test = np.array(source.splits) == "test"
    order = generator(0, "taught search").permutation(np.flatnonzero(~is_test))
    inspection = inspect(source)
    store = build_store(source, inspection, np.arange(len(is_test)), short_side=32)
    classes = sorted(set(source.labels))
    targets = np.searchsorted(classes, source.labels).astype(np.int64)
    split = Split(np.sort(order[VALIDATION:]), np.sort(order[:VALIDATION]), np.flatnonzero(is_test), classes, targets)
    return with_raw_pixels(Prepared(source, inspection, store, audit(source, inspection, store), split))


def with_raw_pixels(data: Prepared) -> Material:
    found = fit_preprocessing(store := data.store, store.row_of[data.split.train], size=32)
    return Material(data, PLAN, replace(found, std=(1 / 255,) * 3, method="mean-channel"))


def taught(material: Material, arguments: argparse.Namespace) -> None:
    runs = KeptTrials(material, arguments.out / f"taught-{arguments.seed}-{arguments.epochs:g}")
    schedule = Schedule.plan(TAUGHT, seed=arguments.seed, longest=LONGEST, budget_epochs=arguments.epochs)
    trials, ended = follow(schedule, runs.run, opened)
    print(f"ended: {ended.reason}")
    for stage in dict.fromkeys(trial.stage for trial in trials):
        print(in_short(stage, [trial for trial in trials if trial.stage == stage]))
    best = ended.best
    if best is None:
        raise UserError(f"no trial finished: {ended.reason}")
    runs.close()
    fine = max(trial.score for trial in trials if trial.score is not None and trial.stage != "coarse")
    print(f"chosen: {in_words(best.settings)}: {best.score:.4f} on validation after {best.epochs:.3g} epochs")
    trained = KeptTrials(material, runs.folder / "trained", rate="exponential")
    trial = trained.run(Task(0, "full", best.settings, 2 * LONGEST))
    print(
        f"trained with these settings, {2 * LONGEST:g} epochs, the rate falling to 1/100: validation {trial.score}, "
        f"test {trained.judged(trial):.4f}"
    )
    trained.close()
    print(f"aimed at: {REACHED} on validation in the fine stage: {'reached' if fine >= REACHED else 'MISSED'}")


def edge(material: Material, arguments: argparse.Namespace) -> None:
    runs = KeptTrials(material, arguments.out / f"edge-{arguments.seed}")
    schedule = Schedule.plan(TOO_LOW, seed=arguments.seed, longest=EDGE_LONGEST, budget_epochs=EDGE_EPOCHS)
    seen: list[Finding] = []

    def noted(step: Round) -> None:
        opened(step)
        seen.extend(step.findings)

    trials, ended = follow(schedule, runs.run, noted)
    runs.close()
    for stage in dict.fromkeys(trial.stage for trial in trials):
        print(in_short(stage, [trial for trial in trials if trial.stage == stage]))
    fired = [found for found in seen if found.id == "best-at-edge" and found.evidence["setting"] == "lr"]
    outside = ended.best is not None and ended.best.settings["lr"] > 10**-4.7
    print(f"ended: {ended.reason}")
    if ended.best is not None:
        print(f"chosen: {in_words(ended.best.settings)}: {ended.best.score:.4f} on validation")
    print(f"aimed at: best-at-edge fires for lr and is widened: {'reached' if fired and outside else 'MISSED'}")


STORIES = {"taught": taught, "edge": edge}


def opened(step: Round) -> None:
    print(f"{step.stage}, rung {step.rung}: {len(step.tasks)} trials up to {step.tasks[0].epochs:.3g} epochs")
    print(f"  {step.reason}\n  ranges {ranges(step.space)}", flush=True)
    for finding in step.findings:
        print(f"  {finding.id}: {finding.message}. {finding.action}", flush=True)


def in_short(stage: str, trials: Sequence[Trial]) -> str:
    """What came of a stage, in a line."""
    finished = [trial for trial in trials if trial.score is not None]
    begun = [trial for trial in trials if trial.continues is None]
    pruned = sum(trial.state == "pruned" for trial in trials)
    images, seconds = sum(trial.images for trial in trials), sum(trial.seconds for trial in trials)
    counts = f"{len(begun)} settings in {len(trials)} trials, {pruned} broken off"
    said = f"{stage}: {counts}, {images:,} images, {seconds:.0f} s"
    if not finished:
        return said
    best = max(finished, key=lambda trial: trial.score or 0.0)
    return f"{said}; best {best.score:.4f} after {best.epochs:.3g} epochs with {in_words(best.settings)}"


if __name__ == "__main__":
    main()

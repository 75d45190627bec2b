"""What ensembles bring on CIFAR-10: independent seeds, snapshots of one cyclic run, averaged weights (SPEC E1-E3).

All networks are wellfit's small default net, trained on the same images; the test images are answered once by each
network, and every combination is made of these answers. A round is 3 networks from seeds of their own, one run of
`--cycles` cosine cycles with a snapshot at the end of each, and one run as long in a single cycle. Each cycle is 0.7
times as long as the one before and begins at three times the usual rate: the first has to learn what the others only
have to leave and find again.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/ensembles.py [--images 5000] [--rounds 3] [--out runs/ensembles]

Each training is kept under --out: a killed run goes on from the last checkpoint, and `--show` prints what there is.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wellfit.data.batches import EvaluationBatches, TrainingBatches
from wellfit.data.inspect import inspect
from wellfit.data.preprocess import Preprocessing, fit_preprocessing
from wellfit.data.sources import open_source
from wellfit.data.store import PixelStore, build_store
from wellfit.engine import Engine
from wellfit.inference.evaluate import logits_of
from wellfit.inference.selection import greedy, mean_answers
from wellfit.models.zoo import construct
from wellfit.randomness import generator
from wellfit.training.averaging import WeightAverage, recompute_batchnorm
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint
from wellfit.training.loop import train
from wellfit.training.optimizers import build_optimizer
from wellfit.training.pace import Pace
from wellfit.training.regularize import build_criterion
from wellfit.training.schedules import Schedule, schedule, snapshot_points

WIDTHS, BATCH, RATE, DECAY = [16, 32, 64], 128, 6e-3, 0.05
CYCLE_RATE, GROWTH = 2e-2, 0.7
MEMBERS = 3
HELD_OUT = 2000  # training images that no network is trained on, for choosing among networks
REDONE = 2000  # training images that BatchNorm's statistics of averaged weights are measured on
ENGINE = Engine("cpu", "bfloat16", "channels_last", 1)


@dataclass
class Images:
    """Rows of one store: to train on, to choose by, to judge on."""

    store: PixelStore
    targets: np.ndarray
    train: np.ndarray
    chosen_by: np.ndarray
    test: np.ndarray
    preprocessing: Preprocessing

    def evaluation(self, rows: np.ndarray) -> EvaluationBatches:
        return EvaluationBatches(self.store, rows, self.targets[rows], self.preprocessing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000, help="training images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12, help="of each of the three networks")
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--cyclic-epochs", type=int, default=40, help="of the whole cyclic run")
    parser.add_argument("--out", type=Path, default=Path("runs/ensembles"))
    parser.add_argument("--show", action="store_true", help="train nothing, print what is there")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.show:
        images = read_images(given.images)
        labels = {"test": images.targets[images.test], "chosen_by": images.targets[images.chosen_by]}
        np.savez(given.out / "targets.npz", **labels)
        for round_ in range(given.rounds):
            for member in range(MEMBERS):
                seed = 100 * round_ + member
                fit(images, f"seed-{seed}", seed, RATE, schedule("one_cycle"), given.epochs, given.out)
            seed = 100 * round_ + 50
            cyclic = schedule("cyclic", cycles=given.cycles, growth=GROWTH)
            fit(images, f"cycles-{seed}", seed, CYCLE_RATE, cyclic, given.cyclic_epochs, given.out)
            show(given.out, round_ + 1)
        for round_ in range(given.rounds):
            seed = 100 * round_ + 50
            fit(images, f"long-{seed}", seed, RATE, schedule("one_cycle"), given.cyclic_epochs, given.out)
    show(given.out, given.rounds)


def read_images(count: int) -> Images:
    """`count` training images, class by class alike, HELD_OUT others, and the whole test split."""
    source = open_source(Path(os.environ["WELLFIT_TEST_DATA"]) / "data" / "cifar10-jpg.tar.gz")
    inspection = inspect(source)
    tests = np.array([i for i, split in enumerate(source.splits) if split == "test"])
    others = np.setdiff1d(np.arange(len(source.labels)), tests)
    some = others[generator(0, "images").permutation(len(others))[: count + HELD_OUT]]
    indices = np.concatenate([some, tests])
    store = build_store(source, inspection, indices, short_side=32)
    classes = sorted(set(source.labels))
    targets = np.array([classes.index(source.labels[i]) for i in indices])
    rows = np.arange(len(indices))
    preprocessing = fit_preprocessing(store, rows[:count], size=32, resize=32)
    return Images(store, targets, rows[:count], rows[count : count + HELD_OUT], rows[count + HELD_OUT :], preprocessing)


def fit(images: Images, name: str, seed: int, rate: float, plan: Schedule, epochs: int, out: Path) -> None:
    """Train one network and keep its answers: at each snapshot, of the average of its weights, of the snapshots'."""
    answers_file = out / f"{name}.npz"
    if answers_file.exists():
        return
    batches = TrainingBatches(
        images.store,
        images.train,
        images.targets[images.train],
        images.preprocessing,
        batch_size=BATCH,
        augment=("flip", "crop"),
        seed=seed,
        classes=10,
    )
    ENGINE.activate()
    module = construct("whitened", 10, image_size=32, widths=WIDTHS, seed=seed)
    inputs = images.evaluation(images.train[: 2 * REDONE])
    module.initialise_from_data(torch.cat([images.preprocessing.normalise(b.images) for b in inputs])[:REDONE])
    module = ENGINE.place(module)
    average = WeightAverage(module, 0.995, ramp=True)

    def keep(point: float, net: nn.Module) -> None:
        save_checkpoint(out / f"{name}-{point:.3f}.snapshot", dict(net.state_dict()))
        if point == 1.0:
            with average.applied_to(net):
                save_checkpoint(out / f"{name}-average.snapshot", dict(net.state_dict()))

    outcome = train(
        module,
        batches,
        build_criterion("cross-entropy", label_smoothing=0.1),
        build_optimizer("adamw", module, lr=rate, weight_decay=DECAY),
        engine=ENGINE,
        preprocessing=images.preprocessing,
        schedule=plan,
        pace=Pace(epochs * batches.steps_per_epoch),
        average=average,
        snapshots=snapshot_points(plan),
        on_snapshot=keep,
        checkpoint=out / f"{name}.safetensors",
    )
    answers: dict[str, np.ndarray] = {}
    states = [load_checkpoint(out / f"{name}-{point:.3f}.snapshot") or {} for point in snapshot_points(plan)]
    for point, state in zip(snapshot_points(plan), states, strict=True):
        module.load_state_dict(state)
        answers |= judged(images, module, f"{point:.3f}")
    module.load_state_dict(load_checkpoint(out / f"{name}-average.snapshot") or {})
    answers |= judged(images, module, "average")
    if len(states) > 1:
        kinds = {key: value.dtype for key, value in states[0].items()}
        mean = {key: torch.stack([state[key].float() for state in states]).mean(0).to(kinds[key]) for key in kinds}
        module.load_state_dict(mean)
        redone = images.evaluation(images.train[:REDONE])
        recompute_batchnorm(module, (ENGINE.inputs(b.images, images.preprocessing) for b in redone), ENGINE.autocast)
        answers |= judged(images, module, "mean of snapshots")
    np.savez_compressed(answers_file, **answers)
    for file in out.glob(f"{name}-*.snapshot"):
        file.unlink()
    (out / f"{name}.safetensors").unlink(missing_ok=True)
    print(f"{name}: {outcome.epochs:.0f} epochs in {outcome.seconds:.0f} s", flush=True)


def judged(images: Images, module: nn.Module, name: str) -> dict[str, np.ndarray]:
    """Logits on the test images and on those that are chosen by."""
    answers = {}
    for split, rows in (("test", images.test), ("chosen_by", images.chosen_by)):
        logits = logits_of(module, images.evaluation(rows), ENGINE, images.preprocessing)
        answers[f"{split}/{name}"] = logits.astype(np.float32)
    return answers


def show(out: Path, rounds: int) -> None:
    """Print accuracies and gains in points: mean and spread over the rounds, and each round's."""
    targets = np.load(out / "targets.npz")

    def accuracy(*logits: np.ndarray, shares: Sequence[float] | None = None) -> float:
        mean = mean_answers(logits, shares if shares is not None else [1.0] * len(logits))
        return 100 * float((mean.argmax(1) == targets["test"]).mean())

    table: dict[str, list[float]] = {}
    for round_ in range(rounds):
        files = [out / f"seed-{100 * round_ + member}.npz" for member in range(MEMBERS)]
        cyclic, long = (out / f"{name}-{100 * round_ + 50}.npz" for name in ("cycles", "long"))
        row: dict[str, float] = {}
        if all(file.exists() for file in files):
            for what, key in (("", "1.000"), (", averaged weights", "average")):
                each = [np.load(file)[f"test/{key}"] for file in files]
                row[f"mean of 3 networks{what}"] = float(np.mean([accuracy(one) for one in each]))
                row[f"ensemble of the 3{what}"] = accuracy(*each)
                row[f"  gain{what}"] = row[f"ensemble of the 3{what}"] - row[f"mean of 3 networks{what}"]
        if cyclic.exists():
            run = np.load(cyclic)
            points = sorted(name.removeprefix("test/") for name in run.files if name.startswith(("test/0", "test/1")))
            taken = [run[f"test/{point}"] for point in points]
            last = accuracy(taken[-1])
            chosen = greedy([run[f"chosen_by/{point}"] for point in points], targets["chosen_by"], "accuracy")
            row["last model of the cyclic run"] = last
            row["its last 3 snapshots"] = accuracy(*taken[-3:])
            row["  gain of the last 3"] = row["its last 3 snapshots"] - last
            row["snapshots chosen greedily"] = accuracy(*taken, shares=list(chosen.weights))
            row["  gain of the chosen"] = row["snapshots chosen greedily"] - last
            row["mean of its snapshots' weights"] = accuracy(run["test/mean of snapshots"])
            row["average of its weights"] = accuracy(run["test/average"])
        if long.exists():
            row["one cycle of the same length"] = accuracy(np.load(long)["test/1.000"])
        for name, value in row.items():
            table.setdefault(name, []).append(value)
    for name, values in table.items():
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        listed = "  ".join(f"{value:6.2f}" for value in values)
        print(f"{name:<36} {np.mean(values):6.2f}{spread}   ({listed})")
    print(flush=True)


if __name__ == "__main__":
    main()

"""What the transfer policy loses against the best of its strategies run in full (SPEC T4).

A ResNet-20 with published CIFAR-10 weights on Fashion-MNIST, with 50, 500 and 5,000 training images (15% of them held
out as validation, or five folds below 500). Every strategy is run in full and judged on the same test images; the
policy sees validation alone. Regret, in points: the best strategy's test accuracy less that of what the policy hands
over, which is the strategy that validation put first (its pick, printed too) or, where validation gains beyond doubt,
the mean of those that it tried.

What the strategies have in common is done once: the pass of the frozen network over the images, and the linear fit that
both fine-tunings start from. Every training is run by itself. The processor seconds of each part are printed too.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/transfer.py [--draws 10] [--images 50 500 5000] [--out runs/transfer]

Draws are disjoint. Finished ones are kept in OUT/results.jsonl and not run again; `--show` prints what there is.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.config import Config
from wellfit.data.audit import audit
from wellfit.data.inspect import inspect
from wellfit.data.sources import open_source
from wellfit.data.split import Split
from wellfit.data.store import build_store
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.models.zoo import build
from wellfit.randomness import generator
from wellfit.recipe.budget import Budget
from wellfit.recipe.fitting import Fitted, fine_tune, train_network
from wellfit.recipe.job import Job
from wellfit.recipe.machine import machine
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.plan import ChecksPlan, ModelPlan, OptimizerPlan, Plan, ScratchPlan, SearchPlan, TrainingPlan
from wellfit.recipe.planning import compared_images, usual_rates
from wellfit.recipe.prepare import Prepared
from wellfit.recipe.probing import linear, probe
from wellfit.recipe.transfer_ensemble import Tried, join_tried
from wellfit.recipe.transferring import best_of, choose_strategy, fine_tuning_settings
from wellfit.record import Record, RunFolder
from wellfit.transfer.policy import ALL, EARLIER, PROBE, SCRATCH, STRATEGIES, TOP

MOST = 5500  # images that a draw may use
JUDGES = 2000  # test images that every strategy is judged on
SIZE = 28
WEIGHTS = "resnet20-12fca82f.th"
# Images: batch size, epochs of fine-tuning, epochs of the small net from scratch.
LENGTHS = {50: (8, 40.0, 100.0), 500: (16, 20.0, 40.0), 5000: (64, 5.0, 12.0)}
WIDTHS = [16, 32, 64]
AIMS = {50: 4.0, 500: 2.0, 5000: 1.0}


class Images:
    """Fashion-MNIST once: all training images and the judges in one store."""

    def __init__(self) -> None:
        root = os.environ.get("WELLFIT_TEST_DATA")
        if not root:
            raise UserError("the data is found through WELLFIT_TEST_DATA, which is not set; set it to that folder")
        self.weights = Path(root) / "weights" / WEIGHTS
        self.source = open_source(Path(root) / "data" / "fashion-mnist")
        sealed = np.array(self.source.splits) == "test"
        self.order = generator(0, "transfer draws").permutation(np.flatnonzero(~sealed))
        self.judges = np.sort(generator(0, "transfer judges").permutation(np.flatnonzero(sealed))[:JUDGES])
        self.inspection = inspect(self.source)

    def draw(self, draw: int, images: int) -> Prepared:
        """The first `images` of a draw's own; the judges stand in the test split, which no strategy sees."""
        own = self.order[draw * MOST : draw * MOST + images]
        if len(own) < images:
            raise UserError(f"there are {len(self.order) // MOST} disjoint draws, and draw {draw + 1} was asked for")
        own, held_out = np.sort(own), round(0.15 * images)
        store = build_store(self.source, self.inspection, np.sort(np.concatenate([own, self.judges])), short_side=SIZE)
        mixed = generator(draw, "transfer split").permutation(own)
        validation, train = np.sort(mixed[:held_out]), np.sort(mixed[held_out:])
        classes = sorted(set(self.source.labels))
        number = {name: i for i, name in enumerate(classes)}
        targets = np.array([number[label] for label in self.source.labels], dtype=np.int64)
        folds = [np.sort(mixed[fold::5]) for fold in range(5)] if images < 500 else None
        split = Split(train, validation, self.judges, classes, targets, folds)
        return Prepared(self.source, self.inspection, store, audit(self.source, self.inspection, store), split)


def plan_of(images: int, seed: int, weights: Path) -> Plan:
    """The plan that all strategies of a size share."""
    batch, tuning, scratch = LENGTHS[images]
    per_epoch = max(1, (images - round(0.15 * images)) // batch)
    tuned = build("resnet20", 10, image_size=SIZE).module
    small = build("whitened", 10, image_size=SIZE, widths=WIDTHS).module
    lr, decay = usual_rates("adamw", tuned, batch, transfer=True)
    small_lr, small_decay = usual_rates("adamw", small, batch, transfer=False)
    steps = max(1, round(tuning * per_epoch))
    net = ScratchPlan("whitened", SIZE, SIZE, 0, small_lr, small_decay, {"widths": WIDTHS})
    return Plan(
        seed=seed,
        metric="accuracy",
        loss="cross-entropy",
        schedule="one_cycle",
        augment=("flip", "crop"),
        reasons=("made for benchmarks/transfer.py",),
        model=ModelPlan("resnet20", str(weights), SIZE, SIZE, "probe", 0, {}),
        optimizer=OptimizerPlan("adamw", lr, decay),
        engine=Engine("cpu", "bfloat16", "channels_last", 1),
        checks=ChecksPlan(),
        search=SearchPlan(),
        training=TrainingPlan(steps, batch, per_epoch, max(1, steps // 4)),
        scratch=replace(net, steps=max(1, round(scratch * per_epoch))),
        compared=replace(net, steps=math.ceil(compared_images(images) / batch)),
    )


def run(data: Images, draw: int, images: int, folder: Path) -> dict[str, Any]:
    """All strategies on one draw: validation and test accuracy of each, and what the policy hands over."""
    shutil.rmtree(folder, ignore_errors=True)
    place = RunFolder(folder)
    folder.mkdir(parents=True)
    clock = Clock()
    job = Job(None, Config(seed=draw), place, Record(place.record), Budget(None, time.monotonic()))
    try:
        material = Material.of(data.draw(draw, images), plan_of(images, draw, data.weights))
        clock("data")
        looked = probe(job, material)
        clock("probe")
        decision = choose_strategy(job, looked)
        clock("policy")
        layers = looked.features.layers
        found = {PROBE: looked.best_at(layers[-1:]), EARLIER: looked.best_at(layers[:-1])}
        fitted = {name: linear(looked, result) for name, result in found.items()}
        settings = fine_tuning_settings(job, material, decision)
        fitted_head = linear(looked, looked.best_at(layers[-1:]), unseen_validation=True)
        clock("linear")
        for strategy in (TOP, ALL):
            start = replace(fitted_head, module=copy.deepcopy(fitted_head.module))
            shutil.rmtree(place.checkpoint.parent, ignore_errors=True)  # the other's: not to be gone on from
            tuned = fine_tune(job, material, settings, start, -math.inf, top=strategy == TOP)
            assert tuned is not None
            fitted[strategy] = tuned
            clock(strategy)
        small = material.from_scratch()
        scratch = train_network(job, small, Settings.of(small.plan))
        fitted[SCRATCH] = replace(scratch, on_validation=scratch.score)
        clock(SCRATCH)
        tried = [
            Tried(name, small if name == SCRATCH else material, fitted[name], found.get(name))
            for name in decision.strategies
        ]
        best = best_of(tried)
        handed = judged(*join_tried(job, looked, tried, best))
        clock("join")
        tests = {name: judged(small if name == SCRATCH else material, one) for name, one in fitted.items()}
        clock("tests")
    finally:
        job.record.close()
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "images": images,
        "draw": draw,
        "chosen": best.strategy,
        "handed": handed,
        "strategies": list(decision.strategies),
        "cell": list(decision.cell),
        "validation": {name: one.on_validation for name, one in fitted.items()},
        "test": tests,
        "seconds": round(sum(clock.parts.values()), 1),
        "parts": clock.parts,
    }


class Clock:
    """Processor seconds since the call before, by the part that they went to."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.last = time.process_time()

    def __call__(self, part: str) -> None:
        now = time.process_time()
        self.parts[part], self.last = round(now - self.last, 1), now


def judged(material: Material, fitted: Fitted) -> float:
    module = material.plan.engine.place(fitted.module)
    return material.score_on(material.data.split.test)(module)[0]


def table(rows: list[dict[str, Any]]) -> str:
    """Mean regret and its standard error in points, of the policy and of each strategy if it were always taken."""
    lines = [
        f"{'images':>8} {'draws':>5}  " + "  ".join(f"{n:>12}" for n in ("policy", "its pick", *STRATEGIES)) + "   aim"
    ]
    sizes = sorted({row["images"] for row in rows})
    means: dict[str, list[float]] = {}
    for images in sizes:
        own = [row for row in rows if row["images"] == images]
        cells = []
        for name in ("policy", "its pick", *STRATEGIES):
            taken = [_accuracy(row, name) for row in own]
            regrets = 100 * np.array([max(row["test"].values()) - one for row, one in zip(own, taken, strict=True)])
            error = regrets.std(ddof=1) / math.sqrt(len(own)) if len(own) > 1 else math.nan
            means.setdefault(name, []).append(float(regrets.mean()))
            cells.append(f"{regrets.mean():>5.2f} ± {error:.2f}")
        aim = f"{AIMS[images]:g}" if images in AIMS else "-"
        lines.append(f"{images:>8,} {len(own):>5}  " + "  ".join(f"{cell:>12}" for cell in cells) + f"   {aim:>3}")
    lines.append(f"{'all':>8} {'':>5}  " + "  ".join(f"{np.mean(values):>12.2f}" for values in means.values()))
    lines.append("")
    lines.append("mean test accuracy, and how often the policy chose it")
    for images in sizes:
        own = [row for row in rows if row["images"] == images]
        said = [
            f"{name} {np.mean([row['test'][name] for row in own]):.4f} ({sum(row['chosen'] == name for row in own)}×)"
            for name in STRATEGIES
        ]
        taken = np.mean([_accuracy(row, "policy") for row in own])
        lines.append(f"{images:>8,}  policy {taken:.4f}  " + "  ".join(said))
    timed = [(images, [row["parts"] for row in rows if row["images"] == images and "parts" in row]) for images in sizes]
    if any(parts for _, parts in timed):
        lines += ["", "processor seconds of a draw, by part"]
    for images, parts in timed:
        if parts:
            means_of = {name: np.mean([one[name] for one in parts]) for name in parts[0]}
            said = [f"{name} {seconds:.1f}" for name, seconds in means_of.items()]
            lines.append(f"{images:>8,}  {sum(means_of.values()):.1f}: " + ", ".join(said))
    return "\n".join(lines)


def _accuracy(row: dict[str, Any], name: str) -> float:
    """Test accuracy of a strategy, of the one that the policy picked, or of what it handed over."""
    return row["handed"] if name == "policy" else row["test"][row["chosen"] if name == "its pick" else name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--images", type=int, nargs="+", default=list(LENGTHS), choices=list(LENGTHS))
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--show", action="store_true", help="run nothing, print what there is")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    results = given.out / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    known = {(row["images"], row["draw"]) for row in rows}
    wanted = [(images, draw) for draw in range(given.first, given.first + given.draws) for images in given.images]
    missing = [] if given.show else [pair for pair in wanted if pair not in known]
    data = Images() if missing else None
    for images, draw in missing:
        assert data is not None
        row = run(data, draw, images, given.out / f"work-{images}-{draw}")
        rows.append(row)
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
    if rows:
        print(f"{machine()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()

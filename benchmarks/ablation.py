"""What each part of `fit` is worth: averages, snapshots, an ensemble, views, and on photographs pretrained weights.

Three data sets: the built-in digits, 6,000 images of Fashion-MNIST, the photographs of ants and bees. Each part is
measured on the same trained networks, with and without it, on the validation images that decide about it and on the
test images that do not; the seconds are those that the part took. On ants and bees the parts are the strategies of
transfer, and a small net from random weights beside them.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/ablation.py [--seeds 3] [--epochs 12] [--out runs/ablation] [--show]

Every (data set, seed) is one file under --out: a killed run goes on after the last one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.config import Config
from wellfit.data.batches import EvaluationBatches
from wellfit.data.sources import open_source
from wellfit.inference.views import VIEWS, answers_of
from wellfit.recipe.budget import Budget
from wellfit.recipe.combining import combine
from wellfit.recipe.done import done_lines
from wellfit.recipe.fitting import Fitted, train_network
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.plan import EndingPlan, Plan
from wellfit.recipe.planning import make_plan
from wellfit.recipe.prepare import prepare
from wellfit.recipe.testing import open_test_split
from wellfit.recipe.transferring import transfer
from wellfit.recipe.viewing import choose_views
from wellfit.record import Record, RunFolder, read_record

FASHION = 6000
LATE = (0.7, 0.8, 0.9, 1.0)
MEMBERS = 3
SECONDS = 60.0  # what the plan is made for
STRATEGIES = ("probe", "earlier", "all", "auto")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12, help="of each network on digits and Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--show", action="store_true", help="run nothing, print what is there")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.show:
        root = Path(os.environ["WELLFIT_TEST_DATA"])
        os.environ.setdefault("TORCH_HOME", str(root / "weights"))
        for seed in range(given.seeds):
            for name in ("digits", "fashion-mnist", "ants-bees"):
                file = given.out / f"{name}-{seed}.json"
                if not file.exists():
                    rows = (
                        photographs(root, seed, given.out)
                        if name == "ants-bees"
                        else small_images(name, root, seed, given.epochs, given.out)
                    )
                    file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
                    print(name, seed, "done", flush=True)
    show(given.out)


def opened_job(data: Any, seed: int, out: Path) -> Job:
    folder = RunFolder(out / "job")
    shutil.rmtree(folder.path, ignore_errors=True)
    config = Config(seed=seed).replace(**{"engine.threads": 1})
    return Job(data, config, folder, Record(folder.record), Budget(None, time.monotonic()), force=True)


def small_images(name: str, root: Path, seed: int, epochs: int, out: Path) -> list[dict[str, Any]]:
    """One network trained plainly; then, one part at a time, what it becomes."""
    job = opened_job("digits" if name == "digits" else fashion(root), seed, out)
    data = prepare(job)
    plan = make_plan(job, data, left=SECONDS)
    steps = epochs * plan.training.steps_per_epoch
    training = replace(plan.training, steps=steps, evaluate_every=plan.training.steps_per_epoch)
    full = EndingPlan(MEMBERS, LATE, ())
    material = Material.of(data, plan.replace(training=training, ending=full))
    begun = time.monotonic()
    fitted = train_network(job, material, Settings.of(plan))
    plain = next(kept for kept in fitted.kept if kept.name == "snapshot at 100%")
    rows: list[dict[str, Any]] = []
    start = replace(fitted, kept=[])
    start.module.load_state_dict(plain.weights())
    rows.append(judged(material, start, "last weights", time.monotonic() - begun))
    start.module.load_state_dict(fitted.kept[0].weights())
    rows.append(judged(material, start, "best on validation", 0.0))
    parts = {
        "averages": (EndingPlan(1, ()), ("best", "average")),
        "snapshots": (EndingPlan(1, LATE), ("best", "average", "snapshot")),
        "ensemble of 3 seeds": (full, ("best", "average", "snapshot")),
    }
    for part, (ending, kinds) in parts.items():
        begun = time.monotonic()
        fitted.module.load_state_dict(fitted.kept[0].weights())
        taken = replace(fitted, kept=[kept for kept in fitted.kept if kept.kind in kinds])
        after = combine(job, replace(material, plan=material.plan.replace(ending=ending)), taken)
        rows.append(judged(material, after, f"with {part}", time.monotonic() - begun))
    mirrored = "flip" in plan.augment
    names = tuple(view for view in VIEWS if view not in ("none", "all") and (mirrored or not VIEWS[view].mirrored))
    for before, what in ((start, "with views"), (after, "with all of it")):
        begun = time.monotonic()
        start.module.load_state_dict(fitted.kept[0].weights())
        viewed = choose_views(job, with_views(material, names), before)
        rows.append(judged(material, viewed, what, time.monotonic() - begun, viewed.views))
    job.record.close()
    return rows


def with_views(material: Material, names: tuple[str, ...]) -> Material:
    return replace(material, plan=material.plan.replace(ending=EndingPlan(1, (), names)))


def photographs(root: Path, seed: int, out: Path) -> list[dict[str, Any]]:
    """The strategies of transfer, each as if it were asked for; the policy's own choice; a small net from scratch."""
    rows = []
    for strategy in STRATEGIES:
        job = opened_job(root / "data" / "ants-bees.tar", seed, out)
        data = prepare(job)
        plan = make_plan(job, data, left=SECONDS)
        training = replace(plan.training, steps=4 * plan.training.steps_per_epoch if strategy == "all" else 0)
        material = Material.of(data, plan.replace(transfer_strategy=strategy, training=training))
        begun = time.monotonic()
        material, fitted = transfer(job, material)
        rows.append(judged(material, fitted, f"transfer: {strategy}", time.monotonic() - begun))
        for line in done_lines(read_record(job.folder.record)):
            if line["name"] in ("probe", "policy", "fine-tune"):
                rows[-1].setdefault("parts", []).append(line)
        job.record.close()
    job = opened_job(root / "data" / "ants-bees.tar", seed, out)
    job.config = job.config.replace(**{"model.weights": "none"})
    data = prepare(job)
    plan: Plan = make_plan(job, data, left=SECONDS)
    begun = time.monotonic()
    material = Material.of(data, plan)
    fitted = train_network(job, material, Settings.of(plan))
    rows.append(judged(material, fitted, "from random weights", time.monotonic() - begun))
    job.record.close()
    return rows


def fashion(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """FASHION images of the training file, drawn class by class as they come."""
    source = open_source(root / "data" / "fashion-mnist")
    rows = np.array([i for i, split in enumerate(source.splits) if split != "test"])
    some = np.sort(np.random.default_rng(0).permutation(rows)[:FASHION])
    return np.stack([np.asarray(source.reader.read(int(i))) for i in some]), np.array([source.labels[i] for i in some])


def judged(material: Material, fitted: Fitted, part: str, seconds: float, views: str = "none") -> dict[str, Any]:
    """A row: accuracy on validation and on test images, and seconds."""
    data, plan = material.data, material.plan
    accuracy = {}
    store = open_test_split(material)
    for split, indices, pixels in (("validation", data.split.validation, data.store), ("test", data.split.test, store)):
        rows = pixels.row_of[indices]
        usable = rows >= 0
        rows, targets = rows[usable], data.targets(indices[usable])
        batches = EvaluationBatches(pixels, rows, targets, material.preprocessing)
        answers = answers_of(fitted.module, batches, views, plan.engine, material.preprocessing)
        accuracy[split] = round(float((answers.argmax(1) == targets).mean()), 4)
    if fitted.held_out is not None:  # a classifier that was fitted on the validation images too
        accuracy["validation"] = round(float((fitted.held_out[0].argmax(1) == fitted.held_out[1]).mean()), 4)
    return {"part": part, **accuracy, "seconds": round(seconds, 1), "views": views}


def show(out: Path) -> None:
    """A line a part: mean over the seeds and their spread, in percent."""
    for name in ("digits", "fashion-mnist", "ants-bees"):
        tables = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(out.glob(f"{name}-*.json"))]
        if not tables:
            continue
        print(f"{name}, {len(tables)} seeds")
        for rows in zip(*tables, strict=True):
            test, validation = ([100 * row[split] for row in rows] for split in ("test", "validation"))
            spread = f" ± {np.std(test, ddof=1):.2f}" if len(test) > 1 else ""
            seconds = np.mean([row["seconds"] for row in rows])
            views = {row["views"] for row in rows} - {"none"}
            print(
                f"  {rows[0]['part']:<26} validation {np.mean(validation):6.2f}  test {np.mean(test):6.2f}{spread}  "
                f"{seconds:6.1f} s  {', '.join(sorted(views))}".rstrip()
            )


if __name__ == "__main__":
    main()

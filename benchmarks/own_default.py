"""Does the search beat wellfit's own default learning rate where the default is wrong?

Four tasks that are mis-scaled on purpose; each is fitted twice with the same plan, the same seed and
the same number of training steps: once with the search, once at the plan's default rate. Both networks
are then judged on 5,000 images of the official test split, which neither fit has seen.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/own_default.py [--seeds 0 1] [--budget 90s] [--optimizer nesterov]
       [--threads 1] [--tasks "pixels ×20" "batch of 4"] [--out runs/own-default]

Finished pairs are kept in OUT/results.jsonl and not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np

import wellfit
from wellfit.config import Config, load_config
from wellfit.data.decode import decode
from wellfit.data.sources import open_source
from wellfit.recipe.plan import SearchPlan, load_plan, save_plan
from wellfit.record import read_record

sys.path.insert(0, str(Path(__file__).parent))


HELD_OUT = 5000
SOURCES = {"cifar": "cifar10-jpg.tar.gz", "fashion": "fashion-mnist"}
Labelled = tuple[np.ndarray, list[str]]


def images_of(name: str, per_class: int, seed: int, *, split: str = "train") -> Labelled:
    """`per_class` images of each class of CIFAR-10 or Fashion-MNIST, N×32×32×3, of the training or the test split."""
    source = open_source(Path(os.environ["WELLFIT_TEST_DATA"]) / "data" / SOURCES[name])
    order = np.random.default_rng(seed).permutation(len(source.names))
    taken: dict[str, int] = {}
    images, labels = [], []
    for index in order:
        label = source.labels[index]
        if (source.splits[index] == "test") != (split == "test") or taken.get(label, 0) >= per_class:
            continue
        taken[label] = taken.get(label, 0) + 1
        image = decode(source.reader.read(int(index)))
        margin = (32 - image.shape[0]) // 2
        images.append(np.pad(image, ((margin, margin), (margin, margin), (0, 0))))
        labels.append(f"{name} {label}")
    return np.stack(images), labels


def both(per_class: int, seed: int, *, split: str = "train") -> Labelled:
    """The same of the two sets together: 20 classes."""
    (cifar, names), (fashion, more) = (images_of(name, per_class, seed, split=split) for name in SOURCES)
    return np.concatenate([cifar, fashion]), names + more


def task(name: str, seed: int, config: Config) -> tuple[Labelled, Labelled, Config]:
    """(images to fit on, images to judge by, configuration)."""
    config = config.replace(**TASKS[name])
    if name == "20 classes of 30":
        return both(30, seed + 100), both(HELD_OUT // 20, 0, split="test"), config
    photos, held_out = images_of("cifar", 600, seed), images_of("cifar", HELD_OUT // 10, 0, split="test")
    return photos, held_out, config


TASKS: dict[str, dict[str, object]] = {
    "pixels ×20": {"model.name": "misscaled_nets:TimesTwenty"},
    "batch of 4": {"model.name": "misscaled_nets:Plain", "training.batch_size": 4},
    "no normalisation": {"model.name": "misscaled_nets:DeepPlain"},
    "20 classes of 30": {"model.name": "misscaled_nets:Plain"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--optimizer", default="auto", help="auto is AdamW")
    parser.add_argument("--budget", default="90s")
    parser.add_argument("--threads", type=int, default=0, help="of each fit; 0: as the probe finds")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--out", type=Path, default=Path("runs/own-default"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for seed in arguments.seeds:
        for name in arguments.tasks:
            if any(row["task"] == name and row["seed"] == seed for row in rows):
                continue
            asked = Config(seed=seed).replace(
                **{"optimizer.name": arguments.optimizer, "engine.threads": arguments.threads, "model.weights": "none"}
            )
            data, held_out, config = task(name, seed, asked)
            work = arguments.out / f"work-{name.replace(' ', '-')}-{seed}"
            row = {"task": name, "seed": seed, **compare(data, held_out, config, arguments.budget, work)}
            rows.append(row)
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    print(f"{'task':<20} seed  default lr → accuracy   found lr → accuracy   gain")
    for row in rows:
        print(
            f"{row['task']:<20} {row['seed']:>4}  {row['default_lr']:>9.2g} → {row['default']:.4f}      "
            f"{row['found_lr']:>8.2g} → {row['searched']:.4f}     {row['searched'] - row['default']:+.4f}"
        )


def compare(data: Labelled, held_out: Labelled, config: Config, budget: str, work: Path) -> dict[str, float]:
    """Accuracy on the held-out images with the search and at the default rate, with as many training steps."""
    shutil.rmtree(work, ignore_errors=True)
    searched = wellfit.fit(data, budget=budget, config=config, out=work / "searched", force=True)
    plan = load_plan(searched.folder.plan)
    last = [line for line in read_record(searched.folder.record) if line["kind"] == "epoch"][-1]
    training = dataclasses.replace(plan.training, steps=int(last["step"]))
    same = plan.replace(search=SearchPlan(), training=training)
    save_plan(work / "default.toml", same)
    default = wellfit.fit(data, plan=work / "default.toml", config=config, out=work / "default", force=True)
    return {
        "default_lr": plan.optimizer.lr,
        "found_lr": load_config(searched.folder.config).optimizer.lr,
        "trials": plan.search.coarse_trials + plan.search.fine_trials,
        "epochs": same.epochs,
        "default": accuracy(default, held_out),
        "searched": accuracy(searched, held_out),
        "images": len(held_out[1]),
    }


def accuracy(run: wellfit.Run, held_out: Labelled) -> float:
    images, labels = held_out
    named = [row["label"] for row in run.predict(images)]
    return float(np.mean([a == b for a, b in zip(named, labels, strict=True)]))


if __name__ == "__main__":
    main()

"""Does the search beat wellfit's own default learning rate where the default is wrong?

Four tasks that are mis-scaled on purpose; each is fitted twice with the same plan, the same seed and
the same number of training steps: once with the search, once at the plan's default rate.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/own_default.py [--seeds 0 1] [--budget 100s] [--optimizer nesterov]
       [--out runs/own-default]

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


def images_of(name: str, per_class: int, seed: int) -> tuple[list[np.ndarray], list[str]]:
    """`per_class` training images of each class of CIFAR-10 or Fashion-MNIST, decoded."""
    root = Path(os.environ["WELLFIT_TEST_DATA"]) / "data"
    source = open_source(root / {"cifar": "cifar10-jpg.tar.gz", "fashion": "fashion-mnist"}[name])
    order = np.random.default_rng(seed).permutation(len(source.names))
    taken: dict[str, int] = {}
    images, labels = [], []
    for index in order:
        label = source.labels[index]
        if source.splits[index] == "test" or taken.get(label, 0) >= per_class:
            continue
        taken[label] = taken.get(label, 0) + 1
        images.append(decode(source.reader.read(int(index))))
        labels.append(f"{name} {label}")
    return images, labels


def tasks(seed: int, optimizer: str) -> dict[str, tuple[tuple[np.ndarray, list[str]], Config]]:
    """name → (data, configuration)."""
    cifar, labels = images_of("cifar", 600, seed)
    photos = np.stack(cifar), labels
    few_cifar, cifar_labels = images_of("cifar", 30, seed + 100)
    few_fashion, fashion_labels = images_of("fashion", 30, seed + 100)
    padded = [np.pad(image, ((2, 2), (2, 2), (0, 0))) for image in few_fashion]
    few = np.stack(few_cifar + padded), cifar_labels + fashion_labels
    config = Config(seed=seed).replace(**{"optimizer.name": optimizer})
    return {
        "pixels ×20": (photos, config.replace(**{"model.name": "misscaled_nets:TimesTwenty"})),
        "batch of 4": (photos, config.replace(**{"training.batch_size": 4})),
        "no normalisation": (photos, config.replace(**{"model.name": "misscaled_nets:DeepPlain"})),
        "20 classes of 30": (few, config),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--optimizer", default="auto", help="auto is AdamW")
    parser.add_argument("--budget", default="100s")
    parser.add_argument("--out", type=Path, default=Path("runs/own-default"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for seed in arguments.seeds:
        for name, (data, config) in tasks(seed, arguments.optimizer).items():
            if any(row["task"] == name and row["seed"] == seed for row in rows):
                continue
            row = {"task": name, "seed": seed, **compare(data, config, arguments.budget, arguments.out / "work")}
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


def compare(data: object, config: Config, budget: str, work: Path) -> dict[str, float]:
    """Test accuracy with the search and at the default rate, with the same number of training steps."""
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
        "default": default.test_accuracy or 0.0,
        "searched": searched.test_accuracy or 0.0,
        "images": searched.test_images or 0,
    }


if __name__ == "__main__":
    main()

"""Plain against residual nets of 20 and 56 layers on CIFAR-10: which errs more on its own *training* images? (SPEC N9)

He et al. 2015 trained each net for 64,000 steps on 32-pixel images. Here it is a short run on images reduced to
`--side` pixels, so only the order of the four is to be compared with theirs, not the figures. All four nets see the
same batches, differ in nothing but depth and shortcuts (no zero start of the residual branches), and are trained in
turns, an epoch each.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/depth.py [--epochs 6] [--side 16] [--out runs/depth] [--keep FILE.json]

A killed run goes on after the last whole epoch of each net. `--keep` writes the figures that the documentation draws,
anew after each epoch of all four (docs/gallery/networks/depth.json).
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wellfit.data.batches import EvaluationBatches, TrainingBatches
from wellfit.data.inspect import inspect
from wellfit.data.preprocess import Preprocessing, fit_preprocessing
from wellfit.data.sources import open_source
from wellfit.data.store import PixelStore, build_store
from wellfit.data.supply import supply
from wellfit.engine import Engine
from wellfit.inference.evaluate import logits_of
from wellfit.models.zoo import construct
from wellfit.randomness import generator
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint
from wellfit.training.optimizers import build_optimizer
from wellfit.training.schedules import schedule

NETS = ("plain20", "plain56", "resnet20", "resnet56")
PEAK, MOMENTUM, DECAY, BATCH = 0.1, 0.9, 1e-4, 128
MEASURED = 5000  # training images, unaugmented, that the training error is measured on
ENGINE = Engine("cpu", "bfloat16", "channels_last", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/depth"))
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    out = given.out / f"{given.side}px-{given.epochs}epochs-seed{given.seed}"
    out.mkdir(parents=True, exist_ok=True)
    store, targets, preprocessing = training_images(given.side)
    ENGINE.activate()
    for epoch in range(1, given.epochs + 1):
        for net in NETS:
            train_to(net, epoch, given.epochs, store, targets, preprocessing, given.seed, out / f"{net}.safetensors")
        results = {net: (load_checkpoint(out / f"{net}.safetensors") or {})["lines"] for net in NETS}
        if given.keep:
            kept = {
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "machine": f"{platform.machine()}, one thread, {ENGINE.dtype}",
                "torch": torch.__version__,
                "images": len(targets),
                "side": given.side,
                "epochs": min(map(len, results.values())),
                "planned": given.epochs,
                "steps": len(targets) // BATCH * min(map(len, results.values())),
                "seed": given.seed,
                "nets": results,
            }
            given.keep.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for net, lines in results.items():
        print(f"{net:>9}: training error {lines[-1]['training_error']:.3f} after {len(lines)} epochs")


def training_images(side: int) -> tuple[PixelStore, np.ndarray, Preprocessing]:
    """CIFAR-10's training split from its JPEG files, decoded once to `side` pixels."""
    source = open_source(Path(os.environ["WELLFIT_TEST_DATA"]) / "data" / "cifar10-jpg.tar.gz")
    rows = np.array([i for i, split in enumerate(source.splits) if split != "test"])
    store = build_store(source, inspect(source), rows, short_side=side)
    classes = sorted(set(source.labels))
    targets = np.array([classes.index(source.labels[i]) for i in rows])
    return store, targets, fit_preprocessing(store, np.arange(len(rows)), size=side, resize=side)


def train_to(
    net: str,
    epoch: int,
    epochs: int,
    store: PixelStore,
    targets: np.ndarray,
    preprocessing: Preprocessing,
    seed: int,
    checkpoint: Path,
) -> None:
    """Train one net up to the end of this epoch, unless its checkpoint is there already."""
    rows = np.arange(len(targets))
    batches = TrainingBatches(
        store, rows, targets, preprocessing, batch_size=BATCH, augment=("flip", "crop"), seed=seed
    )
    some = generator(0, "measured").permutation(len(rows))[:MEASURED]  # files are listed class by class
    measured = EvaluationBatches(store, some, targets[some], preprocessing)
    module = ENGINE.place(construct(net, 10, image_size=preprocessing.size, seed=seed, zero_init=False)).train()
    optimizer = build_optimizer("momentum", module, lr=PEAK, momentum=MOMENTUM, weight_decay=DECAY)
    rate = schedule("warmup+cosine", warmup=0.05)
    lines: list[dict[str, Any]] = []
    state = load_checkpoint(checkpoint)
    if state is not None:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        lines = state["lines"]
    steps = range(len(lines) * batches.steps_per_epoch, epoch * batches.steps_per_epoch)
    if not steps:
        return
    seen = wrong = 0
    losses = []
    for step, (batch, _) in zip(steps, supply(batches.batch, steps, ENGINE.device), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = PEAK * rate(step / (epochs * batches.steps_per_epoch))
        with ENGINE.autocast():
            outputs = module(ENGINE.inputs(batch.images, preprocessing))
            loss = torch.nn.functional.cross_entropy(outputs.float(), batch.targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        wrong += int((outputs.argmax(1) != batch.targets).sum())
        seen += len(batch.targets)
    logits = logits_of(module, measured, ENGINE, preprocessing)
    line = {
        "epoch": epoch,
        "training_error": round(float(np.mean(logits.argmax(1) != measured.targets)), 4),
        "running_error": round(wrong / seen, 4),
        "loss": round(math.fsum(losses) / len(losses), 4),
    }
    module.train()
    lines.append(line)
    save_checkpoint(
        checkpoint, {"module": dict(module.state_dict()), "optimizer": optimizer.state_dict(), "lines": lines}
    )
    print(net, line, flush=True)


if __name__ == "__main__":
    main()

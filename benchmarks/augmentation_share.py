"""What augmentation costs beside the training step: flip, crop, colour jitter, cutout and mixup, at 32 and 224 pixels.

usage: python benchmarks/augmentation_share.py [CASE ...] [--repeats 5] [--steps 6] [--quick] [--out FILE.jsonl]

Cases: whitened-32 (what `fit` trains on small images), resnet18-32, resnet18-224. At 224 pixels the images lie at 320,
as in a pixel store, and a crop is a view of its own, in the place of the fixed view. Two figures, of each repeat:

- made: how much longer a batch with all five takes to be made than one with none, by the clock and alone, as a share of
  the step, between two of which it stands;
- slower: how much longer wellfit's own loop takes for the same steps with the five than without, in turns. This is what
  a user waits for, and what other work disturbs.

To reach: 10% of both. Then the milliseconds an image of each of the five, on one thread. Accuracy is not touched by how
fast they are made: tests hold each to torchvision's, numpy's or colorsys's figures. Rows are kept in FILE.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from kept_lines import KeptLines
from spread import spread, versions
from torch import nn
from training_sides import CLASSES, Case, MadeImages, Ours, instructions, parsed, probed, timed_turn

from wellfit.data.batches import TrainingBatches
from wellfit.engine import Engine

CASES = {
    "whitened-32": Case("whitened", 32, 128, 0.0),
    "resnet18-32": Case("resnet18", 32, 128, 0.0),
    "resnet18-224": Case("resnet18", 224, 32, 0.0),
}
ALL = ("flip", "crop", "colour_jitter", "cutout", "mixup")
SHARE, BATCHES = 0.10, 4
STORED, RESIZED, LARGE = 320, 256, 64  # pixels: of a store's images, before the centre is taken, from where they count


def stored(case: Case) -> MadeImages:
    return MadeImages(BATCHES * case.batch, STORED if case.size > LARGE else case.size)


def batches_of(case: Case, images: MadeImages, augment: tuple[str, ...]) -> TrainingBatches:
    return images.batches(case.size, case.batch, augment, resize=RESIZED if case.size > LARGE else None)


def network(case: Case) -> nn.Module:
    net = case.network()
    if hasattr(net, "initialise_from_data"):
        net.initialise_from_data(torch.randn(64, 3, case.size, case.size, generator=torch.Generator().manual_seed(1)))
    return net


def made(batches: TrainingBatches, count: int) -> float:
    """Seconds of one batch, the quickest of `count`."""
    seconds = []
    for step in range(count + 1):
        begun = time.perf_counter()
        batches.batch(step)
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])


def measure(case: Case, engine: Engine, repeats: int, steps: int) -> list[dict[str, float]]:
    images = stored(case)
    plain, full = batches_of(case, images, ()), batches_of(case, images, ALL)
    sides = {"plain": Ours(network(case), plain, engine), "full": Ours(network(case), full, engine)}
    for side in sides.values():
        side.turn(1)
    rows = []
    for repeat in range(repeats):
        names = ("plain", "full") if repeat % 2 else ("full", "plain")
        seconds = {name: timed_turn(sides[name], steps)[0] / steps for name in names}
        work = made(full, steps) - made(plain, steps)
        rows.append(
            {
                "made": work / seconds["plain"],
                "slower": seconds["full"] / seconds["plain"] - 1,
                "step": seconds["plain"],
            }
        )
    for side in sides.values():
        side.close()
    return rows


def each(case: Case, count: int) -> dict[str, float]:
    """Milliseconds an image of each of the five, on one thread, over the plain batch; below 0 where it saves time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images = stored(case)
    plain = made(batches_of(case, images, ()), count)
    found = {name: 1e3 * (made(batches_of(case, images, (name,)), count) - plain) / case.batch for name in ALL}
    torch.set_num_threads(threads)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="one step of eight images: shows that it runs")
    parser.add_argument("--out", type=Path)
    given, names = parsed(parser, CASES, arguments)
    repeats, steps = (1, 1) if given.quick else (given.repeats, given.steps)
    print(f"{versions()}\n{instructions()}; {CLASSES} classes")
    kept = KeptLines(given.out)
    for name in names:
        if not kept.has(case=name):
            case = Case(CASES[name].model, CASES[name].size, 8, 0.0) if given.quick else CASES[name]
            engine = probed(case).engine
            row: dict[str, Any] = {"case": name, "engine": engine.line, "batch": case.batch, "versions": versions()}
            kept.add({**row, "rows": measure(case, engine, repeats, steps), "each": each(case, max(3, steps))})
            print(f"{name}: measured", flush=True)
    print("| case | engine | step, ms | made, % of the step | loop slower by, % | one thread, ms an image |")
    print("|---|---|---|---|---|---|")
    for name in names:
        row = kept.of(case=name)[-1]
        columns = {key: [found[key] for found in row["rows"]] for key in ("step", "made", "slower")}
        shown = []
        for key in ("made", "slower"):
            late = " missed" if statistics.median(columns[key]) > SHARE else ""
            shown.append(f"{spread([100 * value for value in columns[key]], 1)}{late}")
        parts = ", ".join(f"{part} {value:.3f}" for part, value in row["each"].items())
        step = spread([1e3 * value for value in columns["step"]], 0)
        engine_line = f"{row['engine']}, batch {row['batch']}"
        print(f"| {name} | {engine_line} | {step} | {shown[0]} | {shown[1]} | {parts}; n = {len(row['rows'])} |")


if __name__ == "__main__":
    main()

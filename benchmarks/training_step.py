"""The speed of a training step: wellfit's loop against torch's defaults and against a loop written by hand.

usage: python benchmarks/training_step.py [CASE ...] [--repeats 3] [--turns 3] [--steps 7] [--quick] [--out FILE.jsonl]

Cases: resnet18-224, resnet18-32, mobilenet_v2-128, vgg11-64 (network and image size). Sides:

- wellfit: `training.loop.train` with optimizer, average of weights, monitor and record as the recipe calls it, in the
  engine that `fit` chooses here (the line of each case says which);
- by hand: a bare loop with the same dtype, layout, threads, optimizer and average, without prefetching;
- default: float32, contiguous, AdamW as it comes, a DataLoader with two workers, all threads, no average.

In each repeat all sides start anew from the same weights, each in a process of its own; after four uncounted steps they
take `turns` turns of `steps` steps, one after the other, in a changing order. Of 21 steps the monitor watches one
closely, as it does of twenty. A row is one repeat: images a second of each side over its turns, and the mean loss of
its last turn: a side that is fast and learns less shows there. To reach: at least 1.0 of the default everywhere (with
AMX 3 for ResNet-18, 1.5 for MobileNetV2, 2 for VGG-11), and at least 0.95 of the loop by hand.

Rows are kept in FILE and not measured again. `--quick`: one repeat of one step of four images, which shows that it
runs and says nothing of speed.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from kept_lines import KeptLines
from spread import spread, versions
from training_sides import CASES, SIDES, Apart, Case, instructions, parsed, probed

from wellfit.engine import Engine

OF_HAND, OF_DEFAULT = 0.95, 1.0
WARM_UP = 4  # steps that are not counted: the monitor watches a training's first three one by one
IMAGES, QUICK = 8, 4  # batches of images are made; images in a batch with --quick


def measure(case: Case, engine: Engine, turns: int, steps: int, repeat: int) -> dict[str, Any]:
    """One repeat: images a second and the last turn's mean loss of each side."""
    with ExitStack() as opened:
        sides = {
            name: opened.enter_context(closing(Apart(name, case, engine, IMAGES * case.batch, repeat)))
            for name in SIDES
        }
        return _in_turn(sides, case, turns, steps, repeat)


def _in_turn(sides: dict[str, Apart], case: Case, turns: int, steps: int, repeat: int) -> dict[str, Any]:
    seconds, losses = dict.fromkeys(SIDES, 0.0), dict.fromkeys(SIDES, 0.0)
    for side in sides.values():
        side.turn(min(steps, WARM_UP))
    for turn in range(turns):
        first = (turn + repeat) % len(SIDES)
        for name in SIDES[first:] + SIDES[:first]:
            spent, seen = sides[name].turn(steps)
            seconds[name] += spent
            losses[name] = statistics.fmean(seen)
    speeds = {name: turns * steps * case.batch / spent for name, spent in seconds.items()}
    return {"speeds": speeds, "losses": losses, "batch": case.batch, "steps": min(steps, WARM_UP) + turns * steps}


def table(kept: KeptLines, names: list[str]) -> str:
    """A line a case; medians and ranges over the repeats."""
    lines = [
        "| case | engine | wellfit, images/s | of the default | of the loop by hand | loss: wellfit, by hand, default |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for name in names:
        rows = kept.of(case=name)
        if not rows:
            continue
        ratios = {
            other: [row["speeds"]["wellfit"] / row["speeds"][other] for row in rows] for other in ("default", "by hand")
        }
        missed = [statistics.median(ratios["default"]) < OF_DEFAULT, statistics.median(ratios["by hand"]) < OF_HAND]
        losses = [statistics.median(row["losses"][side] for row in rows) for side in SIDES]
        lines.append(
            f"| {name}, batch {rows[-1]['batch']} | {rows[-1]['engine']} "
            f"| {spread([row['speeds']['wellfit'] for row in rows], 1)} "
            f"| {spread(ratios['default'])}{' missed' if missed[0] else ''} "
            f"| {spread(ratios['by hand'])}{' missed' if missed[1] else ''} "
            f"| {', '.join(f'{loss:.3f}' for loss in losses)} after {rows[-1]['steps']} steps, n = {len(rows)} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    given, names = parsed(parser, CASES, arguments)
    repeats, turns, steps = (1, 1, 1) if given.quick else (given.repeats, given.turns, given.steps)
    print(f"{versions()}\n{instructions()}, torch takes {torch.get_num_threads()} threads by itself")
    kept = KeptLines(given.out)
    for name in names:
        case = replace(CASES[name], batch=QUICK) if given.quick else CASES[name]
        engine: Engine | None = None
        for repeat in range(repeats):
            if kept.has(case=name, repeat=repeat):
                continue
            engine = engine or probed(case).engine
            row = {"case": name, "repeat": repeat, "engine": engine.line, **measure(case, engine, turns, steps, repeat)}
            kept.add({**row, "versions": versions()})
            speeds = ", ".join(f"{side} {speed:,.1f}" for side, speed in row["speeds"].items())
            print(f"{name} {repeat}: {engine.line}: images/s {speeds}", flush=True)
    print(table(kept, names))


if __name__ == "__main__":
    main()

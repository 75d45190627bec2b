"""Throughput of one training by one process with all cores, and by several under torchrun that share them.

usage: python benchmarks/two_processes.py [--processes 2] [--steps 300] [--repeats 3] [--quick] [--out DIR]

The same plan (a ResNet-20 with GroupNorm on the built-in digits at 28 pixels, batch 128, float32) by
`wellfit fit --plan`, in turn. Printed are images a second of the whole batch, the median over the steps of a run,
median and range over the runs; the ratio; and by how much the weights of the two differ in the end, as rounding grows
over so many steps (that the first ones agree to float tolerance is the tests' to show).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from kills import PLAN
from safetensors.torch import load_file
from spread import spread, versions

from wellfit.engine import Engine
from wellfit.recipe.plan import ModelPlan, SearchPlan, TrainingPlan, save_plan
from wellfit.record import read_record


def run(plan: Path, out: Path, processes: int, threads: int) -> float:
    """Images a second, the median over the steps."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command += ["wellfit", "fit", "digits", "--plan", str(plan), "--out", str(out), "--force"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = [line for line in read_record(out / "record.jsonl") if line["kind"] == "step"]
    return statistics.median(line["images_per_second"] for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="12 steps of a LeNet-5, once")
    parser.add_argument("--out", type=Path, default=Path("runs/two-processes"), metavar="DIR")
    arguments = parser.parse_args()
    steps, repeats = (12, 1) if arguments.quick else (arguments.steps, arguments.repeats)
    net = "lenet5" if arguments.quick else "resnet20"
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    cores = os.cpu_count() or 1
    print(versions())
    speeds: dict[int, list[float]] = {1: [], arguments.processes: []}
    apart = 0.0
    for _ in range(repeats):
        models = []
        for processes, found in speeds.items():
            threads = max(1, cores // processes)
            plan = PLAN.replace(
                model=ModelPlan(net, "none", 28, 28, "none", 0, {"normalization": "group"}),
                augment=("crop",),
                engine=Engine("cpu", "float32", "channels_last", threads),
                search=SearchPlan(),
                training=TrainingPlan(steps=steps, batch_size=128, steps_per_epoch=9, evaluate_every=steps),
                checks=replace(PLAN.checks, lr_iterations=10, small_sample_steps=10),
            )
            name = out / f"by-{processes}-{time.time_ns()}"
            save_plan(name.with_suffix(".toml"), plan)
            found.append(run(name.with_suffix(".toml"), name, processes, threads))
            models.append(load_file(name / "model.safetensors"))
        one, other = models
        apart = max(apart, *(float((one[key] - other[key]).abs().max()) for key in one))
    for processes, found in speeds.items():
        print(f"{processes} process{'es' if processes > 1 else '  '}  {spread(found, 0)} images/s")
    ratios = [many / one for one, many in zip(*speeds.values(), strict=True)]
    print(f"ratio {spread(ratios)}; weights differ by {apart:.0e} at most")


if __name__ == "__main__":
    main()

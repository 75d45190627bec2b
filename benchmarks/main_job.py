"""The main job on real images: `wellfit fit` as a user types it, one row a data set and seed.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/main_job.py [ROW ...] [--seeds 0 1 2] [--out runs/main-job]

Rows: digits, fashion-mnist, cifar10, ants-bees. Finished rows are kept in OUT/results.jsonl and not run again.
Whole commands are timed, start-up included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from wellfit.recipe.machine import machine

ROWS = {
    "digits": ("digits", "40s", []),
    "fashion-mnist": ("data/fashion-mnist", "5m", []),
    "cifar10": ("data/cifar10-jpg.tar.gz", "450s", []),
    "ants-bees": ("data/ants-bees.tar", "2m", ["--model", "squeezenet1_1", "--weights", "imagenet"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=list(ROWS), metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/main-job"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for seed in arguments.seeds:
        for row in arguments.rows:
            if any(line["row"] == row and line["seed"] == seed for line in done):
                continue
            line = run(row, seed, arguments.out / f"{row}-{seed}-{int(time.time())}")
            done.append(line)
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
    print(f"\n{machine()}")
    print(f"{'row':<14} seed  budget  seconds  validation  test (95% interval)       images  engine")
    for line in done:
        low, high = line["interval"]
        test = f"{line['test']:.4f} ({low:.4f}-{high:.4f})"
        print(
            f"{line['row']:<14} {line['seed']:>4}  {line['budget']:>6}  {line['seconds']:7.1f}  "
            f"{line['validation']:.4f}      {test}  {line['images']:>6}  {line['engine']}"
        )


def run(row: str, seed: int, out: Path) -> dict[str, object]:
    """One command, timed from outside."""
    data, budget, options = ROWS[row]
    root = Path(os.environ.get("WELLFIT_TEST_DATA", "."))
    environment = {**os.environ, "TORCH_HOME": str(root / "weights")}
    where = data if data == "digits" else str(root / data)
    command = [sys.executable, "-m", "wellfit", "fit", where, "--budget", budget, "--seed", str(seed)]
    command += ["--out", str(out), "--json", *options]
    begun = time.monotonic()
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.monotonic() - begun
    result = json.loads(finished.stdout.splitlines()[-1])
    lines = [json.loads(line) for line in (out / "record.jsonl").read_text().splitlines()]
    evaluation = next(line for line in lines if line["kind"] == "evaluation")
    engine = next(line for line in lines if line["kind"] == "engine")
    return {
        "row": row,
        "seed": seed,
        "budget": budget,
        "seconds": round(seconds, 1),
        "validation": result["validation_accuracy"],
        "test": result["test_accuracy"],
        "interval": evaluation["interval"],
        "images": result["test_images"],
        "model": result["model"],
        "engine": engine["line"],
        "run": str(out),
    }


if __name__ == "__main__":
    main()

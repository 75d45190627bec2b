"""The main job on real images: `wellfit fit` as a user types it, one row a data set and seed.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/main_job.py [ROW ...] [--seeds 0 1 2] [--budget 60s]
           [--out runs/main-job] [--peer "fastai=peers/bin/python peer.py {train} {test} 224 4"]

Rows: digits, fashion-mnist, cifar10, ants-bees. Finished rows are kept in OUT/results.jsonl and not run again.
Whole commands are timed, start-up included, each with an empty cache. A peer is a command that prints its accuracy as
`test_acc 0.9`; it runs on the same files, unpacked, with the weights of the same TORCH_HOME, after wellfit's command
at the first seed, before it at the second, and so on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from spread import spread, versions

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
    parser.add_argument("--budget", help="in the stead of each row's own")
    parser.add_argument("--peer", metavar="NAME=COMMAND", help="with {train} and {test} for the folders")
    parser.add_argument("--out", type=Path, default=Path("runs/main-job"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    who, _, command = (arguments.peer or "").partition("=")
    for turn, seed in enumerate(arguments.seeds):
        for row in arguments.rows:
            sides = ["wellfit", who] if who else ["wellfit"]
            for name in sides[::-1] if turn % 2 else sides:
                if any(line["row"] == row and line["seed"] == seed and line["who"] == name for line in done):
                    continue
                if name == "wellfit":
                    budget = arguments.budget or ROWS[row][1]
                    line = run(row, seed, budget, arguments.out / f"{row}-{seed}-{int(time.time())}")
                else:
                    line = run_peer(row, seed, name, command, arguments.out)
                done.append(line)
                with results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, flush=True)
    print(f"\n{versions()}")
    print(f"{'row':<14} seed  who       budget  seconds  validation  test (95% interval)       images  engine")
    for line in done:
        test = f"{line['test']:.4f}"
        if "interval" in line:
            low, high = line["interval"]
            test += f" ({low:.4f}-{high:.4f})"
        budget, validation = line.get("budget", ""), line.get("validation", math.nan)
        print(
            f"{line['row']:<14} {line['seed']:>4}  {line['who']:<8}  {budget:>6}  {line['seconds']:7.1f}  "
            f"{validation:10.4f}  {test:<24}  {line['images']:>6}  {line.get('engine', '')}"
        )

    for row in ROWS:
        for name in dict.fromkeys(line["who"] for line in done if line["row"] == row):
            own = [line for line in done if (line["row"], line["who"]) == (row, name)]
            tests, seconds = ([line[key] for line in own] for key in ("test", "seconds"))
            print(f"{row}, {name}: test {spread(tests, 4)} in {spread(seconds, 0)} s, n = {len(own)}")


def run(row: str, seed: int, budget: str, out: Path) -> dict[str, Any]:
    """One command, timed from outside."""
    data, _, options = ROWS[row]
    root, environment = surroundings()
    where = data if data == "digits" else str(root / data)
    command = [sys.executable, "-m", "wellfit", "fit", where, "--budget", budget, "--seed", str(seed)]
    command += ["--out", str(out), "--json", *options]
    with tempfile.TemporaryDirectory(dir=out.parent) as cache:
        environment["WELLFIT_CACHE"] = cache
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
        "who": "wellfit",
        "budget": budget,
        "seconds": round(seconds, 1),
        "validation": result["validation_accuracy"],
        "test": result["test_accuracy"],
        "interval": evaluation["interval"],
        "images": result["test_images"],
        "model": result["model"],
        "engine": engine["line"],
        "wait": round(waited(lines), 4),
        "run": str(out),
    }


def waited(lines: list[dict[str, Any]]) -> float:
    """The share of the steps' time that the training waited for data."""
    steps = [line for line in lines if line["kind"] == "step"]
    lengths = [1 / line["images_per_second"] for line in steps]  # of steps of one size
    return sum(line["wait"] * length for line, length in zip(steps, lengths, strict=True)) / max(sum(lengths), 1e-9)


def surroundings() -> tuple[Path, dict[str, str]]:
    """The folder that holds the data, and the environment in which weights are found beside it."""
    root = Path(os.environ.get("WELLFIT_TEST_DATA", "."))
    return root, {**os.environ, "TORCH_HOME": str(root / "weights")}


def run_peer(row: str, seed: int, name: str, command: str, out: Path) -> dict[str, Any]:
    """The peer's command on the same images, unpacked into class folders; its accuracy is the one that it prints."""
    root, environment = surroundings()
    archive = root / ROWS[row][0]
    if ".tar" not in archive.name:
        raise SystemExit(f"a peer takes rows that are archives of class folders, got {row}")
    folder = (out / archive.name.partition(".")[0]).resolve()
    if not folder.exists():
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
    train = next(path for path in sorted(folder.rglob("train")) if path.is_dir())
    test = next(path for path in (train.parent / "test", train.parent / "val") if path.is_dir())
    words = [word.format(train=train, test=test) for word in shlex.split(command)]
    begun = time.monotonic()
    said = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=out).stdout
    seconds = time.monotonic() - begun
    found = re.search(r"test_acc ([0-9.]+)", said)
    if found is None:
        raise SystemExit(f"{name} printed no `test_acc NUMBER`: {said[-500:]}")
    images = sum(1 for path in test.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    line = {"row": row, "seed": seed, "who": name, "seconds": round(seconds, 1), "test": float(found[1])}
    return {**line, "images": images, "said": said.splitlines()[-5:]}


if __name__ == "__main__":
    main()

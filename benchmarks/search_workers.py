"""Trials an hour of a search with two workers beside one with one worker, on this machine.

The command as a user types it, `wellfit search DATA SPACE --trials N --workers W`, in turn with one worker and with
two, in an order that alternates; the accuracy of the best trial beside it. What is timed is the step "search" of the
record: trials and nothing else, the workers' start included. Data: the built-in digits by default.

usage: python benchmarks/search_workers.py [--rounds 3] [--trials 14] [--data digits] [--out runs/search-workers]

Finished runs are kept in OUT/results.jsonl and not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from wellfit.recipe.machine import machine

SPACE = """[lr]
log_uniform = [1e-4, 1e-1]

[weight_decay]
log_uniform = [1e-6, 1e-1]
"""
WORKERS = (1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=14)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--out", type=Path, default=Path("runs/search-workers"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "space.toml").write_text(SPACE)
    results = arguments.out / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for number, workers in in_turn(arguments.rounds):
        if any((row["round"], row["workers"]) == (number, workers) for row in rows):
            continue
        row = {"round": number, "workers": workers, **run(arguments, number, workers)}
        rows.append(row)
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
    print(f"\n{machine()}\n{table(rows)}")


def in_turn(rounds: int) -> list[tuple[int, int]]:
    """(round, workers): the one that goes first alternates, so that a drift of the machine favours neither."""
    return [(number, workers) for number in range(rounds) for workers in WORKERS[:: 1 if number % 2 == 0 else -1]]


def run(arguments: argparse.Namespace, number: int, workers: int) -> dict[str, Any]:
    """One search, from its record."""
    out = arguments.out / f"run-{number}-{workers}"
    command = [sys.executable, "-m", "wellfit", "search", arguments.data, str(arguments.out / "space.toml")]
    command += ["--trials", str(arguments.trials), "--workers", str(workers), "--model", arguments.model]
    command += ["--seed", str(number), "--out", str(out), "--force", "--json"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(finished.stdout.splitlines()[-1])
    lines = [json.loads(line) for line in (out / "record.jsonl").read_text().splitlines()]
    seconds = next(line["seconds"] for line in lines if line["kind"] == "recipe_step" and line["name"] == "search")
    return {
        "seconds": seconds,
        "trials": found["trials"],
        "an_hour": 3600 * found["trials"] / seconds,
        "best": found["best"]["validation_accuracy"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each number of workers, then the ratio of the rounds that both have finished."""
    lines = ["workers  trials an hour (each round)  best on validation"]
    speeds = {
        workers: {row["round"]: row["an_hour"] for row in rows if row["workers"] == workers} for workers in WORKERS
    }
    for workers in WORKERS:
        best = [f"{row['best']:.4f}" for row in rows if row["workers"] == workers]
        each = ", ".join(f"{speed:.0f}" for speed in speeds[workers].values())
        lines.append(f"{workers:>7}  {each}  {', '.join(best)}")
    ratios = [speeds[2][number] / speeds[1][number] for number in speeds[1] if number in speeds[2]]
    if ratios:
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"two workers against one: {statistics.mean(ratios):.2f} times, {spread}, n = {len(ratios)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

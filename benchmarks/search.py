"""How near does the coarse-to-fine search come to a full random search of eight times its cost?

A pool of 240 full-length random trials (search_pool.py) is computed once. For each seed, full random search is 48
trials drawn from it, the winner by validation. Against it stands the library's schedule, whose trials are trained
here, with at most an eighth of the cost of those 48: images trained on, the winner's training to full length
included. Both winners are judged on 10,000 images that neither search has seen; the difference is the regret.
Control: random search of the same cost as the schedule's, full-length trials from the same draw.

usage: WELLFIT_TEST_DATA=DIR python benchmarks/search.py [--seeds 0 1 2 3 4] [--out FOLDER]

Each trial is kept as it ends (FOLDER, by default in the user's cache) and is not run again, so that the benchmark can
be interrupted at any moment and started again. Tuning of the schedule is done on other seeds than those reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from kept_trials import KeptTrials, follow
from search_pool import (
    EPOCHS,
    POOL,
    SPACE,
    TRAINING,
    default_folder,
    fashion_material,
    fill_pool,
    training_speed,
)

from wellfit.errors import UserError
from wellfit.randomness import generator
from wellfit.recipe.machine import machine
from wellfit.recipe.material import Material
from wellfit.search.schedule import Schedule
from wellfit.search.trial import Task

DRAWN = 48
SHARE = 1 / 8  # of the cost of full random search
AIM = 0.3  # points of regret, at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=default_folder())
    arguments = parser.parse_args()
    material = fashion_material()
    print(f"{machine()}\none thread trains {training_speed(material):,.0f} images/s", flush=True)
    pool = fill_pool(material, arguments.out / "pool.jsonl")
    rows = []
    for seed in arguments.seeds:
        rows.append(compare(material, pool, seed, arguments.out / f"seed-{seed}"))
        print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


def compare(material: Material, pool: list[dict[str, Any]], seed: int, folder: Path) -> dict[str, Any]:
    """One row: full random search, its control and the schedule, for one seed."""
    drawn = draw_from(pool, seed)
    cost = sum(trial["images"] for trial in drawn)
    found = searched(material, seed, cost * SHARE, folder)
    full, control = best_of(drawn), best_of(within(drawn, cost * SHARE))
    return {
        "seed": seed,
        "full": full["judged"],
        "full_validation": full["scores"][-1],
        "full_settings": full["settings"],
        "full_images": cost,
        "control": control["judged"],
        "control_trials": len(within(drawn, cost * SHARE)),
        **found,
        "cost": found["images"] / cost,
        "regret": 100 * (full["judged"] - found["judged"]),
        "control_regret": 100 * (full["judged"] - control["judged"]),
    }


def draw_from(pool: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The 48 trials of one full random search, without repetition."""
    if len(pool) < POOL:
        raise UserError(f"the pool has {len(pool)} of {POOL} trials; let it be filled first")
    return [pool[int(place)] for place in generator(seed, "draw from pool").permutation(len(pool))[:DRAWN]]


def within(drawn: list[dict[str, Any]], images: float) -> list[dict[str, Any]]:
    """The first trials whose cost together stays within `images`, at least one."""
    spent = 0
    for count, trial in enumerate(drawn):
        spent += trial["images"]
        if spent > images:
            return drawn[: max(1, count)]
    return drawn


def best_of(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """The winner by validation; of equal ones the first."""
    finished = [trial for trial in trials if trial["judged"] is not None]
    if not finished:
        raise UserError("none of the trials finished; draw others")
    return max(finished, key=lambda trial: trial["scores"][-1])


def searched(material: Material, seed: int, images: float, folder: Path) -> dict[str, Any]:
    """The schedule run to its end for at most so many images, its winner trained to full length and judged."""
    runs = KeptTrials(material, folder)
    try:
        trials, ended = follow(schedule_of(seed, images), runs.run)
        if ended.best is None:
            raise UserError(f"no trial of seed {seed} finished: {ended.reason}")
        winner = ended.best
        if winner.epochs < EPOCHS:
            winner = runs.run(Task(len(trials), "full", winner.settings, EPOCHS, 0, winner.number))
            trials.append(winner)
        judged = runs.judged(winner)
        runs.clear()
        return {
            "judged": judged,
            "validation": winner.score,
            "settings": winner.settings,
            "chosen_at": ended.best.epochs,
            "trials": len(trials),
            "images": sum(trial.images for trial in trials),
            "ended": ended.reason,
        }
    finally:
        runs.close()


def schedule_of(seed: int, images: float) -> Schedule:
    """The library's own schedule for so many images: its final stage trains the best runs to full length."""
    return Schedule.plan(SPACE, seed=seed, longest=EPOCHS, budget_epochs=images / TRAINING)


def table(rows: list[dict[str, Any]]) -> str:
    """A line a seed, then means with the standard deviation over seeds."""
    lines = ["seed  full random  schedule  regret  cost    trials  chosen at  random of equal cost  its regret"]
    for row in rows:
        lines.append(
            f"{row['seed']:>4}  {row['full']:>11.4f}  {row['judged']:>8.4f}  {row['regret']:+6.2f}  "
            f"{row['cost']:.4f}  {row['trials']:>6}  {row['chosen_at']:>9.2f}  {row['control']:>20.4f}  "
            f"{row['control_regret']:+10.2f}"
        )
    for name, said in (("regret", "regret"), ("control_regret", "regret of random search of equal cost")):
        values = [row[name] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        lines.append(f"mean {said} {statistics.mean(values):+.2f} points, deviation {spread:.2f}, n = {len(values)}")
    reached = statistics.mean(row["regret"] for row in rows) <= AIM and all(row["cost"] <= SHARE for row in rows)
    lines.append(f"aimed at: at most {AIM} points at 1/8 of the cost: {'reached' if reached else 'MISSED'}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""What choosing dtype, layout and threads costs, and whether the choice is the best one.

usage: python benchmarks/engine_probe.py [CASE ...] [--budgets 60 400 3600] [--repeats 3] [--seconds 6] [--compiled]
       [--quick] [--out FILE.jsonl]

Cases: whitened-32 (what `fit` probes on small images) and those of `training_step.py`. For each case and budget the
probe that `fit` runs is timed, `repeats` times (to reach: at most the smaller of 10 s and 3% of the budget). Then every
setting that the probe chooses among, on one thread and on all, is measured in full: `repeats` turns of about `seconds`
each, in turn. The choice is "best" where its median speed is the highest, "as good" where it is within the range of the
fastest one's turns or 5% of its median, else missed. Which of them learns better is not asked: accuracy after equal
steps in the chosen setting and in float32 stands in `training_step.py`'s table.

wellfit does not compile: `--compiled` says what it leaves, with the chosen setting: seconds of the first step, the gain
after it, and the seconds of training from which on it would pay. It needs a C++ compiler. Rows are kept in FILE.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from augmentation_share import CASES as SMALL
from augmentation_share import network
from kept_lines import KeptLines
from spread import spread, versions
from training_sides import CASES as STEPS
from training_sides import CLASSES, Case, instructions, parsed

from wellfit.config import EngineConfig
from wellfit.engine import CORES, DTYPES, LAYOUTS, PROBE_SECONDS, PROBE_SHARE, Engine, random_step, training_speed
from wellfit.recipe.model_choice import probe_engine

CASES = {"whitened-32": SMALL["whitened-32"], **STEPS}
NEAR = 0.95
MOMENT = 0.1  # seconds that making an optimizer takes at most


def probes(case: Case, budgets: list[float], repeats: int) -> list[dict[str, Any]]:
    net, rows = network(case), list[dict[str, Any]]()
    begun = time.perf_counter()
    torch.optim.SGD(net.parameters(), lr=0.1)
    compiler = time.perf_counter() - begun
    if compiler > MOMENT:
        print(f"not counted: {compiler:.2f} s in which torch's first optimizer imports its compiler", flush=True)
    for _ in range(repeats):
        for budget in budgets:
            begun = time.perf_counter()
            found = probe_engine(EngineConfig(device="cpu"), net, case.size, CLASSES, budget)
            seconds = time.perf_counter() - begun
            rows.append({"budget": budget, "seconds": seconds, "chosen": found.engine.as_dict(), "speed": found.speed})
    return rows


def in_full(case: Case, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """Every setting's images a second, a figure a turn."""
    net = network(case)
    engines = [Engine("cpu", d, la, t) for d in DTYPES for la in LAYOUTS for t in sorted({1, CORES})]
    speeds: list[list[float]] = [[] for _ in engines]
    for turn in range(repeats):
        for i in range(len(engines)):
            i = (i + turn) % len(engines)
            speeds[i].append(training_speed(net, engines[i], (3, case.size, case.size), case.batch, CLASSES, seconds))
    return [{**e.as_dict(), "speeds": s} for e, s in zip(engines, speeds, strict=True)]


def compiled(case: Case, engine: Engine, seconds: float) -> dict[str, float]:
    """Seconds of the first step, and images a second after it, with torch's compiler and without.

    Not by `training_speed`, which measures a copy of the network: a copy is not compiled.
    """
    engine.activate()
    found = {}
    for kind in ("eager", "compiled"):
        net = engine.place(network(case)).train()
        if kind == "compiled":
            torch.compiler.reset()
            net.compile()
        step = random_step(net, engine, (3, case.size, case.size), case.batch, CLASSES)
        times = [step()]
        if kind == "compiled":
            found["first"] = times[0]
        step()
        times = []
        while not times or sum(times) < seconds:
            times.append(step())
        found[kind] = case.batch / min(times)
    return found


def judged(row: dict[str, Any], settings: list[dict[str, Any]]) -> str:
    """How the setting that a probe chose stands among all."""
    best = max(settings, key=lambda setting: statistics.median(setting["speeds"]))
    own = next(s for s in settings if all(s[key] == row["chosen"][key] for key in ("dtype", "layout", "threads")))
    if own is best:
        return "best"
    speed, top = statistics.median(own["speeds"]), statistics.median(best["speeds"])
    return f"{'as good' if speed >= min(*best['speeds'], NEAR * top) else 'missed'} ({speed / top:.2f})"


def show(name: str, row: dict[str, Any]) -> None:
    for budget in sorted({probe["budget"] for probe in row["probes"]}):
        mine = [probe for probe in row["probes"] if probe["budget"] == budget]
        bound, seconds = min(PROBE_SECONDS, PROBE_SHARE * budget), [probe["seconds"] for probe in mine]
        late = " missed" if statistics.median(seconds) > bound else ""
        lines = sorted({Engine(**probe["chosen"]).line for probe in mine})
        verdicts = sorted({judged(probe, row["settings"]) for probe in mine})
        print(
            f"| {name} | {budget:.0f} | {spread(seconds)}{late} | {bound:.1f} | {'; '.join(lines)} | "
            f"{', '.join(verdicts)}; n = {len(mine)} |"
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", type=float, nargs="+", default=[60.0, 400.0, 3600.0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one probe; settings in steps of two images")
    parser.add_argument("--out", type=Path)
    given, names = parsed(parser, CASES, arguments)
    print(f"{versions()}\n{instructions()}, torch takes {CORES} threads by itself")
    kept = KeptLines(given.out)
    for name in names:
        if kept.has(case=name):
            continue
        case, budgets, repeats, seconds = CASES[name], given.budgets, given.repeats, given.seconds
        if given.quick:
            case, budgets, repeats, seconds = Case(case.model, case.size, 2, 0.0), budgets[:1], 1, 0.0
        row = {"case": name, "versions": versions(), "probes": probes(case, budgets, repeats)}
        row["settings"] = in_full(case, repeats, seconds)
        if given.compiled:
            row["compiled"] = compiled(case, Engine(**row["probes"][-1]["chosen"]), seconds)
        kept.add(row)
        print(f"{name}: measured", flush=True)
    print(
        "| case | budget, s | probe, s | at most | chosen | against every setting in full |\n|---|---|---|---|---|---|"
    )
    rows = {name: kept.of(case=name)[-1] for name in names}
    for name, row in rows.items():
        show(name, row)
    print("| case | setting | images/s |\n|---|---|---|")
    for name, row in rows.items():
        for setting in sorted(row["settings"], key=lambda s: -statistics.median(s["speeds"])):
            line = f"{setting['dtype']}, {setting['layout']}, threads {setting['threads']}"
            print(f"| {name} | {line} | {spread(setting['speeds'], 1)} |")
    for name, row in rows.items():
        if "compiled" in row:
            first, eager, after = (row["compiled"][key] for key in ("first", "eager", "compiled"))
            pays = f"pays after {first / (1 - eager / after):.0f} s" if after > eager else "never pays"
            print(f"{name}, compiled: first steps {first:.0f} s, {after:.1f} instead of {eager:.1f} images/s: {pays}")


if __name__ == "__main__":
    main()

"""How much of the machine's bf16 matrix peak a training reaches, and where the rest of the step goes.

usage: python benchmarks/peak_share.py [--case resnet18-224] [--repeats 3] [--steps 4] [--compiled] [--quick]
       [--out FILE.jsonl]

The peak is the best product of two bf16 matrices of several sides, on all threads, measured before each turn of the
training; the best of all turns counts for each. The share is 3 × the forward pass's operations × images a second of
wellfit's own loop, over the peak (to reach: 30%). Then a profile of the same loop by torch.profiler: milliseconds of a
step in convolutions (and what they would take at the peak), BatchNorm, activations, pooling, additions, optimizer,
average of weights, copies (layouts and dtypes), all other operations (with the names of the longest), and what is none
(Python, waiting). Where a step in the profile is one that the monitor watches closely, every twentieth, its statistics
are among the others.

With `--compiled` the network is also compiled, whose warm-up takes a minute or more on a processor; its fused kernels
are a row of their own. The losses after the same number of steps stand beside both: a share bought with accuracy shows.

Rows, one a repeat, are kept in FILE and not measured again.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from kept_lines import KeptLines
from spread import spread, versions
from torch.profiler import ProfilerActivity, profile
from training_sides import CASES, Case, MadeImages, Ours, instructions, probed, timed_turn

from wellfit.models.complexity import complexity

SHARE, SIDES, OTHERS = 0.30, (1024, 2048, 4096), "other operations"
# By an operation's name; the first that matches holds.
KINDS = {
    "convolutions and products": r"conv|addmm|::mm$|::bmm|linear",
    "BatchNorm": r"batch_norm",
    "activations": r"relu|clamp_min|threshold|hardtanh|silu|gelu|sigmoid",
    "pooling": r"pool|::mean|mean_backward",
    "optimizer": r"_fused_adam|_foreach_add|Optimizer",
    "average of weights": r"_foreach_lerp",
    "copies": r"copy|::to$|contiguous|clone|::cat|resize|empty|zero|fill|set_data",
    "additions": r"::add_?$",
    "compiled kernels": r"cpp_fused|graph_\d|CompiledFunction|Torch-Compiled|Inductor",
}


def kind_of(name: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), OTHERS)


def peak(sides: tuple[int, ...]) -> float:
    """bf16 operations a second of the best product of two square matrices."""
    best = 0.0
    for side in sides:
        one, other = (torch.randn(side, side).to(torch.bfloat16) for _ in range(2))
        for _ in range(6):
            begun = time.perf_counter()
            torch.mm(one, other)
            best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    return best


def profiled(ours: Ours, steps: int) -> dict[str, float]:
    """Milliseconds of a step by kind; "outside operations" is what is left of its time."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        seconds, _ = timed_turn(ours, steps)
    found: dict[str, float] = {}
    events = sorted(seen.key_averages(), key=lambda event: -event.self_cpu_time_total)
    for event in events:
        kind = kind_of(event.key)
        found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / 1e3 / steps
    rest = [event.key for event in events if kind_of(event.key) == OTHERS]
    if rest:
        found[f"{OTHERS} ({', '.join(rest[:3])} …)"] = found.pop(OTHERS)
    found["outside operations"] = max(0.0, 1e3 * seconds / steps - sum(found.values()))
    return found


def measure(case: Case, repeats: int, steps: int, compiled: bool, sides: tuple[int, ...]) -> list[dict[str, Any]]:
    engine = probed(case).engine
    images = MadeImages(4 * case.batch, case.size)
    ours = Ours(case.network(), images.batches(case.size, case.batch, ("flip",)), engine)
    operations = 3 * complexity(case.network(), case.size).flops
    begun = time.perf_counter()
    if compiled:
        ours.net.compile()
    ours.turn(min(2, steps))
    warm, rows = time.perf_counter() - begun, []
    for repeat in range(repeats):
        reached = peak(sides)
        seconds, losses = timed_turn(ours, steps)
        speed = steps * case.batch / seconds
        rows.append(
            {
                "repeat": repeat,
                "compiled": compiled,
                "engine": engine.line,
                "batch": case.batch,
                "peak": reached,
                "speed": speed,
                "loss": statistics.fmean(losses),
                "steps": ours.done,
                "warm": warm,
            }
        )
    best = max(row["peak"] for row in rows)
    for row in rows:
        row |= {"share": operations * row["speed"] / best, "at_peak": 1e3 * operations * case.batch / best}
    rows[-1]["profile"] = profiled(ours, steps)
    ours.close()
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    shares = [100 * row["share"] for row in rows]
    late = " missed" if statistics.median(shares) < 100 * SHARE else ""
    label = "compiled" if rows[0]["compiled"] else "eager"
    peaks = spread([row["peak"] / 1e12 for row in rows])
    print(
        f"{label}, {rows[0]['engine']}, batch {rows[0]['batch']}: peak {peaks} TFLOP/s, "
        f"{spread([r['speed'] for r in rows], 1)} images/s, {spread(shares, 1)}% of the peak{late}; loss "
        f"{rows[-1]['loss']:.3f} after {rows[-1]['steps']} steps; first steps {rows[0]['warm']:.1f} s; n = {len(rows)}"
    )
    table = next(row["profile"] for row in reversed(rows) if "profile" in row)
    whole = sum(table.values())
    print("| of a step, profiled | ms | share |\n|---|---|---|")
    for kind, value in sorted(table.items(), key=lambda item: -item[1]):
        extra = f" (at the peak: {rows[-1]['at_peak']:.0f})" if kind == "convolutions and products" else ""
        print(f"| {kind} | {value:.1f}{extra} | {value / whole:.1%} |")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), default="resnet18-224")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--compiled", action="store_true", help="compile as well, which needs a C++ compiler")
    parser.add_argument("--quick", action="store_true", help="one step of two images: shows that it runs")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    case, repeats, steps, sides = CASES[given.case], given.repeats, given.steps, SIDES
    if given.quick:
        case, repeats, steps, sides = Case(case.model, case.size, 2, 0.0), 1, 1, (256,)
    print(f"{versions()}\n{instructions()}; {given.case}")
    kept = KeptLines(given.out)
    for compiled in (False, True) if given.compiled else (False,):
        if not kept.has(case=given.case, compiled=compiled):
            for row in measure(case, repeats, steps, compiled, sides):
                kept.add({"case": given.case, "versions": versions(), **row})
        show(kept.of(case=given.case, compiled=compiled))


if __name__ == "__main__":
    main()

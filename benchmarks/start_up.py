"""How long wellfit takes to start: `--help`, the import, and the first training step, beside torch's own import.

usage: python benchmarks/start_up.py [--repeats 7] [--data digits] [--quick] [--out FILE.jsonl]

Each is a fresh interpreter, in turn, `repeats` times; the first turn, which reads files from disk, is not counted:

- bare: `python -c pass`, which is part of all that follow;
- help: `wellfit --help` as a command, interpreter included (to reach: 0.15 s);
- import: `import wellfit`, timed inside the interpreter (to reach: 0.05 s);
- torch: `import torch` as a command, interpreter included;
- torch step: the same and one AdamW step of a linear layer: torch's first optimizer imports its compiler, which takes
  as long as torch itself, whoever trains;
- step: `wellfit.train` of a small net on the data with a rate given, from the command's start until the record holds
  the first training step: everything that comes before a training is in it (images, audit, plan with its probe of the
  machine, checks), and the loss is read every ten steps. To reach: torch + 1 s. Below it: when each step of the recipe
  began, and "loop": the same network's first step in `training.loop.train`, started by hand on images in memory.

Rows are kept in FILE and not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kept_lines import KeptLines
from spread import spread, versions

BOUNDS = {"help": 0.15, "import": 0.05}
BEYOND_TORCH = 1.0
TRAIN = """
import sys, wellfit
from wellfit.config import Config
settings = {"model.name": "lenet5", "model.weights": "none", "optimizer.lr": 1e-3, "optimizer.weight_decay": 0.0}
wellfit.train(sys.argv[1], Config().replace(**settings), out=sys.argv[2], budget="60s", force=True)
"""
LOOP = """
import time
from wellfit.engine import Engine
from training_sides import Case, MadeImages, Ours
case = Case("lenet5", 32, 64, 0.0)
images = MadeImages(64, 32)
Ours(case.network(), images.batches(32, 64, ("flip",)), Engine()).turn(1)
"""
TORCH_STEP = """
import torch
layer = torch.nn.Linear(4, 4)
optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
layer(torch.ones(2, 4)).sum().backward()
optimizer.step()
"""
COMMANDS = {
    "bare": [sys.executable, "-c", "pass"],
    "help": [sys.executable, "-m", "wellfit", "--help"],
    "torch": [sys.executable, "-c", "import torch"],
    "torch step": [sys.executable, "-c", TORCH_STEP],
    "loop": [sys.executable, "-c", LOOP],
}
IMPORT = "import time; t = time.perf_counter(); import wellfit; print(time.perf_counter() - t)"


def command(words: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path(__file__).parent)
    return time.perf_counter() - begun


def first_step(data: str, limit: float = 300.0) -> dict[str, float]:
    """Seconds until the record holds a training step, and until each step of the recipe began before it."""
    with tempfile.TemporaryDirectory() as folder:
        record, found = Path(folder) / "run" / "record.jsonl", dict[str, float]()
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN, data, str(record.parent)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while "step" not in found:
                now = time.perf_counter() - begun
                text = record.read_text(encoding="utf-8") if record.exists() else ""
                for line in text[: text.rfind("\n") + 1].splitlines():
                    fields = json.loads(line)
                    if fields["kind"] in ("run", "begin", "step"):
                        found.setdefault(str(fields.get("name", fields["kind"])), round(now, 3))
                if now > limit or process.poll() is not None:
                    break
                time.sleep(0.005)
        finally:
            process.kill()
            process.wait()
    if "step" not in found:
        raise RuntimeError(f"no training step within {limit:.0f} s; the record held {found}")
    return found


def measure(data: str) -> dict[str, Any]:
    seconds = {name: command(words) for name, words in COMMANDS.items()}
    answer = subprocess.run([sys.executable, "-c", IMPORT], check=True, stdout=subprocess.PIPE, text=True)
    begins = first_step(data)
    return {"seconds": {**seconds, "import": float(answer.stdout), "step": begins["step"]}, "begins": begins}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--quick", action="store_true", help="once, the uncounted turn left out")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    print(versions())
    kept, repeats = KeptLines(given.out), 1 if given.quick else given.repeats
    if len(kept.rows) < repeats and not given.quick:
        measure(given.data)
    while len(kept.rows) < repeats:
        kept.add({"repeat": len(kept.rows), "versions": versions(), **measure(given.data)})
        print({name: round(value, 3) for name, value in kept.rows[-1]["seconds"].items()}, flush=True)
    columns = {name: [row["seconds"][name] for row in kept.rows] for name in kept.rows[0]["seconds"]}
    bounds = {**BOUNDS, "step": statistics.median(columns["torch"]) + BEYOND_TORCH}
    print("| what | seconds | to reach |\n|---|---|---|")
    for name, values in columns.items():
        bound = bounds.get(name)
        late = "" if bound is None else f"{bound:.2f}: {'reached' if statistics.median(values) <= bound else 'missed'}"
        print(f"| {name} | {spread(values)}, n = {len(values)} | {late} |")
    begins = [name for name in kept.rows[-1]["begins"] if all(name in row["begins"] for row in kept.rows)]
    medians = [f"{name} {statistics.median(row['begins'][name] for row in kept.rows):.2f}" for name in begins]
    print(f"until the first step, seconds after the start: {', '.join(medians)}")


if __name__ == "__main__":
    main()

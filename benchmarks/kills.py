"""kill -9 at random moments, resume, and compare: is the model the same, byte for byte?

Each round is one run in an empty cache, killed five times (while it audits, decodes, searches, trains, and right
before or after a rename), resumed each time, and at last left to finish. The model is compared with that of a run
which nobody touched.

usage: python benchmarks/kills.py [KILLS] [--out runs/kills] [--seed 0]

KILLS (default 50) is rounded up to whole rounds. Finished rounds are kept in OUT/results.jsonl and not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from wellfit.engine import Engine
from wellfit.recipe.machine import machine
from wellfit.recipe.plan import ChecksPlan, ModelPlan, OptimizerPlan, Plan, SearchPlan, TrainingPlan, save_plan
from wellfit.record import read_record

PHASES = ("audit", "store", "search", "train", "rename")
PLAN = Plan(
    seed=0,
    metric="accuracy",
    loss="cross-entropy",
    schedule="one_cycle",
    augment=("flip", "crop"),
    reasons=("made for benchmarks/kills.py",),
    model=ModelPlan("whitened", "none", 32, 36, "none", 0, {"widths": [16, 32, 64]}),
    optimizer=OptimizerPlan("adamw", 3e-3, 5e-2),
    engine=Engine("cpu", "float32", "channels_last", 1),
    checks=ChecksPlan(100, 20),
    search=SearchPlan(4, 2, 20, 30, 200),
    training=TrainingPlan(steps=300, batch_size=32, steps_per_epoch=39, evaluate_every=39),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", nargs="?", type=int, default=50, metavar="KILLS")
    parser.add_argument("--out", type=Path, default=Path("runs/kills"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    photos, plan = out / "photos", out / "plan.toml"
    if not photos.exists():
        make_photos(photos)
    save_plan(plan, PLAN)
    untouched = out / "untouched"
    if not (untouched / "report.html").exists():
        start(fit_command(photos, plan, untouched), out / "cache-untouched").wait()
    expected = digest(untouched)
    print(f"untouched: {expected[:16]}, test accuracy {accuracy(untouched):.4f}", flush=True)

    results = out / "results.jsonl"
    rounds = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for number in range(len(rounds), -(-arguments.kills // len(PHASES))):
        folder = out / f"round-{number:03d}-{int(time.time())}"
        killed = one_round(number, arguments.seed, fit_command(photos, plan, folder), folder)
        rounds.append({"round": number, "killed": killed, "same": digest(folder) == expected})
        with results.open("a") as file:
            file.write(json.dumps(rounds[-1]) + "\n")
        print(rounds[-1], flush=True)
    print(f"\n{machine()}\n{'killed in':<18} kills")
    counts = Counter(phase for line in rounds for phase in line["killed"])
    for phase, count in counts.most_common():
        print(f"{phase:<18} {count:>5}")
    same = sum(line["same"] for line in rounds)
    print(f"{counts.total()} kills in {len(rounds)} runs; {same} of {len(rounds)} models are the untouched one's bytes")
    sys.exit(same != len(rounds))


def one_round(number: int, seed: int, command: list[str], folder: Path) -> list[str]:
    """Kill one run in each phase, resume it to its end, and say in which step each kill fell."""
    rng = np.random.default_rng([seed, number])
    cache, killed = folder.with_name(f"{folder.name}-cache"), []
    for phase in PHASES:
        renames = int(rng.integers(1, 6)) * (1 if rng.random() < 0.5 else -1) if phase == "rename" else 0
        process = start(take_up(command, folder), cache, renames)
        wait, seen = rng.random(), len(lines_of(folder))
        while process.poll() is None and phase != "rename" and not reached(phase, folder, cache, seen):
            time.sleep(0.005)
        if phase != "rename" and process.poll() is None:
            time.sleep(wait * {"audit": 0.5, "store": 2.0, "search": 4.0, "train": 5.0}[phase])
            process.kill()
        if process.wait() == -signal.SIGKILL:
            begun = [line["name"] for line in lines_of(folder) if line["kind"] == "begin"]
            killed.append(f"{phase} ({begun[-1] if begun else 'start'})")
    while not any(line["kind"] == "end" and line["status"] == "done" for line in lines_of(folder)):
        if start(take_up(command, folder), cache).wait() != 0:
            raise SystemExit(f"the run in {folder} could not be resumed")
    return killed


def reached(phase: str, folder: Path, cache: Path, seen: int) -> bool:
    """Whether the running process has begun this phase."""
    if phase == "store":
        return any((cache / "stores").glob("*/pixels*"))
    new = lines_of(folder)[seen:]
    return any(line["kind"] == "begin" and line["name"] == phase for line in new)


def take_up(command: list[str], folder: Path) -> list[str]:
    """`fit` until the record has its beginning, `resume` from then on."""
    return ["resume", str(folder)] if any(line["kind"] == "run" for line in lines_of(folder)) else command


def fit_command(photos: Path, plan: Path, folder: Path) -> list[str]:
    return ["fit", str(photos), "--plan", str(plan), "--out", str(folder)]


def start(arguments: list[str], cache: Path, renames: int = 0) -> subprocess.Popen[bytes]:
    """wellfit in a process of its own, with a checkpoint every second.

    renames: the process kills itself right before its n-th rename, at -n right after it; 0 never.
    """
    environment = {**os.environ, "WELLFIT_CACHE": str(cache)}
    command = [sys.executable, __file__, "--child", str(renames), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def child(renames: int, arguments: list[str]) -> None:
    """What the child process does; see `start`."""
    from wellfit.cli import main as wellfit_main
    from wellfit.training import loop

    loop.CHECKPOINT_SECONDS = 1.0
    rename, count = os.replace, 0

    def counted(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count == renames:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)
        if count == -renames:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted
    sys.argv = ["wellfit", *arguments]
    wellfit_main()


def make_photos(folder: Path) -> None:
    """scikit-learn's digits as noisy JPEG files of 160 pixels, so that decoding takes a while."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(0)
    for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        pixels = np.kron(image * 12, np.ones((20, 20))) + rng.integers(0, 60, (160, 160))
        path = folder / str(label) / f"{i:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).convert("RGB").save(path, quality=90)


def lines_of(run: Path) -> list[dict]:
    return list(read_record(run / "record.jsonl"))


def accuracy(run: Path) -> float:
    return next(line["accuracy"] for line in lines_of(run) if line["kind"] == "evaluation")


def digest(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]), sys.argv[3:])
    else:
        main()

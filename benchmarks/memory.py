"""Peak memory of `wellfit fit` on N synthetic images of 224 pixels. Does it grow with the number of images?

usage: python benchmarks/memory.py [--images 5000 100000] [--budget 10m] [--out runs/memory]

The images are JPEG files in class folders, made by this program once (about 12 KB each). `fit` runs as a process of its
own with an empty cache; its anonymous memory (RssAnon of /proc/PID/status: what mapped files share with the page cache
does not count) is read twenty times a second, children included, and shown by step of the recipe. Where there is no
/proc, the peak resident size that the system reports is printed instead, mapped files included, and said to be so.

A run of 100,000 images decodes 15 GB into its pixel store, so OUT needs about 20 GB. To reach: at most 2 GB beyond the
model (its weights, gradients, optimizer's state and averages: the parameters × 24 bytes), whatever N. Finished sizes
are kept in OUT/results.jsonl and not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from spread import versions

from wellfit.randomness import generator
from wellfit.record import read_record

SIDE, CLASSES = 224, 10
INTERVAL = 0.05  # seconds between two looks
STATE = 24  # bytes a parameter: weight, gradient, two moments, average, best weights
LIMIT = 2e9


def make_images(folder: Path, images: int) -> Path:
    """Coarse patterns of a class's own colours with noise, quality 85."""
    made = folder / f"photos-{images}"
    if (made / "made").exists():
        return made / "photos"
    for name in range(CLASSES):
        (made / "photos" / f"class{name}").mkdir(parents=True, exist_ok=True)
    colours = generator(0, "memory", "colours").integers(40, 216, (CLASSES, 3))

    def make(i: int) -> None:
        draw, name = generator(0, "memory", i), i % CLASSES
        coarse = np.clip(colours[name] + draw.normal(0, 40, (7, 7, 3)), 0, 255).astype(np.uint8)
        pixels = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        grain = draw.integers(0, 12, (SIDE, SIDE, 1), dtype=np.uint8)
        buffer = BytesIO()
        Image.fromarray(np.asarray(pixels) // 2 + grain).save(buffer, "JPEG", quality=85)
        (made / "photos" / f"class{name}" / f"{i:07d}.jpg").write_bytes(buffer.getvalue())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(make, range(images), chunksize=256):
            pass
    (made / "made").touch()
    return made / "photos"


def anonymous(pid: int) -> int:
    """Bytes of anonymous memory of a process and its children; 0 where it has ended."""
    total, waiting = 0, [pid]
    while waiting:
        number = waiting.pop()
        try:
            status = Path(f"/proc/{number}/status").read_text(encoding="utf-8")
            for task in Path(f"/proc/{number}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text(encoding="utf-8").split()]
        except OSError:
            continue
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        total += 1024 * int(found.group(1)) if found else 0
    return total


def step_now(record: Path) -> str:
    """The recipe's step that began last."""
    lines = [line["name"] for line in read_record(record) if line["kind"] == "begin"]
    return lines[-1] if lines else "start"


def watched(process: subprocess.Popen[str], record: Path) -> dict[str, int]:
    """Peak bytes by step of the recipe, while the process lives."""
    peaks: dict[str, int] = {}
    looked, step = 0.0, "start"
    while process.poll() is None:
        if time.monotonic() - looked > 0.5:  # the record grows; memory is looked at more often than steps change
            looked, step = time.monotonic(), step_now(record)
        peaks[step] = max(peaks.get(step, 0), anonymous(process.pid))
        time.sleep(INTERVAL)
    return peaks


def measure(images: int, budget: str, out: Path) -> dict[str, Any]:
    photos = make_images(out, images)
    run = out / f"run-{images}-{int(time.time())}"
    command = [sys.executable, "-m", "wellfit", "fit", str(photos), "--budget", budget, "--out", str(run), "--json"]
    command += ["--weights", "none"]
    cache = tempfile.mkdtemp(dir=out)
    begun = time.monotonic()
    try:
        process = subprocess.Popen(
            command, env={**os.environ, "WELLFIT_CACHE": cache}, stdout=subprocess.PIPE, text=True
        )
        linux = Path("/proc/self/status").exists()
        peaks = watched(process, run / "record.jsonl") if linux else {}
        said, _ = process.communicate()
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    if process.returncode:
        raise SystemExit(f"`{' '.join(command)}` ended with {process.returncode}")
    plan = next(line for line in read_record(run / "record.jsonl") if line["kind"] == "plan")
    line = {
        "images": images,
        "budget": budget,
        "seconds": round(time.monotonic() - begun, 1),
        "peaks": peaks,
        "measure": "RssAnon" if linux else "ru_maxrss",
        "parameters": plan["parameters"],
        "model": plan["model"],
        "test_accuracy": json.loads(said.splitlines()[-1])["test_accuracy"],
    }
    if not linux:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        line["peaks"] = {"whole run": unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}
    return line


def show(line: dict[str, Any]) -> None:
    model = STATE * line["parameters"]
    peak = max(line["peaks"].values())
    beyond = peak - model
    print(
        f"\n{line['images']:,} images, {line['model']} ({line['parameters']:,} parameters, {model / 1e6:,.0f} MB), "
        f"{line['seconds']:.0f} s, test accuracy {line['test_accuracy']}"
    )
    print(f"  peak {peak / 1e6:,.0f} MB ({line['measure']}), {beyond / 1e6:,.0f} MB beyond the model", end="")
    print(" <- above 2 GB" if beyond > LIMIT else "")
    for step, size in line["peaks"].items():
        print(f"    {step:<12} {size / 1e6:8,.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[5_000, 100_000])
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--out", type=Path, default=Path("runs/memory"))
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    print(versions())
    for images in arguments.images:
        line = next((line for line in done if line["images"] == images and line["budget"] == arguments.budget), None)
        if line is None:
            line = measure(images, arguments.budget, out)
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
        show(line)


if __name__ == "__main__":
    main()

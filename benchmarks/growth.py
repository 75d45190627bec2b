"""How the time of each stage grows: images × 10, classes × 100, trials × 10. Is any step quadratic?

usage: python benchmarks/growth.py [images] [classes] [trials] [--quick] [--repeats 3] [--out runs/growth]

Images are small PNG files in class folders, made by this program in OUT; trials are of a landscape, nothing is trained.
There are as many trials as asked: a search's own schedule ends at 200 to 250 of such a landscape, where no more is to
be gained. The winner is found by a Gaussian process over at most 400 of them: a row of its own, judged as the others.
Each stage is measured at three sizes in processor time of this process, all threads together, so that other work on
the machine counts little. The exponent is that of the two larger sizes, log(time ratio) / log(size ratio), of the
medians: small constant parts weigh less there; beside it, not judged, stands that of the smallest and the largest.
Linear is 1; to reach: 1.05 at most. Stages whose median at the largest
size stays below a twentieth of a second are printed and not judged.

Finished sizes are kept in OUT/results.jsonl and not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from spread import spread, versions

from wellfit.config import Config
from wellfit.data.audit import audit
from wellfit.data.batches import TrainingBatches
from wellfit.data.inspect import inspect
from wellfit.data.near_duplicates import near_duplicate_pairs
from wellfit.data.preprocess import fit_preprocessing
from wellfit.data.sources import open_source
from wellfit.data.split import make_split
from wellfit.data.store import build_store
from wellfit.inference.metrics import fit_temperature, summarise
from wellfit.randomness import generator
from wellfit.record import Record, RunFolder
from wellfit.report.page import write_report
from wellfit.search.rounds import Finished, Round
from wellfit.search.samplers import settings_of
from wellfit.search.space import LogUniform, Space
from wellfit.search.stages import winner
from wellfit.search.study import Study
from wellfit.search.trial import Task, Trial

SIDE = 32
JUDGED = 0.05  # seconds
MOST = 1.05
ROUND = 100  # trials that are drawn at once
SPACE: Space = {"lr": LogUniform(1e-5, 1e-1), "weight_decay": LogUniform(1e-6, 1e-2)}

Times = dict[str, float]


@contextmanager
def stage(times: Times, name: str) -> Iterator[None]:
    begun = time.process_time()
    yield
    times[name] = time.process_time() - begun


def make_images(folder: Path, images: int, classes: int) -> Path:
    """Smooth colour patterns, no two alike but for one copy in a hundred, in class folders."""
    made = folder / f"{images}-in-{classes}"
    if (made / "made").exists():
        return made / "photos"
    draw, width = generator(0, "growth", images, classes), len(str(images))
    for name in range(classes):
        (made / "photos" / f"class{name:05d}").mkdir(parents=True, exist_ok=True)
    pixels = None
    for i in range(images):
        if pixels is None or i % 100:
            coarse = draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            pixels = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels.save(made / "photos" / f"class{i % classes:05d}" / f"{i:0{width}d}.png", compress_level=1)
    (made / "made").touch()
    return made / "photos"


def data_stages(folder: Path, images: int, classes: int) -> Times:
    """From the listing to the evaluation's figures, the network's own passes left out."""
    times: Times = {}
    photos = make_images(folder, images, classes)
    with stage(times, "listing"):
        source = open_source(photos)
    with stage(times, "inspection"):
        inspection = inspect(source)
    with stage(times, "store"):
        store = build_store(source, inspection, np.arange(len(source.names)), short_side=320)
    with stage(times, "near-duplicates"):
        near_duplicate_pairs(store.thumbnails, store.shapes)
    with stage(times, "audit"):
        audited = audit(source, inspection, store)
    with stage(times, "split"):
        split = make_split(source, audited, seed=0, validation=0.15, test=0.15)
    rows = store.row_of[split.train]
    with stage(times, "preprocessing"):
        preprocessing = fit_preprocessing(store, rows, size=SIDE, resize=SIDE, method=Config().preprocessing)
    batches = TrainingBatches(
        store, rows, split.targets[split.train], preprocessing, batch_size=128, augment=("flip", "crop")
    )
    with stage(times, "an epoch's batches"):
        for step in range(batches.steps_per_epoch):
            batches.batch(step)
    return times


def answer_stages(folder: Path, images: int, classes: int) -> Times:
    """The figures of an evaluation, and the report."""
    times: Times = {}
    draw = generator(0, "answers", images, classes)
    targets = np.arange(images) % classes
    logits = draw.standard_normal((images, classes)).astype(np.float32)
    logits[np.arange(images), targets] += 2
    with stage(times, "temperature"):
        fit_temperature(logits, targets)
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    names = [f"class {i}" for i in range(classes)]
    with stage(times, "evaluation"):
        figures = summarise(probabilities, targets, names)
    run = RunFolder(Path(tempfile.mkdtemp(dir=folder)))
    record = Record(run.record)
    record.write("run", schema=1, command="growth", versions={}, machine={}, seed=0, started=0.0, spent_before=0.0)
    splits = {"train": images, "validation": images, "test": images}
    record.write("audit", images=images, classes=dict.fromkeys(names, 9), left_out=[], splits=splits, sentences=[])
    record.write("evaluation", split="test", mistakes=[], samples=[], views="none", **figures)
    record.close()
    with stage(times, "report"):
        write_report(run)
    shutil.rmtree(run.path)
    return times


@dataclass(frozen=True)
class Rounds:
    """Trials drawn at random, a round after the other, whatever they come to."""

    asked: int

    def next(self, trials: list[Trial], /) -> Round | Finished:
        begun = len(trials) // ROUND * ROUND
        if len(trials) == self.asked:
            return Finished("as many as asked", (), None)
        numbers = range(begun, min(begun + ROUND, self.asked))
        drawn = [settings_of("random", SPACE, seed=0, number=number) for number in numbers]
        tasks = [Task(number, "coarse", settings, 1.0) for number, settings in zip(numbers, drawn, strict=True)]
        return Round("coarse", 0, tuple(tasks), SPACE, "drawn at random")


def pretended(task: Task) -> Trial:
    """The score of a smooth landscape with its best at lr 1e-3."""
    score = 0.9 - 0.05 * abs(math.log10(task.settings["lr"]) + 3) - 0.02 / task.epochs
    score += 0.003 * float(generator(0, "growth", task.number).standard_normal())
    return Trial(
        stage=task.stage,
        number=task.number,
        settings=task.settings,
        state="finished",
        score=score,
        error=0.005,
        loss=1 - score,
        rung=task.rung,
        epochs=task.epochs,
        continues=task.continues,
    )


def search_stages(folder: Path, asked: int) -> tuple[int, Times]:
    """A search's own work: drawing, claims and trials in SQLite, the winner; and its report."""
    times: Times = {}
    run = RunFolder(Path(tempfile.mkdtemp(dir=folder)))
    record = Record(run.record)
    record.write("run", schema=1, command="growth", versions={}, machine={}, seed=0, started=0.0, spent_before=0.0)

    def noted(task: Task) -> Trial:
        trial = pretended(task)
        fields = {"trial": trial.number, "validation_accuracy": trial.score, "validation_loss": trial.loss}
        record.write("trial", **{**vars(trial), **fields, "curve": [[1, 2.0], [2, 1.0]]})
        return trial

    with Study.open(run.search, "growth", identity={}, schedule={}) as study:
        with stage(times, "search bookkeeping"):
            study.work(Rounds(asked), noted, worker="1", stop=lambda: False)
        trials = study.trials()
    with stage(times, "winner"):
        winner(trials, None, SPACE)
    record.close()
    with stage(times, "report"):
        write_report(run)
    shutil.rmtree(run.path)
    return len(trials), times


def measured(axis: str, size: int, folder: Path, quick: bool) -> tuple[int, Times]:
    """One axis at one size: what grows, and the seconds of each stage."""
    if axis == "images":
        return size, data_stages(folder, size, 10) | answer_stages(folder, size, 10)
    if axis == "classes":
        return size, data_stages(folder, 4_000 if quick else 20_000, size) | answer_stages(folder, 2_000, size)
    return search_stages(folder, size)


SIZES = {
    "images": ([500, 1_500, 5_000], [10_000, 30_000, 100_000]),
    "classes": ([5, 50, 500], [10, 100, 1_000]),
    "trials": ([50, 100, 200], [100, 300, 1_000]),
}
"""Quick and whole. Of trials: how many the search may have at most."""


def print_axis(axis: str, lines: list[dict[str, Any]]) -> None:
    sizes = sorted({line["asked"] for line in lines})
    grown = {size: next(line["size"] for line in lines if line["asked"] == size) for size in sizes}
    print(f"\n{axis}: seconds of processor time, median (range), at {', '.join(f'{grown[s]:,}' for s in sizes)}")
    for name in lines[0]["times"]:
        seconds = {size: [line["times"][name] for line in lines if line["asked"] == size] for size in sizes}
        cells = "  ".join(f"{spread(seconds[size]):>22}" for size in sizes)
        last = statistics.median(seconds[sizes[-1]])
        whole, exponent = (
            math.log(max(last, 1e-9) / max(statistics.median(seconds[size]), 1e-9))
            / math.log(grown[sizes[-1]] / grown[size])
            for size in (sizes[0], sizes[-2])
        )
        verdict = "too short to judge" if last < JUDGED else "" if exponent <= MOST else "<- above linear"
        print(f"  {name:<20} {cells}  exponent {exponent:5.2f} (whole {whole:5.2f}) {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/growth"))
    arguments = parser.parse_args()
    axes = arguments.axes or list(SIZES)
    for axis in axes:
        if axis not in SIZES:
            parser.error(f"an axis is one of {', '.join(SIZES)}, got '{axis}'")
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = out / ("quick.jsonl" if arguments.quick else "results.jsonl")
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    print(versions())
    answer_stages(out, 200, 5)  # imports are no part of any stage
    search_stages(out, 8)
    for axis in axes:
        for repeat in range(arguments.repeats):
            for asked in SIZES[axis][0 if arguments.quick else 1]:
                if any((line["axis"], line["repeat"], line["asked"]) == (axis, repeat, asked) for line in done):
                    continue
                with tempfile.TemporaryDirectory(dir=out) as cache:
                    os.environ["WELLFIT_CACHE"] = cache
                    size, times = measured(axis, asked, out, arguments.quick)
                line = {"axis": axis, "repeat": repeat, "asked": asked, "size": size, "times": times}
                done.append(line)
                with results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
        print_axis(axis, [line for line in done if line["axis"] == axis])


if __name__ == "__main__":
    main()

"""How fast images come: the first pass, later passes, and what a training waits for.

usage: python benchmarks/first_pass.py [DATA] [--images 2000] [--size 500x375] [--quick] [--repeats 3] [--out DIR]

DATA is a folder or an archive. Without it: synthetic photographs of --size pixels, JPEG, quality 90, a tenth of them
turned by EXIF, made once in OUT. Three measures, each `repeats` times:

1. first pass: `open_source`, `inspect` and `build_store` in an empty cache (read, hash, decode, orient, resize to a
   short side of 320, write), images a second of wall time, against cores × the fastest decoder in one thread. Decoders:
   Pillow, Pillow with draft scaling, torchvision, simplejpeg, each whole images and nothing else, and the store's own
   decoding with its resizing. The first ratio (to reach: 0.8) is against the fastest that decodes whole images; the
   second against the same work in one thread, which leaves what the hashing, the writing and the threads cost.
2. later passes: training views of 224 pixels from the store, against the first pass (to reach: 5 times).
3. waiting: a `wellfit train` of a ResNet-18 on these images, `repeats` times; the share of all steps' time that it
   waited for data (to reach: 5%; of batches that are made between the steps, their making), and whether the
   report says it.

Other work on the machine slows all of them; the ratios are taken within one repetition, decoder and store in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from simplejpeg import decode_jpeg
from spread import spread, versions
from torchvision.io import decode_jpeg as torchvision_jpeg

import wellfit
from wellfit.config import Config
from wellfit.cores import usable_cores
from wellfit.data.batches import TrainingBatches
from wellfit.data.decode import decode
from wellfit.data.inspect import inspect
from wellfit.data.preprocess import Preprocessing
from wellfit.data.sources import open_source
from wellfit.data.store import build_store
from wellfit.randomness import generator
from wellfit.recipe.prepare import LARGEST_SHORT_SIDE
from wellfit.record import read_record

CLASSES, DECODED = 4, 300  # of the images are decoded by each single-thread decoder
RATIO, LATER, WAIT = 0.8, 5.0, 0.05


def make_photos(folder: Path, images: int, width: int, height: int) -> Path:
    """Patterns with edges and grain, about as large as photographs of their size."""
    made = folder / f"photos-{images}-{width}x{height}"
    if (made / "made").exists():
        return made / "photos"
    for i in range(images):
        draw, name = generator(0, "first pass", i), made / "photos" / f"class{i % CLASSES}"
        name.mkdir(parents=True, exist_ok=True)
        coarse = draw.integers(0, 256, (24 + 6 * (i % CLASSES), 32, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels = np.clip(pixels + draw.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if i % 10 == 0 else 1
        Image.fromarray(pixels).save(name / f"{i:06d}.jpg", quality=90, exif=exif if i % 10 == 0 else b"")
    (made / "made").touch()
    return made / "photos"


def by_pillow(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").load()


def by_drafted_pillow(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (LARGEST_SHORT_SIDE, LARGEST_SHORT_SIDE))
        image.load()


def by_torchvision(data: bytes) -> None:
    torchvision_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))


DECODERS: dict[str, Callable[[bytes], object]] = {
    "Pillow": by_pillow,
    "Pillow, draft": by_drafted_pillow,
    "torchvision": by_torchvision,
    "simplejpeg": lambda data: decode_jpeg(data, "RGB"),
    "the store's own": lambda data: decode(data, LARGEST_SHORT_SIDE),
}
WHOLE = ("Pillow", "torchvision", "simplejpeg")


@contextlib.contextmanager
def empty_cache(folder: Path) -> Iterator[None]:
    """Stores are built anew, and gone afterwards."""
    before, cache = os.environ.get("WELLFIT_CACHE"), tempfile.mkdtemp(dir=folder)
    os.environ["WELLFIT_CACHE"] = cache
    try:
        yield
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        os.environ.pop("WELLFIT_CACHE") if before is None else os.environ.update(WELLFIT_CACHE=before)


def decoders(files: Sequence[bytes]) -> dict[str, float]:
    """Images a second of each, in one thread."""
    found = {}
    for name, work in DECODERS.items():
        begun = time.perf_counter()
        for data in files:
            work(data)
        found[name] = len(files) / (time.perf_counter() - begun)
    return found


def passes(photos: Path, augment: tuple[str, ...] = ("flip", "crop")) -> tuple[float, float]:
    """Images a second of the first pass and of an epoch's training views."""
    begun = time.perf_counter()
    source = open_source(photos)
    inspection = inspect(source)
    store = build_store(source, inspection, np.flatnonzero(inspection.usable), short_side=LARGEST_SHORT_SIDE)
    first = len(store) / (time.perf_counter() - begun)
    rows = np.flatnonzero(store.usable)
    preprocessing = Preprocessing(224, 256, (0.5,) * 3, (0.25,) * 3)
    targets = rows % CLASSES
    batches = TrainingBatches(store, rows, targets, preprocessing, batch_size=64, augment=augment, classes=CLASSES)
    begun = time.perf_counter()
    for step in range(batches.steps_per_epoch):
        batches.batch(step)
    return first, batches.steps_per_epoch * batches.batch_size / (time.perf_counter() - begun)


def waited(photos: Path, out: Path, budget: str) -> tuple[float, bool]:
    """The share of the steps' time that a training waited for data, and whether its page says it."""
    config = Config().replace(
        **{"model.name": "resnet18", "model.weights": "none", "optimizer.lr": 1e-3, "optimizer.weight_decay": 0.05}
    )
    run = wellfit.train(photos, config, out=out / f"run-{int(time.time())}", budget=budget, force=True)
    steps = [line for line in read_record(run.folder.record) if line["kind"] == "step"]
    lengths = [1 / line["images_per_second"] for line in steps]  # of steps of one size
    share = sum(line["wait"] * length for line, length in zip(steps, lengths, strict=True)) / sum(lengths)
    return share, "waiting for data" in run.folder.report.read_text(encoding="utf-8")


def pixels(text: str) -> tuple[int, int]:
    """Width and height."""
    try:
        width, height = (int(part) for part in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a size is width and height, as 500x375; got {text!r}") from None
    return width, height


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--size", type=pixels, default=(500, 375), help="of the synthetic photographs, as 500x375")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget", default="1m", help="of the training that is watched for waiting")
    parser.add_argument("--quick", action="store_true", help="200 images, one repetition, no training")
    parser.add_argument("--out", type=Path, default=Path("runs/first-pass"))
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    photos = arguments.data or make_photos(out, 200 if arguments.quick else arguments.images, *arguments.size)
    source = open_source(photos)
    some = np.linspace(0, len(source.names) - 1, min(DECODED, len(source.names))).astype(int)
    files = [data for data in (source.reader.read(int(i)) for i in some) if isinstance(data, bytes)]
    cores = usable_cores()
    print(f"{versions()}\n{len(source.names):,} images, {np.mean([len(f) for f in files]) / 1e3:.0f} kB on the average")
    speeds: dict[str, list[float]] = {name: [] for name in DECODERS}
    first, later = [], []
    with empty_cache(out):
        passes(photos)  # imports, page cache
    for _ in range(1 if arguments.quick else arguments.repeats):
        for name, speed in decoders(files).items():
            speeds[name].append(speed)
        with empty_cache(out):
            one, other = passes(photos)
        first.append(one)
        later.append(other)
    print("decoders, images a second in one thread, median (range)")
    for name, values in speeds.items():
        print(f"  {name:<16} {spread(values, 0)}")
    best = [max(speeds[name][i] for name in WHOLE) for i in range(len(first))]
    ratios = [speed / cores / decoder for speed, decoder in zip(first, best, strict=True)]
    own = [speed / cores / decoder for speed, decoder in zip(first, speeds["the store's own"], strict=True)]
    times = [b / a for a, b in zip(first, later, strict=True)]
    print(f"first pass        {spread(first, 0)} images/s")
    print(f"  of {cores} cores × the fastest decoder: {spread(ratios)}{_missed(statistics.median(ratios) < RATIO)}")
    print(f"  of {cores} cores × its own work in one thread: {spread(own)}")
    print(
        f"later passes      {spread(later, 0)} images/s, {spread(times)} times the first{_missed(min(times) < LATER)}"
    )
    if not arguments.quick:
        found = [waited(photos, out, arguments.budget) for _ in range(arguments.repeats)]
        shares = [100 * share for share, _ in found]
        told = "says" if all(said for _, said in found) else "is silent on"
        late = _missed(statistics.median(shares) > 100 * WAIT)
        print(f"waiting for data  {spread(shares, 1)}% of the steps' time{late}; the report {told} it")


def _missed(is_missed: bool) -> str:
    return "  <- missed" if is_missed else ""


if __name__ == "__main__":
    main()

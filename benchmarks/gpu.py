"""A training on one GPU against a bare loop written for that card; and many small trials packed on it.

usage: python benchmarks/gpu.py [--repeats 5] [--steps 400] [--batch 512] [--out FILE] [--cpu]

The network of the main job (`whitened`, widths 64, 128, 256, 32-pixel images), AdamW under one cycle, flips and shifts,
label smoothing; random images, since speed alone is measured (accuracy: `main_job.py`). All pixels lie on the device.

1. speed: images a second of wellfit's own loop (`training.loop.train` with its record and its average of weights) and
   of the bare loop, in turn, `repeats` times, for bf16 and fp16, compiled and not, and the ratio (to reach: 0.95 in
   bf16). wellfit has no fp16 (its small gradients vanish without a scaler), so that column is the bare loop's alone.
   Pixels that lie on the device are this program's: `fit` keeps them in the processor's memory and sends each batch.
   The monitor is left out (`monitor_overhead.py` measures it).
2. share of the bf16 peak: 3 × the forward pass's operations × images a second, not compiled, as `fit` trains, against
   a product of two 8192×8192 matrices measured in the same run (to reach: 35%).
3. waits for the device that wellfit's loop makes, by torch's own synchronisation warnings: two for each 10 steps'
   losses are meant and a few at the end, none a step.
4. packing: K small networks with rates of their own, one after the other and as one program (`packing.py`), trials an
   hour of each way and the ratio (to reach: 5 times).

Without a GPU it says so and ends with 0; `--cpu` runs every part on the processor in its smallest size, which shows
that it runs and says nothing of speed. Needs torch 2.11 or later, Python 3.11 or later.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packing import NETS, in_turn, packed
from spread import spread, versions
from torch import Tensor, nn
from torch.nn import functional

from wellfit.data.batches import Batch
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.models.complexity import complexity
from wellfit.models.zoo import build
from wellfit.training.averaging import WeightAverage
from wellfit.training.loop import READ_LOSS_EVERY, train
from wellfit.training.optimizers import build_optimizer
from wellfit.training.pace import Pace
from wellfit.training.regularize import build_criterion
from wellfit.training.schedules import schedule

SIDE, CLASSES, SHIFT = 32, 10, 2
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
LR, DECAY, SMOOTHING = 6e-3, 0.05, 0.1
RATIO, SHARE, PACKED = 0.95, 0.35, 5.0
FEW = 10  # waits at a training's begin and end
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Size:
    """How much is measured. peak: side of the matrices; networks: how many are packed."""

    images: int
    batch: int
    steps: int
    peak: int
    networks: tuple[int, ...]
    packed_steps: int
    widths: tuple[int, int, int] = (64, 128, 256)


class Resident:
    """Batches whose pixels lie on the device; as `TrainingBatches` for the loop. Flips and shifts are made there."""

    def __init__(self, size: Size, device: str) -> None:
        source = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (size.images, 3, SIDE, SIDE), dtype=torch.uint8, generator=source)
        self.pixels = functional.pad(pixels, (SHIFT,) * 4).to(device)
        self.labels = torch.randint(CLASSES, (size.images,), generator=source).to(device)
        self.targets = self.labels.cpu().numpy()
        self.images, self.batch_size, self.seed = size.images, size.batch, 0
        self.steps_per_epoch = size.images // size.batch
        self.source = torch.Generator(device).manual_seed(0)
        self.device = device

    def draw(self) -> tuple[Tensor, Tensor]:
        """Pixels uint8 N×3×S×S in channels_last, and labels; nothing here waits for the device."""
        chosen = torch.randint(self.images, (self.batch_size,), generator=self.source, device=self.device)
        place = torch.randint(2 * SHIFT + 1, (2, self.batch_size, 1), generator=self.source, device=self.device)
        flipped = torch.randint(2, (self.batch_size, 1), generator=self.source, device=self.device)
        steps = torch.arange(SIDE, device=self.device)
        rows, columns = place[0] + steps, place[1] + torch.where(flipped == 1, SIDE - 1 - steps, steps)
        # The channel in the middle of index tensors moves last: N×S×S×3.
        views = self.pixels[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return views.permute(0, 3, 1, 2), self.labels[chosen]

    def batch(self, step: int, part: slice | None = None) -> Batch:
        images, labels = self.draw()
        return Batch(images, labels, np.zeros(0, np.int64))


def network(size: Size, device: str) -> nn.Module:
    net = build("whitened", CLASSES, image_size=SIDE, seed=0, widths=size.widths).module
    net.initialise_from_data(torch.randn(64, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))
    return net.to(device).to(memory_format=torch.channels_last)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(work: Callable[[], None], device: str) -> float:
    wait(device)
    begun = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begun


class Bare:
    """The loop that one would write by hand: fused AdamW, autocast, normalising on the device, no reading of losses."""

    def __init__(self, size: Size, device: str, dtype: torch.dtype, compiled: bool) -> None:
        self.size, self.device, self.dtype = size, device, dtype
        self.batches, self.net = Resident(size, device), network(size, device)
        self.forward: Callable[[Tensor], Tensor] = torch.compile(self.net) if compiled else self.net
        decaying = [p for p in self.net.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in self.net.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": decaying, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)
        self.scaler = torch.amp.GradScaler(device, enabled=dtype is torch.float16 and device == "cuda")
        self.mean = 255 * torch.tensor(MEAN, device=device).view(1, 3, 1, 1)
        self.scale = 1 / (255 * torch.tensor(STD, device=device).view(1, 3, 1, 1))
        self.run(2)  # kernels, compilation

    def run(self, steps: int) -> None:
        rate = schedule("one_cycle")
        self.net.train()
        for step in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = LR * rate(step / steps)
            images, labels = self.batches.draw()
            inputs = ((images.float() - self.mean) * self.scale).contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device, self.dtype):
                loss = functional.cross_entropy(self.forward(inputs).float(), labels, label_smoothing=SMOOTHING)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()


class Ours:
    """wellfit's loop, with a record in memory and an average of the weights."""

    def __init__(self, size: Size, device: str, compiled: bool) -> None:
        self.device = device
        self.batches, self.net = Resident(size, device), network(size, device)
        if compiled:
            self.net.compile()
        self.optimizer = build_optimizer("adamw", self.net, lr=LR, weight_decay=DECAY)
        self.average = WeightAverage(self.net, 0.999, ramp=True)
        self.engine = Engine(device, "bfloat16", "channels_last", torch.get_num_threads())
        self.lines = 0
        self.run(2)

    def write(self, kind: str, **fields: Any) -> None:
        self.lines += 1

    def run(self, steps: int) -> None:
        train(
            self.net,
            self.batches,
            build_criterion(label_smoothing=SMOOTHING).to(self.device),
            self.optimizer,
            engine=self.engine,
            preprocessing=Preprocessing(SIDE, SIDE, MEAN, STD),
            schedule=schedule("one_cycle"),
            pace=Pace(steps),
            evaluate_every=steps,
            average=self.average,
            record=self,
        )


def peak(side: int, device: str) -> float:
    """Operations a second of the best of five products of bf16 matrices."""
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = [timed(lambda: torch.mm(one, other), device) for _ in range(6)]
    return 2 * side**3 / min(times[1:])


def waits(ours: Ours, steps: int) -> int:
    """How often the loop waited for the GPU in so many steps, by torch's count."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ours.run(steps)
        return sum("synchroniz" in str(warning.message) for warning in caught)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def packing(name: str, count: int, steps: int, device: str) -> tuple[float, float]:
    """Seconds of K networks one after the other, and packed."""
    side, make = NETS[name]
    draw = torch.Generator().manual_seed(0)
    batches = [
        (
            (torch.rand(64, 3, side, side, generator=draw) - 0.5).to(device),
            torch.randint(0, 10, (64,), generator=draw).to(device),
        )
        for _ in range(steps)
    ]
    lr, decay = [0.01 * (1 + i % 4) for i in range(count)], [1e-4 * (i % 3) for i in range(count)]
    seconds = []
    for way in (in_turn, packed):
        way([make(seed).to(device) for seed in (0, 1)], batches[:2], lr[:2], decay[:2])  # kernels are loaded
        nets = [make(seed).to(device) for seed in range(count)]
        seconds.append(timed(lambda way=way, nets=nets: way(nets, batches, lr, decay), device))
    return seconds[0], seconds[1]


def measure(size: Size, device: str, repeats: int) -> dict[str, Any]:
    """All parts, printed as they come, and returned."""
    found: dict[str, Any] = {"speeds": {}, "packing": {}}
    images = size.batch * size.steps
    print(f"\nimages a second, batch {size.batch}, {size.steps} steps, median (range) of {repeats}")
    # The processor's part shows that all of it runs; a compiler for it may be missing.
    for compiled in (False, True) if device == "cuda" else (False,):
        ours = Ours(size, device, compiled)
        loops = {f"bare {name}": Bare(size, device, dtype, compiled) for name, dtype in DTYPES.items()}
        speeds: dict[str, list[float]] = {"wellfit bf16": [], **{name: [] for name in loops}}
        for _ in range(repeats):
            for name, loop in {"wellfit bf16": ours, **loops}.items():
                speeds[name].append(images / timed(lambda loop=loop: loop.run(size.steps), device))
        label = "compiled" if compiled else "eager"
        found["speeds"][label] = speeds
        for name, values in speeds.items():
            print(f"  {label:<9} {name:<13} {spread(values, 0)}")
        pairs = zip(speeds["wellfit bf16"], speeds["bare bf16"], strict=True)
        ratios = [one / other for one, other in pairs]
        print(f"  {label:<9} ratio         {spread(ratios)}{_missed(statistics.median(ratios) < RATIO)}")
    cost = peak(size.peak, device)
    best = statistics.median(found["speeds"]["eager"]["wellfit bf16"])
    found["peak"], found["share"] = cost, 3 * complexity(network(size, "cpu"), SIDE).flops * best / cost
    print(f"bf16 peak {cost / 1e12:.1f} TFLOP/s; training takes {found['share']:.1%}{_missed(found['share'] < SHARE)}")
    if device == "cuda":
        found["waits"] = waits(Ours(size, device, False), 100)
        meant = 2 * 100 // READ_LOSS_EVERY + FEW
        print(f"waits for the device in 100 steps: {found['waits']}{_missed(found['waits'] > meant)}")
    print("packing        networks   in turn, trials/h     packed, trials/h  times")
    for name in NETS:
        for count in size.networks:
            times = [packing(name, count, size.packed_steps, device) for _ in range(repeats)]
            hourly = [[3600 * count / seconds for seconds in column] for column in zip(*times, strict=True)]
            ratios = [one / other for one, other in times]
            found["packing"][f"{name} {count}"] = times
            low = _missed(statistics.median(ratios) < PACKED)
            print(
                f"  {name:<12} {count:>8} {spread(hourly[0], 0):>20} {spread(hourly[1], 0):>20}  {spread(ratios)}{low}"
            )
    return found


def _missed(is_missed: bool) -> str:
    return "  <- missed" if is_missed else ""


SMALLEST = Size(64, 16, 3, 64, (2,), 2, (16, 16, 16))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--networks", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--out", type=Path, help="a file for all figures, JSON")
    parser.add_argument("--cpu", action="store_true")
    given = parser.parse_args(arguments)
    print(versions())
    if not torch.cuda.is_available() and not given.cpu:
        print("no GPU: torch finds none here, so nothing is measured")
        return
    device = "cpu" if given.cpu else "cuda"
    if given.cpu:
        print("on the processor, in the smallest size: that all parts run is shown, and nothing of speed")
    if device == "cuda":
        print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, Python {platform.python_version()}")
    size = Size(50_000, given.batch, given.steps, 8192, tuple(given.networks), 100)
    found = measure(SMALLEST if given.cpu else size, device, 1 if given.cpu else given.repeats)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps({"versions": versions(), "device": device, **found}), encoding="utf-8")


if __name__ == "__main__":
    main()

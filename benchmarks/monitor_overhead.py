"""What watching costs: ResNet-18 (CIFAR form) at 32 pixels, batch 128, on the CPU, with and without a Monitor.

Two equal networks train on the same batches in one process, in turns of ten steps each (the monitor at its defaults
watches every tenth step closely); who goes first alternates. Given are the ratio of the seconds in each pair of turns,
its mean, spread and 95% interval, and besides the processor time that the monitor's own functions took, as a share of
the steps: that figure has little noise, also where the machine has other work. The first turn, in which three steps
are watched, is not counted.
Memory: what the monitor holds and what its work allocates at most (tracemalloc and tensors), without the history.

usage: python benchmarks/monitor_overhead.py [--turns 5] [--threads N] [--batch 128] [--device cpu] [--out FILE.json]

Turns are kept in FILE as they end; a killed run goes on after the last one.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18

from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.turns import is_watched
from wellfit.record import write_atomically

STEPS = 10  # one turn: one closely watched step and nine others
BOUND, MEMORY = 1.03, 5e6
# Student's t, two-sided 95%, by degrees of freedom.
T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 14: 2.14, 19: 2.09, 29: 2.05}


class Training:
    """One network and its optimizer; watched or not."""

    def __init__(self, device: torch.device, batch: int, *, watched: bool) -> None:
        torch.manual_seed(0)
        self.model = resnet18(num_classes=10)
        self.model.conv1, self.model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
        self.model.to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
        self.monitor = Monitor(self.model, self.optimizer) if watched else None
        self.watch_step: Callable[..., None] | None = self.monitor.step if self.monitor else None
        draw = torch.Generator().manual_seed(1)
        self.batches = [
            (torch.randn(batch, 3, 32, 32, generator=draw).to(device), torch.randint(10, (batch,)).to(device))
            for _ in range(2)
        ]
        self.device = device

    def turn(self, steps: int = STEPS) -> tuple[float, float]:
        """Seconds of some steps, by the clock and of the processor."""
        self._wait()
        begun, worked = time.perf_counter(), time.process_time()
        for step in range(steps):
            self.step(*self.batches[step % 2])
        self._wait()
        return time.perf_counter() - begun, time.process_time() - worked

    def step(self, x: Tensor, y: Tensor) -> None:
        loss = F.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.watch_step is not None:
            self.watch_step(loss, targets=y)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    setting = {"batch": given.batch, "threads": torch.get_num_threads(), "device": given.device}
    kept: dict[str, Any] = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    kept = kept or {"setting": setting, "turns": []}
    if kept["setting"] != setting:
        parser.error(f"{given.out} holds turns of another setting, {kept['setting']}; give another --out")
    device = torch.device(given.device)
    plain, watched = (Training(device, given.batch, watched=w) for w in (False, True))
    own = Own(watched)
    plain.turn()
    watched.turn()
    own.seconds = 0.0
    while len(kept["turns"]) < given.turns:
        order = (plain, watched) if len(kept["turns"]) % 2 else (watched, plain)
        seconds = {one is watched: one.turn() for one in order}
        (plain_seconds, _), (watched_seconds, worked) = seconds[False], seconds[True]
        turn = {"plain": plain_seconds, "watched": watched_seconds, "worked": worked, "own": own.seconds}
        kept["turns"].append(turn)
        own.seconds = 0.0
        print(f"turn {len(kept['turns'])}: {plain_seconds:.3f} s, watched {watched_seconds:.3f} s", flush=True)
        if given.out:
            write_atomically(given.out, json.dumps(kept))
    report(kept["turns"], setting)
    held, peak = memory(watched)
    bound = f"bound {MEMORY / 1e6:g} MB"
    print(f"memory: holds {held / 1e6:.2f} MB, at most {peak / 1e6:.2f} MB while it looks at a step ({bound})")


def report(turns: list[dict[str, float]], setting: dict[str, Any]) -> None:
    ratios = [t["watched"] / t["plain"] for t in turns]
    own = [t["own"] / (t["worked"] - t["own"]) for t in turns]
    step = 1000 * statistics.median(t["plain"] for t in turns) / STEPS
    print(f"{setting}: {step:.1f} ms a step (median), n = {len(turns)} turns of {STEPS} steps")
    for name, values, offset in (("seconds with / without", ratios, 0.0), ("1 + the monitor's own share", own, 1.0)):
        mean = statistics.fmean(values) + offset
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        nearest = max((k for k in T95 if k <= len(values) - 1), default=1)
        half = T95[nearest] * deviation / math.sqrt(len(values))
        verdict = "within" if mean <= BOUND else "beyond"
        print(f"{name}: {mean:.4f} ± {half:.4f} (95%), deviation {deviation:.4f}; {verdict} {BOUND}")


class Own:
    """Adds up the processor's seconds in the monitor's own functions, those called within each other once."""

    def __init__(self, training: Training) -> None:
        self.seconds, self._inside = 0.0, False
        if training.watch_step is not None:
            training.watch_step = self.timed(training.watch_step)
        tables = [t for m in training.model.modules() for t in (m._forward_pre_hooks, m._forward_hooks)]
        tables += [training.optimizer._optimizer_step_pre_hooks, training.optimizer._optimizer_step_post_hooks]
        for hooks in tables:  # nobody but the monitor has hooks here
            for key, hook in list(hooks.items()):
                hooks[key] = self.timed(hook)

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside, begun = True, time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False
                self.seconds += time.process_time() - begun

        return call


def memory(training: Training) -> tuple[float, float]:
    """Bytes that the monitor holds between two steps, and the most that it takes at a watched one."""
    monitor = training.monitor
    assert monitor is not None
    x, y = training.batches[0]
    training.step(x, y)
    while not is_watched(monitor.steps, STEPS):
        training.step(x, y)
    between = tensor_bytes(training)
    tracemalloc.start()
    loss = F.cross_entropy(training.model(x), y)
    training.optimizer.zero_grad()
    loss.backward()
    training.optimizer.step()
    base, during = tracemalloc.get_traced_memory()[0], tensor_bytes(training)
    tracemalloc.reset_peak()
    monitor.step(loss, targets=y)
    peak = tracemalloc.get_traced_memory()[1] - base
    tracemalloc.stop()
    assert monitor.watched
    return between, during + peak


def tensor_bytes(training: Training) -> float:
    """Bytes of tensors reachable from the monitor, but for the network's, the optimizer's and the batch."""
    others = {t.untyped_storage().data_ptr() for t in (*training.model.parameters(), *training.model.buffers())}
    others |= {t.untyped_storage().data_ptr() for pair in training.batches for t in pair}
    others |= {p.grad.untyped_storage().data_ptr() for p in training.model.parameters() if p.grad is not None}
    monitor, found = training.monitor, {}
    assert monitor is not None
    seen: set[int] = set()
    waiting: list[Any] = [monitor]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, nn.Module | torch.optim.Optimizer | str | bytes):
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            storage = one.untyped_storage()
            if storage.data_ptr() not in others:
                found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list | tuple | set):
            waiting += one
        elif type(one).__module__.startswith("wellfit.diagnosis") and one is not monitor.history:
            waiting += vars(one).values() if hasattr(one, "__dict__") else []
    return float(sum(found.values()))


if __name__ == "__main__":
    main()

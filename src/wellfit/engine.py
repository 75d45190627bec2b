"""The engine: device, dtype, layout and threads, chosen by measuring a few training steps.

It has a floor of its own, below inference and training: prediction needs it too.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from wellfit.allocator import keep_freed_memory
from wellfit.config import EngineConfig
from wellfit.data.preprocess import Preprocessing
from wellfit.errors import UserError, unknown_name

# float16 is not offered: its small gradients vanish without a scaler, and bfloat16 needs none.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CORES = torch.get_num_threads()  # what torch takes by itself, before a run sets another count
ROUNDS = 3  # turns that each candidate takes in the probe
HOPELESS = 1.5  # times slower than the leader in its first turn: it gets no second one
PROBE_SECONDS, PROBE_SHARE = 10.0, 0.03  # what measuring may take: so much, and no more than this share of the budget
FIRST_TURNS = 16  # steps of the quickest engine that the first turns of all candidates take, warm-up included
CLEARLY = 1.15  # how much faster one thread must be: on a busy machine all threads look slower than they are
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Engine:
    """Where and in which arithmetic a network runs. Weights stay float32; `dtype` is that of autocast."""

    device: str = "cpu"
    dtype: str = "float32"
    layout: str = "channels_last"
    threads: int = 1

    def activate(self) -> None:
        """Set the process's thread count, and let it keep freed memory; called before a stage's first step."""
        keep_freed_memory()
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)

    def place(self, module: nn.Module) -> nn.Module:
        """The module on this device and in this layout (in place, as `nn.Module.to`)."""
        return module.to(self.device).to(memory_format=LAYOUTS[self.layout])

    def inputs(self, pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
        """uint8 N×3×S×S → the network's float input, on the device and in the layout."""
        values = preprocessing.normalise(pixels.to(self.device, non_blocking=True))
        return values.contiguous(memory_format=LAYOUTS[self.layout])

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, DTYPES[self.dtype])

    @property
    def line(self) -> str:
        threads = f", {self.threads} thread{'s' if self.threads != 1 else ''}" if self.device == "cpu" else ""
        return f"{self.device}, {self.dtype}, {self.layout}{threads}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def training_speed(
    module: nn.Module, engine: Engine, shape: tuple[int, int, int], batch_size: int, classes: int, seconds: float
) -> float:
    """Images a second of forward, backward and an SGD step on random input; the module is left as it was.

    shape: channels, height, width. Measures for about `seconds`, at least one step after one warm-up, and takes the
    quickest: other work on the machine only ever slows a step down, and it must not decide what is chosen.
    """
    engine.activate()
    step = random_step(engine.place(copy.deepcopy(module)).train(), engine, shape, batch_size, classes)
    step()
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < 50):
        times.append(step())
    return batch_size / min(times)


def random_step(
    network: nn.Module, engine: Engine, shape: tuple[int, int, int], batch_size: int, classes: int
) -> Callable[[], float]:
    """A training step of a network that is in its place, on one batch of random input; it returns its seconds."""
    source = torch.Generator().manual_seed(0)
    inputs = torch.randn((batch_size, *shape), generator=source).to(engine.device)
    inputs = inputs.contiguous(memory_format=LAYOUTS[engine.layout])
    targets = torch.randint(classes, (batch_size,), generator=source).to(engine.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

    def step() -> float:
        begin = time.perf_counter()
        with engine.autocast():
            loss = functional.cross_entropy(network(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if engine.device != "cpu":
            loss.item()  # waits for the device
        return time.perf_counter() - begin

    return step


def choose_engine(
    module: nn.Module,
    shape: tuple[int, int, int],
    classes: int,
    requested: EngineConfig,
    *,
    batch_size: int = 32,
    seconds: float = 4.0,
) -> tuple[Engine, list[dict[str, Any]]]:
    """Measure the sensible engines on the network itself and return the fastest, with all figures.

    On a CPU one thread measures and all are returned: dtype and layout rank alike, and one thread is not held up when
    another program takes a core. The candidates take turns, so that a burst of other work does not fall on one alone;
    each has one turn, and up to ROUNDS as far as `seconds` go.

    A setting that the user fixed is not varied. Raises UserError for a device or dtype that is not there.
    """
    device = available_device(requested.device)
    candidates = _candidates(device, requested)
    threads = requested.threads or CORES
    if len(candidates) == 1:
        return replace(candidates[0], threads=threads), []
    speeds = [0.0] * len(candidates)
    begun = time.monotonic()
    for turn in range(ROUNDS):
        leader = max(speeds)
        for i, engine in enumerate(candidates):
            spent = turn and time.monotonic() - begun >= seconds
            if speeds[i] * HOPELESS >= leader and not spent:
                share = seconds / len(candidates) / ROUNDS
                speeds[i] = max(speeds[i], training_speed(module, engine, shape, batch_size, classes, share))
    best = replace(candidates[max(range(len(candidates)), key=speeds.__getitem__)], threads=threads)
    best.activate()
    measured = [
        {**engine.as_dict(), "images_per_second": round(speed, 1)}
        for engine, speed in zip(candidates, speeds, strict=True)
    ]
    return best, measured


def choose_threads(
    module: nn.Module, engine: Engine, shape: tuple[int, int, int], classes: int, *, batch_size: int, seconds: float
) -> tuple[Engine, float]:
    """The engine, or its copy with one thread where that is clearly faster on this network; and its images a second.

    On tiny images, splitting the work between threads can cost more than it saves.
    """
    if engine.device != "cpu" or engine.threads == 1:
        return engine, training_speed(module, engine, shape, batch_size, classes, seconds / 2)
    single = replace(engine, threads=1)
    speeds = {engine: 0.0, single: 0.0}
    begun = time.monotonic()
    for turn in range(ROUNDS):
        if turn and time.monotonic() - begun >= seconds:
            break
        for each in speeds:
            speed = training_speed(module, each, shape, batch_size, classes, seconds / ROUNDS / 2)
            speeds[each] = max(speeds[each], speed)
    best = single if speeds[single] > CLEARLY * speeds[engine] else engine
    best.activate()
    return best, speeds[best]


def affordable_batch(
    module: nn.Module, requested: EngineConfig, shape: tuple[int, int, int], classes: int, left: float, sizes: range
) -> int:
    """Images a step to measure with, out of `sizes` (smallest, one above the largest): the most that the probe can pay.

    A step of a large network takes seconds on a processor, and each candidate needs two. left: the budget's seconds.
    """
    engine = _candidates(available_device(requested.device), requested)[0]
    limit, batch = 0.8 * min(PROBE_SECONDS, PROBE_SHARE * left), sizes.start
    speed = training_speed(module, engine, shape, batch, classes, 0.0)
    while 2 * batch < sizes.stop and FIRST_TURNS * 2 * batch <= limit * speed:
        batch *= 2
    return batch


def _candidates(device: str, requested: EngineConfig) -> list[Engine]:
    dtypes = [requested.dtype] if requested.dtype != "auto" else _fast_dtypes(device)
    layouts = [requested.layout] if requested.layout != "auto" else ["channels_last", "contiguous"]
    threads = requested.threads or (1 if device == "cpu" else CORES)
    for name in dtypes:
        if name not in DTYPES:
            raise unknown_name("dtype", name, [*DTYPES, "auto"])
    for name in layouts:
        if name not in LAYOUTS:
            raise unknown_name("layout", name, [*LAYOUTS, "auto"])
    return [Engine(device, dtype, layout, threads) for dtype in dtypes for layout in layouts]


def _fast_dtypes(device: str) -> list[str]:
    if device == "cuda":
        return ["bfloat16", "float32"] if torch.cuda.is_bf16_supported() else ["float32"]
    if device == "cpu" and _cpu_has_bfloat16():
        return ["bfloat16", "float32"]
    return ["float32"]


def _cpu_has_bfloat16() -> bool:
    # torch publishes these two tests under private names only; where they are gone, float32 is measured alone.
    tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name)()) for name in tests if hasattr(torch.cpu, name))


def engine_here(trained: Engine) -> Engine:
    """The engine that a network was trained with where its device is at hand, else float32 on this machine's CPU."""
    try:
        available_device(trained.device)
    except UserError:
        return Engine("cpu", "float32", trained.layout, torch.get_num_threads())
    return trained


def available_device(name: str) -> str:
    """The device of that name, the best there is for "auto"; UserError where this machine has none such."""
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if _has_mps() else "cpu"
    if name not in ("cpu", "cuda", "mps"):
        raise unknown_name("device", name, ["cpu", "cuda", "mps", "auto"])
    if (name == "cuda" and not torch.cuda.is_available()) or (name == "mps" and not _has_mps()):
        raise UserError(
            f"device '{name}' was asked for, but torch finds none on this machine; use --device auto or a new plan"
        )
    return name


def _has_mps() -> bool:
    mps = getattr(torch.backends, "mps", None)
    return mps is not None and bool(mps.is_available())

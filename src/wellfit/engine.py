"""The engine: device, dtype, layout and threads, chosen by measuring a few training steps.

It has a floor of its own, below inference and training: prediction needs it too.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from wellfit.config import EngineConfig
from wellfit.data.preprocess import Preprocessing
from wellfit.errors import UserError, unknown_name

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Engine:
    """Where and in which arithmetic a network runs. Weights stay float32; `dtype` is that of autocast."""

    device: str = "cpu"
    dtype: str = "float32"
    layout: str = "channels_last"
    threads: int = 1

    def activate(self) -> None:
        """Set the process's thread count; called once before the first step."""
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

    shape: channels, height, width. Measures for about `seconds`, at least two steps after one warm-up,
    and takes the median step.
    """
    engine.activate()
    network = engine.place(copy.deepcopy(module)).train()
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

    step()
    times: list[float] = []
    while len(times) < 2 or (sum(times) < seconds and len(times) < 50):
        times.append(step())
    times.sort()
    return batch_size / times[len(times) // 2]


def choose_engine(
    make: Callable[[], nn.Module],
    shape: tuple[int, int, int],
    classes: int,
    requested: EngineConfig,
    *,
    batch_size: int = 32,
    seconds: float = 4.0,
) -> tuple[Engine, list[dict[str, Any]]]:
    """Measure the sensible engines on a small network and return the fastest, with all figures.

    A setting that the user fixed is not varied. Raises UserError for a device or dtype that is not there.
    """
    device = _device(requested.device)
    candidates = _candidates(device, requested)
    if len(candidates) == 1:
        return candidates[0], []
    module = make()
    measured: list[dict[str, Any]] = []
    best, best_speed = candidates[0], 0.0
    for engine in candidates:
        speed = training_speed(module, engine, shape, batch_size, classes, seconds / len(candidates) / 2)
        measured.append({**engine.as_dict(), "images_per_second": round(speed, 1)})
        if speed > best_speed:
            best, best_speed = engine, speed
    best.activate()
    return best, measured


def _candidates(device: str, requested: EngineConfig) -> list[Engine]:
    cores = torch.get_num_threads()
    dtypes = [requested.dtype] if requested.dtype != "auto" else _fast_dtypes(device)
    layouts = [requested.layout] if requested.layout != "auto" else ["channels_last", "contiguous"]
    threads = [requested.threads] if requested.threads else ([cores, 1] if device == "cpu" and cores > 1 else [cores])
    for name in dtypes:
        if name not in DTYPES:
            raise unknown_name("dtype", name, [*DTYPES, "auto"])
    for name in layouts:
        if name not in LAYOUTS:
            raise unknown_name("layout", name, [*LAYOUTS, "auto"])
    first = [Engine(device, dtype, layout, threads[0]) for dtype in dtypes for layout in layouts]
    # One thread can win on tiny images, where splitting the work costs more than it saves.
    rest = [Engine(device, dtypes[0], layouts[0], count) for count in threads[1:]]
    return first + rest


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


def _device(name: str) -> str:
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        mps = getattr(torch.backends, "mps", None)
        return "mps" if mps is not None and mps.is_available() else "cpu"
    if name not in ("cpu", "cuda", "mps"):
        raise unknown_name("device", name, ["cpu", "cuda", "mps", "auto"])
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' was asked for, but torch sees no CUDA device; use --device auto")
    return name

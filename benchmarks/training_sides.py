"""One training step, three ways: wellfit's own loop, a loop written by hand with its settings, and torch's defaults.

The programs that measure steps share the networks, the images and the loops of this file. Images are made here, lie in
memory as uint8, and show their class faintly, so that a loss falls and two losses can be compared. All sides start
from the same weights and see the same images in the same order; they differ in rounding and in which are mirrored.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from wellfit.config import EngineConfig
from wellfit.data.batches import TrainingBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.diagnosis.monitor import Monitor
from wellfit.engine import CORES, Engine
from wellfit.models.zoo import build
from wellfit.randomness import generator
from wellfit.recipe.model_choice import EngineProbe, probe_engine
from wellfit.training.averaging import WeightAverage
from wellfit.training.loop import train
from wellfit.training.optimizers import build_optimizer
from wellfit.training.pace import Pace
from wellfit.training.regularize import build_criterion

CLASSES, WATCHED = 10, 20  # wellfit's recipe watches every twentieth step
LR, DECAY, AVERAGE = 1e-3, 0.05, 0.995
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
WORKERS = 2  # of the DataLoader; torch warns where there are more than cores


@dataclass(frozen=True)
class Case:
    """A network at an image size. wanted: the speed aimed at on a processor with AMX, in torch's defaults."""

    model: str
    size: int
    batch: int
    wanted: float

    def network(self, seed: int = 0) -> nn.Module:
        return build(self.model, CLASSES, image_size=self.size, seed=seed).module


CASES = {
    "resnet18-224": Case("resnet18", 224, 32, 3.0),
    "resnet18-32": Case("resnet18", 32, 128, 3.0),
    "mobilenet_v2-128": Case("mobilenet_v2", 128, 64, 1.5),
    "vgg11-64": Case("vgg11", 64, 128, 2.0),
}


def parsed(
    parser: ArgumentParser, cases: Mapping[str, object], arguments: list[str] | None
) -> tuple[Namespace, list[str]]:
    """The arguments, and the names of the cases that they ask for."""
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(cases)}; by default all")
    given = parser.parse_args(arguments)
    for name in given.cases:
        if name not in cases:
            parser.error(f"a case is one of {', '.join(cases)}, got '{name}'")
    return given, given.cases or list(cases)


class MadeImages:
    """uint8 N×S×S×3 in memory, read as a pixel store. Each is its class's coarse pattern under stronger noise."""

    def __init__(self, images: int, side: int, seed: int = 0) -> None:
        draw = generator(seed, "made images", side)
        self.targets = draw.integers(0, CLASSES, images)
        patterns = draw.normal(0, 25, (CLASSES, 4, 4, 3))[self.targets] + draw.normal(0, 40, (images, 4, 4, 3))
        cells = -(-side // 4)
        coarse = patterns.repeat(cells, axis=1).repeat(cells, axis=2)[:, :side, :side]
        grain = draw.normal(128, 20, (1, side, side, 3))
        self.pixels = np.clip(coarse + grain, 0, 255).astype(np.uint8)

    def image(self, index: int) -> np.ndarray:
        return self.pixels[index]

    def uniform(self) -> np.ndarray:
        return self.pixels

    def batches(
        self, size: int, batch: int, augment: tuple[str, ...], *, resize: int | None = None, seed: int = 0
    ) -> TrainingBatches:
        """Batches of wellfit's over all images."""
        store: Any = self  # all that batches ask of a store is here
        rows, view = np.arange(len(self.pixels)), Preprocessing(size, resize or size, MEAN, STD)
        return TrainingBatches(
            store, rows, self.targets, view, batch_size=batch, augment=augment, seed=seed, classes=CLASSES
        )


def probed(case: Case, budget: float = 400.0) -> EngineProbe:
    """The engine that `fit` chooses here for this network under that budget, in seconds."""
    return probe_engine(EngineConfig(device="cpu"), case.network(), case.size, CLASSES, budget)


class Ours:
    """wellfit's loop as its recipe calls it: fused AdamW, average of the weights, monitor, record."""

    def __init__(self, net: nn.Module, batches: TrainingBatches, engine: Engine) -> None:
        engine.activate()
        self.net, self.batches, self.engine = engine.place(net), batches, engine
        self.optimizer = build_optimizer("adamw", self.net, lr=LR, weight_decay=DECAY)
        self.average = WeightAverage(self.net, AVERAGE, ramp=True)
        self.monitor = Monitor(self.net, self.optimizer, classes=CLASSES, every=WATCHED)
        self.criterion = build_criterion().to(engine.device)
        self.done, self.lines = 0, list[dict[str, Any]]()

    def write(self, kind: str, **fields: Any) -> None:
        self.lines.append(fields)

    def turn(self, steps: int) -> list[float]:
        """The losses of so many steps more."""
        pace = Pace(self.done + steps)
        pace.resume(self.done, self.done / (self.done + steps))
        outcome = train(
            self.net,
            self.batches,
            self.criterion,
            self.optimizer,
            engine=self.engine,
            preprocessing=self.batches.views.preprocessing,
            schedule=lambda progress: 1.0,
            pace=pace,
            evaluate_every=2**62,
            average=self.average,
            monitor=self.monitor,
            record=self,
        )
        self.done += steps
        return outcome.losses

    def close(self) -> None:
        self.monitor.close()


class ByHand:
    """What one writes for this machine by hand, with the same dtype, layout, threads, optimizer and average."""

    def __init__(self, net: nn.Module, images: MadeImages, batches: TrainingBatches, engine: Engine) -> None:
        engine.activate()
        self.net, self.images, self.batches, self.engine = engine.place(net), images, batches, engine
        groups = [
            {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": DECAY},
            {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)
        self.weights = [v.detach() for v in [*net.parameters(), *net.buffers()] if v.is_floating_point()]
        self.averaged = [value.clone() for value in self.weights]
        self.layout = torch.channels_last if engine.layout == "channels_last" else torch.contiguous_format
        self.mean, self.std = (255 * torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        self.draw, self.done = np.random.default_rng(0), 0

    def turn(self, steps: int) -> list[float]:
        self.engine.activate()
        self.net.train()
        losses: list[Tensor] = []
        for step in range(self.done, self.done + steps):
            chosen = self.batches.positions(step)
            pixels, mirrored = self.images.pixels[chosen], self.draw.random(len(chosen)) < 0.5
            pixels[mirrored] = pixels[mirrored, :, ::-1]
            inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().sub_(self.mean).div_(self.std)
            inputs = inputs.contiguous(memory_format=self.layout)
            targets = torch.from_numpy(self.images.targets[chosen])
            with torch.autocast("cpu", torch.bfloat16, enabled=self.engine.dtype == "bfloat16"):
                outputs = self.net(inputs)
            loss = functional.cross_entropy(outputs.float(), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.averaged, self.weights, 1 - AVERAGE)
            losses.append(loss.detach())
        self.done += steps
        return torch.stack(losses).tolist()

    def close(self) -> None:
        pass


class InOrder(Dataset[tuple[Tensor, int]]):
    """The images one by one, as torch's tutorials have it: flipped, to float, normalised."""

    def __init__(self, images: MadeImages) -> None:
        self.pixels, self.targets = images.pixels, images.targets
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.pixels[index]).permute(2, 0, 1).contiguous().float().div_(255)
        if float(torch.rand(())) < 0.5:
            image = image.flip(2)
        return (image - self.mean) / self.std, int(self.targets[index])


class Positions:
    """The batches' positions of one step after the other, for a DataLoader; they never end."""

    def __init__(self, batches: TrainingBatches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        step = 0
        while True:
            yield self.batches.positions(step).tolist()
            step += 1


class Default:
    """torch as it comes: float32, contiguous, AdamW without more words, a DataLoader with its workers, all threads."""

    def __init__(self, net: nn.Module, images: MadeImages, batches: TrainingBatches) -> None:
        self.net = net
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=DECAY)
        self.loader = DataLoader(InOrder(images), batch_sampler=Positions(batches), num_workers=WORKERS)
        self.iterator = iter(self.loader)

    def turn(self, steps: int) -> list[float]:
        torch.set_num_threads(CORES)
        self.net.train()
        losses = []
        for _ in range(steps):
            inputs, targets = next(self.iterator)
            self.optimizer.zero_grad()
            loss = functional.cross_entropy(self.net(inputs), targets)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def close(self) -> None:
        del self.iterator  # ends the workers


SIDES = ("wellfit", "by hand", "default")


class Apart:
    """A side in a process of its own: what one sets for its process (threads, allocator) the others do not get."""

    def __init__(self, name: str, case: Case, engine: Engine, images: int, seed: int) -> None:
        context = get_context("spawn")
        self.line, far = context.Pipe()
        # No daemon: the default's DataLoader has workers of its own.
        self.name = name
        self.process = context.Process(target=_serve, args=(far, name, case, engine, images, seed))
        self.process.start()
        far.close()

    def turn(self, steps: int) -> tuple[float, list[float]]:
        """Seconds of so many steps, and their losses."""
        try:
            self.line.send(steps)
            answer: tuple[float, list[float]] = self.line.recv()
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"the side '{self.name}' has ended; what it said stands above") from error
        return answer

    def close(self) -> None:
        self.line.close()  # which the other end takes for the end
        self.process.join()


def _serve(line: Connection, name: str, case: Case, engine: Engine, images: int, seed: int) -> None:
    """Take turns of as many steps as come along the line, until the other end is closed."""
    made = MadeImages(images, case.size, seed)
    batches = made.batches(case.size, case.batch, ("flip",), seed=seed)
    sides: dict[str, Callable[[], Ours | ByHand | Default]] = {
        "wellfit": lambda: Ours(case.network(seed), batches, engine),
        "by hand": lambda: ByHand(case.network(seed), made, batches, engine),
        "default": lambda: Default(case.network(seed), made, batches),
    }
    side = sides[name]()
    with suppress(EOFError):
        while True:
            line.send(timed_turn(side, line.recv()))
    side.close()


def timed_turn(side: Ours | ByHand | Default, steps: int) -> tuple[float, list[float]]:
    """Seconds of so many steps, and their losses."""
    begun = time.perf_counter()
    losses = side.turn(steps)
    return time.perf_counter() - begun, losses


def instructions() -> str:
    """What the processor has for bfloat16 products, as torch sees it."""
    tests = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}
    found = [name for name, test in tests.items() if hasattr(torch.cpu, test) and getattr(torch.cpu, test)()]
    return f"{torch.backends.cpu.get_cpu_capability()}, {' and '.join(found) or 'no bfloat16 products'}"

"""Two processes train as one does: the same images in the same order, gradients and statistics averaged."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.data.memory_store import MemoryStore
from wellfit.data.batches import EvaluationBatches, TrainingBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.inference.evaluate import ValidationScore
from wellfit.training.averaging import WeightAverage
from wellfit.training.distributed import ALONE, Group, SharedScore, Together, weights_of
from wellfit.training.loop import Outcome, train
from wellfit.training.optimizers import build_optimizer
from wellfit.training.pace import Pace
from wellfit.training.regularize import Penalty, build_criterion
from wellfit.training.schedules import Plateau, schedule

SIZE, IMAGES, CLASSES, STEPS = 8, 52, 3, 12
PREPROCESSING = Preprocessing(SIZE, SIZE, (0.5,) * 3, (0.25,) * 3)
ENGINE = Engine("cpu", "float32", "contiguous", 1)


def images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    targets = np.sort(np.arange(IMAGES) ** 2 % CLASSES)  # of unequal sizes
    pixels = rng.integers(0, 120, (IMAGES, SIZE, SIZE, 3)) + 60 * targets[:, None, None, None]
    return pixels.astype(np.uint8), targets


class Halves(nn.Module):
    """BatchNorm of each half of a batch by itself; the running statistics in use are the mean of both halves' own."""

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__()
        self.layers = nn.ModuleList([layer, nn.BatchNorm2d(layer.num_features)])
        self.layers[1].weight, self.layers[1].bias = layer.weight, layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return functional.batch_norm(x, *self.statistics(), self.layers[0].weight, self.layers[0].bias)
        halves = x[: len(x) // 2], x[len(x) // 2 :]
        return torch.cat([layer(half) for layer, half in zip(self.layers, halves, strict=True)])

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        one, other = self.layers
        return (one.running_mean + other.running_mean) / 2, (one.running_var + other.running_var) / 2


class Skipping(nn.Module):
    """Leaves parameters out of a step, other ones on each process, and some always."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.extra = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.never, self.last = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x).relu()
        if not self.training or float(x.detach().sum()) * 1e3 % 2 < 1:
            x = self.extra(x)
        return self.last(x.amax((2, 3)))


def network(norm: str = "group", dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        if norm == "skipping":
            return Skipping()
        layers: dict[str, Callable[[], nn.Module]] = {
            "group": lambda: nn.GroupNorm(2, 4),
            "batch": lambda: nn.BatchNorm2d(4),
            "halves": lambda: Halves(nn.BatchNorm2d(4)),
        }
        return nn.Sequential(
            *(nn.Conv2d(3, 4, 3), layers[norm](), nn.ReLU(), nn.Conv2d(4, 4, 3), layers[norm](), nn.ReLU()),
            *(nn.Flatten(), nn.Dropout(dropout), nn.Linear(4 * 16, CLASSES)),
        )


@dataclass(frozen=True)
class Case:
    """One training. batch: of all processes together."""

    norm: str = "group"
    augment: tuple[str, ...] = ("flip", "crop")
    batch: int = 12
    class_weights: tuple[float, ...] | None = None
    dropout: float = 0.0
    steps: int = STEPS
    stop_after: int = 0
    checkpoint: str = ""
    seconds: float = 0.0
    ramp: bool = False


CASES = {
    "group": Case(),
    "uneven": Case(batch=13, ramp=True),
    "mixed": Case(augment=("mixup", "cutmix", "crop"), class_weights=(0.2, 1.0, 3.0)),
    "weighted": Case(class_weights=(0.2, 1.0, 3.0), batch=13),
    "batch": Case(norm="batch"),
    "dropout": Case(dropout=0.4),
    "skipping": Case(norm="skipping"),
    "stopped": Case(stop_after=5, checkpoint="two-then-one"),
    "resumed": Case(checkpoint="one-then-two"),
    "deadline": Case(steps=100_000, seconds=0.5),
}


@dataclass
class Result:
    weights: dict[str, torch.Tensor]
    outcome: Outcome
    lines: list[tuple[str, dict[str, Any]]]
    shares: list[int]


class Lines:
    def __init__(self) -> None:
        self.written: list[tuple[str, dict[str, Any]]] = []

    def write(self, kind: str, **fields: Any) -> None:
        self.written.append((kind, fields))


def run(case: Case, folder: Path, group: Group | None = None) -> Result:
    """The training of a case by one process, or by this one's part in a group."""
    leads = group is None or group.leads
    module = network(case.norm, case.dropout)
    if group is not None:
        group.same_state(module)
    pixels, targets = images()
    batches = TrainingBatches(
        MemoryStore(pixels),
        np.arange(IMAGES),
        targets,
        PREPROCESSING,
        batch_size=case.batch,
        augment=case.augment,
        classes=CLASSES,
    )
    seen = EvaluationBatches(MemoryStore(pixels), np.arange(IMAGES), targets, PREPROCESSING, 16)
    score = ValidationScore(seen, ["a", "b", "c"], ENGINE, PREPROCESSING, "accuracy")
    lines, steps, shares = Lines(), 0, []

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == case.stop_after

    def checked(step: int) -> Any:
        made = original(step)
        shares.append(len(made.positions))
        return made

    together: Together = ALONE if group is None else group
    criterion = build_criterion(label_smoothing=0.1, class_weights=case.class_weights)
    original = together.batches(batches, criterion)
    pace = Pace(case.steps)
    if case.seconds and leads:
        pace = Pace(case.steps, pace.clock() + case.seconds)
    outcome = train(
        module,
        batches,
        criterion,
        build_optimizer("nesterov", module, lr=0.02, weight_decay=1e-3),
        engine=ENGINE,
        preprocessing=PREPROCESSING,
        schedule=schedule("one_cycle"),
        plateau=Plateau(factor=0.5, patience=1) if case.ramp else None,
        pace=pace,
        penalty=Penalty(1e-3, square=1.0),
        evaluate=score if group is None else SharedScore(score, group),
        evaluate_every=4,
        average=WeightAverage(module, 0.9),
        record=lines if leads else None,
        checkpoint=folder / f"{case.checkpoint}.safetensors" if case.checkpoint and leads else None,
        stop=stop if leads else lambda: False,
        together=together,
    )
    checked(0)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    return Result(state, outcome, lines.written, shares)


def take_part(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    group = Group()
    for name, case in CASES.items():
        torch.save(run(case, folder, group), folder / f"{name}-{rank}.pt")
    group.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases, trained by two processes; what each of them came to."""
    folder = tmp_path_factory.mktemp("two")
    run(replace(CASES["resumed"], stop_after=5), folder)  # whose checkpoint both go on from
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=take_part, args=(rank, port, folder)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return folder


def both(folder: Path, name: str) -> tuple[Result, Result]:
    first, second = (torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in (0, 1))
    return first, second


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(one[name].double(), other[name].double(), rtol=1e-4, atol=1e-5) for name in one
    )


@pytest.mark.parametrize("name", ["group", "uneven", "mixed", "weighted", "skipping"])
def test_two_processes_come_to_the_weights_of_one_at_the_whole_batch(folder: Path, name: str, tmp_path: Path) -> None:
    first, second = both(folder, name)
    alone = run(CASES[name], tmp_path)
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)
    if name == "skipping":  # what a share leaves out depends on the share
        assert not close(alone.weights, network("skipping").state_dict())
        never = [weights["never.weight"] for weights in (first.weights, alone.weights)]
        assert torch.allclose(*never)  # the penalty alone has moved them
        assert not torch.equal(never[0], network("skipping").state_dict()["never.weight"])
        return
    assert close(first.weights, alone.weights)
    assert np.allclose(first.outcome.losses, alone.outcome.losses, rtol=1e-4)
    assert not close(alone.weights, network(CASES[name].norm).state_dict())  # it went somewhere


def test_shares_make_up_the_batch(folder: Path) -> None:
    assert [result.shares for result in both(folder, "uneven")] == [[6], [7]]
    assert [result.shares for result in both(folder, "group")] == [[6], [6]]


def test_batchnorm_normalises_each_half_by_itself(folder: Path, tmp_path: Path) -> None:
    first, second = both(folder, "batch")
    halves = run(replace(CASES["batch"], norm="halves"), tmp_path)
    expected = {name.replace("layers.0.", ""): v for name, v in halves.weights.items() if "layers.1." not in name}
    for name in [name for name in expected if "running" in name]:
        other = halves.weights[name.replace(".running", ".layers.1.running")]
        expected[name] = (expected[name] + other) / 2
    assert close(first.weights, expected)
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)
    assert not close(first.weights, run(CASES["batch"], tmp_path).weights)  # of one process that normalises the whole


def test_the_record_holds_the_figures_of_the_whole_batch(folder: Path, tmp_path: Path) -> None:
    first, second = both(folder, "weighted")
    alone = run(CASES["weighted"], tmp_path)
    assert not second.lines
    assert [kind for kind, _ in first.lines] == [kind for kind, _ in alone.lines]
    epochs, expected = ([fields for kind, fields in r.lines if kind == "epoch"] for r in (first, alone))
    for one, other in zip(epochs, expected, strict=True):
        for key in ("train_accuracy", "validation_accuracy", "averaged_validation_accuracy"):
            assert one.get(key) == pytest.approx(other.get(key), abs=0.04)  # an image or two on the border
        for key in ("train_loss", "validation_loss"):
            assert one[key] == pytest.approx(other[key], rel=1e-3)


def test_dropout_draws_apart_on_the_halves(folder: Path, tmp_path: Path) -> None:
    first, second = both(folder, "dropout")
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)
    assert not close(first.weights, run(replace(CASES["dropout"], dropout=0.0), tmp_path).weights)


@pytest.mark.parametrize(("name", "finish"), [("stopped", True), ("resumed", False)])
def test_a_checkpoint_is_taken_up_by_another_number_of_processes(folder: Path, name: str, finish: bool) -> None:
    """Two processes and then one, one process and then two: as one process from the beginning to the end."""
    case, (first, second) = CASES[name], both(folder, name)
    if finish:
        assert first.outcome.reason == second.outcome.reason == "stopped"
        assert first.outcome.steps == second.outcome.steps == 5
        result = run(replace(case, stop_after=0), folder)
    else:
        result = first
    straight = run(replace(case, stop_after=0, checkpoint=""), folder)
    assert result.outcome.steps == STEPS
    assert close(result.weights, straight.weights)
    assert np.allclose(result.outcome.losses, straight.outcome.losses, rtol=1e-3)


def test_under_a_deadline_all_end_at_the_first_ones_step(folder: Path) -> None:
    first, second = both(folder, "deadline")
    assert first.outcome.reason == second.outcome.reason == "finished"
    assert 0 < first.outcome.steps == second.outcome.steps < 100_000
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)


def test_class_weights_are_found_in_the_losses_that_have_them() -> None:
    assert weights_of(build_criterion()) is None
    assert weights_of(nn.functional.cross_entropy) is None
    for name in ("cross-entropy", "hinge"):
        found = weights_of(build_criterion(name, class_weights=[1.0, 2.0, 4.0]))
        assert found is not None
        assert found.tolist() == [1.0, 2.0, 4.0]


def test_a_batch_too_small_for_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Group, "__init__", lambda self: None)
    group = Group()
    group.rank, group.size = 0, 8
    pixels, targets = images()
    batches = TrainingBatches(MemoryStore(pixels), np.arange(IMAGES), targets, PREPROCESSING, batch_size=15)
    with pytest.raises(UserError, match="a batch of 15 is shared by 8"):
        group.batches(batches, build_criterion())


def test_parts_cover_the_whole_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Group, "__init__", lambda self: None)
    group = Group()
    for size in (1, 2, 3, 7):
        for whole in (0, 1, 6, 13, 64):
            parts = []
            for rank in range(size):
                group.rank, group.size = rank, size
                parts += list(range(whole))[group.part(whole)]
            assert parts == list(range(whole))

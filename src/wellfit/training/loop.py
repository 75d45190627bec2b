"""The training loop: read top to bottom, it is what happens to one network.

Everything it needs is handed in; it keeps the best snapshot on validation, writes its record and
its checkpoint, and stops when asked, when the time is up, or when the loss is no number.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
from torch import nn

from wellfit.data.batches import TrainingBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.data.supply import supply
from wellfit.diagnosis.monitor import Monitor
from wellfit.engine import Engine
from wellfit.randomness import key_to_integer
from wellfit.training.averaging import WeightAverage
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint
from wellfit.training.distributed import ALONE, Together
from wellfit.training.pace import Pace
from wellfit.training.schedules import Plateau

READ_LOSS_EVERY = 10  # steps between reads of the loss: on a GPU each read waits for the device
CHECKPOINT_SECONDS = 20.0
LAST_BIT = 1e-9  # of progress, which is a quotient: a quarter of the steps must not miss 0.25

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _keeping_generators(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Torch's global generators, which dropout draws from, are put back after the call."""

    @functools.wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else range(0)
        with torch.random.fork_rng(devices=list(devices)):
            return function(*args, **kwargs)

    return wrapped


class Evaluation(Protocol):
    """Scores a network on the validation split: `score` is what is maximised, `figures` go into the record."""

    def __call__(self, module: nn.Module) -> tuple[float, dict[str, float]]: ...


class Lines(Protocol):
    """What takes a training's lines, "step" and "epoch": the run's record, or a trial's memory."""

    def write(self, kind: str, **fields: Any) -> None: ...


@dataclass
class Best:
    """The best weights so far, by validation: the highest score, and of equal scores the lowest loss.

    A few validation images are all named rightly long before a training ends; the loss still tells snapshots apart.
    """

    score: float = -math.inf
    loss: float = math.inf
    step: int = 0
    averaged: bool = False
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def is_beaten_by(self, score: float, loss: float) -> bool:
        return (score, -loss) > (self.score, -self.loss)


@dataclass
class Outcome:
    """How a training ended. reason: "finished", "stopped" (asked to), "patience", "diverged" or "broken-off"."""

    reason: str
    steps: int
    epochs: float
    best: Best
    losses: list[float]
    seconds: float
    images: int


@_keeping_generators
def train(
    module: nn.Module,
    batches: TrainingBatches,
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    engine: Engine,
    preprocessing: Preprocessing,
    schedule: Callable[[float], float],
    pace: Pace,
    plateau: Plateau | None = None,
    penalty: Callable[[nn.Module], torch.Tensor] | None = None,
    evaluate: Evaluation | None = None,
    evaluate_every: int = 0,
    average: WeightAverage | None = None,
    average_from: float = 0.5,
    patience: int = 0,
    monitor: Monitor | None = None,
    record: Lines | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    stop_at_evaluation: Callable[[], bool] = lambda: False,
    give_up: Callable[[int, float], bool] = lambda step, loss: False,
    on_evaluation: Callable[[int], None] = lambda step: None,
    snapshots: Sequence[float] = (),
    on_snapshot: Callable[[float, nn.Module], None] = lambda point, module: None,
    together: Together = ALONE,
) -> Outcome:
    """Train `module` in place until `pace` is finished; weights of the best validation score are in `Outcome.best`.

    schedule: progress in [0, 1] → multiplier of each parameter group's own learning rate.
    plateau: lowers the rate, beside the schedule, where validation stops gaining.
    penalty: a term of the weights added to the loss (SPEC R1); the recorded loss holds it.
    evaluate_every: steps between evaluations (0: one an epoch); the last step is always evaluated.
    average_from: progress from which the averaged weights are evaluated too; before it they lag behind.
    patience: evaluations without gain before stopping; 0 never stops early (SPEC R3).
    stop: asked after each step; the training then evaluates, saves and ends. stop_at_evaluation: asked at the planned
        evaluations alone, so that an epoch that was begun is finished.
    give_up(step, loss): True breaks the training off, as the search does above 3× the initial loss (SPEC S3).
    checkpoint: where to save the state; what is found there is taken up.
    checkpoint_seconds: between two of them, beside the one that a stop leaves; inf: none, None: CHECKPOINT_SECONDS.
    on_evaluation(step): called after each evaluation, when the monitor has its figures.
    snapshots: progress in (0, 1], ascending, such as `schedules.snapshot_points` gives; once each is reached,
        on_snapshot(point, module) is called. A resumed training calls it again for points after its checkpoint.
    together: the processes that share this training, each of which calls this function. Only the first is given what
        writes, watches or stops; `evaluate` answers all of them alike.
    """
    begun = time.monotonic()
    evaluate_every = evaluate_every or batches.steps_per_epoch
    every_so_often = CHECKPOINT_SECONDS if checkpoint_seconds is None else checkpoint_seconds
    rates = [group["lr"] for group in optimizer.param_groups]
    best, stale, losses, earlier_seconds = Best(), 0, [], 0.0
    tally = _Tally()

    state = together.same(load_checkpoint(checkpoint) if checkpoint is not None else None)
    if state is not None:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        best, stale, losses, earlier_seconds = Best(**state["best"]), state["stale"], state["losses"], state["seconds"]
        tally = _Tally(**state["tally"])
        pace.resume(state["step"], state["progress"])
        if plateau is not None:
            plateau.load_state_dict(state["plateau"])

    def save() -> None:
        if checkpoint is not None:
            seconds = earlier_seconds + time.monotonic() - begun
            averaged = average.state_dict() if average is not None else None
            save_checkpoint(
                checkpoint,
                {
                    "module": dict(module.state_dict()),
                    "optimizer": optimizer.state_dict(),
                    "average": averaged,
                    "best": vars(best),
                    "stale": stale,
                    "plateau": plateau.state_dict() if plateau is not None else None,
                    "losses": losses,
                    "tally": vars(tally),
                    "step": pace.step,
                    "progress": pace.progress,
                    "seconds": seconds,
                },
            )

    def asked() -> bool:
        at_evaluation = pace.step % evaluate_every == 0 and not pace.finished
        return stop() or (at_evaluation and stop_at_evaluation())

    points_left = [point for point in snapshots if point > pace.progress + LAST_BIT]
    engine.activate()
    module.train()
    reason, saved = "patience" if patience and stale >= patience else "finished", time.monotonic()
    steps_left = range(pace.step, pace.steps) if reason == "finished" else range(0)
    unread: list[tuple[dict[str, Any], torch.Tensor, torch.Tensor]] = []
    forward, share = together.forward(module, penalty), together.batches(batches, criterion)
    step_begun = time.perf_counter()
    for batch, waited in supply(share, steps_left, engine.device):
        if pace.finished:
            break
        multiplier = schedule(pace.progress) * (plateau.multiplier if plateau is not None else 1.0)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * multiplier

        draws = pace.step, *together.draws(batches.batch_size)
        torch.manual_seed(key_to_integer(batches.seed, "dropout", *draws))  # the same at this step after a resume
        inputs = engine.inputs(batch.images, preprocessing)
        targets = batch.targets.to(engine.device, non_blocking=True)
        labels = targets.argmax(1) if targets.ndim == 2 else targets  # of blended labels the one with the larger share
        with engine.autocast():
            outputs, term = forward(inputs)
            loss = criterion(outputs, targets)
        if batch.weight != 1.0:
            loss = loss * batch.weight
        if term is not None:
            loss = loss + term
        loss.backward()
        optimizer.step()
        if monitor is not None:
            monitor.step(loss.detach(), targets=labels)
        optimizer.zero_grad()
        together.mean_buffers(module)
        if average is not None:
            average.update(module)
        pace.advance()
        asked_to_stop = together.agree(pace, asked)
        while points_left and pace.progress >= points_left[0] - LAST_BIT:
            on_snapshot(points_left.pop(0), module)

        now = time.perf_counter()
        fields: dict[str, Any] = {
            "step": pace.step,
            "epoch": pace.step / batches.steps_per_epoch,
            "lr": rates[0] * multiplier,
            "images_per_second": batches.batch_size / (now - step_begun),
            "wait": waited / (now - step_begun),
            "of": pace.expected_steps,
        }
        if monitor is not None and monitor.watched:
            fields |= _watched(monitor.statistics)
        step_begun = now
        correct = (outputs.detach().argmax(1) == labels).sum()
        unread.append((fields, loss.detach(), correct))
        planned = pace.step % evaluate_every == 0 or pace.finished
        due = planned or asked_to_stop
        if len(unread) == READ_LOSS_EVERY or due:
            read = together.read([value for _, value, _ in unread], [correct for _, _, correct in unread])
            for (fields, _, _), (value, hits) in zip(unread, read, strict=True):
                fields["loss"] = value
                losses.append(value)
                tally.add(value, hits, batches.batch_size)
                if record is not None:
                    record.write("step", **fields)
            unread.clear()
            if not math.isfinite(losses[-1]):
                reason = "diverged"
                break
            if give_up(pace.step, losses[-1]):
                reason = "broken-off"
                break

        if asked_to_stop and not planned:
            save()  # without the evaluation that follows: a run that nobody stopped would not have made it here
        if evaluate is not None and due:
            figures = tally.figures()
            score, validation = evaluate(module)
            figures |= {f"validation_{name}": value for name, value in validation.items()}
            loss_now = validation.get("loss", math.inf)
            before, averaged_score = best.score, -math.inf
            if average is not None and (pace.progress >= average_from or asked_to_stop):
                with average.applied_to(module):
                    averaged_score, averaged = evaluate(module)
                    averaged_loss = averaged.get("loss", math.inf)
                    if averaged_score >= score and best.is_beaten_by(averaged_score, averaged_loss):
                        best = _snapshot(module, averaged_score, averaged_loss, pace.step, averaged=True)
                figures |= {f"averaged_validation_{name}": value for name, value in averaged.items()}
            stale = 0 if max(score, averaged_score) > before else stale + 1
            if plateau is not None:
                plateau.update(score)
            if best.is_beaten_by(score, loss_now):
                best = _snapshot(module, score, loss_now, pace.step, averaged=False)
            module.train()
            if monitor is not None:
                monitor.end_epoch(
                    train_loss=figures["train_loss"],
                    train_accuracy=figures["train_accuracy"],
                    val_loss=validation.get("loss"),
                    val_accuracy=validation.get("accuracy"),
                )
            if record is not None:
                seconds = earlier_seconds + time.monotonic() - begun
                epoch = pace.step / batches.steps_per_epoch
                record.write("epoch", epoch=epoch, step=pace.step, seconds=seconds, **figures)
            on_evaluation(pace.step)
            tally = _Tally()
            step_begun = time.perf_counter()
            if patience and stale >= patience:
                reason = "patience"
        if asked_to_stop:
            reason = "stopped"
        if reason in ("patience", "stopped"):
            if planned:
                save()
            break
        if time.monotonic() - saved > every_so_often and not unread:
            save()
            saved = time.monotonic()
            step_begun = time.perf_counter()

    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return Outcome(
        reason=reason,
        steps=pace.step,
        epochs=pace.step / batches.steps_per_epoch,
        best=best,
        losses=losses,
        seconds=earlier_seconds + time.monotonic() - begun,
        images=pace.step * batches.batch_size,
    )


def _watched(statistics: dict[str, Any]) -> dict[str, Any]:
    """What the record keeps of a watched step, in as many digits as a figure shows."""
    layers = {
        name: {key: _short(value) for key, value in figures.items() if value is not None}
        for name, figures in statistics["layers"].items()
    }
    ratios = {name: _short(value) for name, value in statistics["update_ratio"].items()}
    norm = statistics["gradient_norm"]
    return {"update_ratio": ratios, "gradient_norm": None if norm is None else _short(norm), "layers": layers}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


@dataclass
class _Tally:
    """Training loss and accuracy since the last evaluation, as the steps saw them."""

    loss: float = 0.0
    correct: int = 0
    images: int = 0

    def add(self, loss: float, correct: int, images: int) -> None:
        self.loss += loss * images
        self.correct += correct
        self.images += images

    def figures(self) -> dict[str, float]:
        count = max(1, self.images)
        return {"train_loss": self.loss / count, "train_accuracy": self.correct / count}


def _snapshot(module: nn.Module, score: float, loss: float, step: int, *, averaged: bool) -> Best:
    weights = {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}
    return Best(score, loss, step, averaged, weights)

"""One trial of a search: a short training from the common start, or on from an earlier trial's checkpoint (SPEC S1-S3).

A task gives the same score, bit for bit, in any process that has the same plan: batches, dropout and the start are
drawn from the seed, and a continued training is the one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from wellfit.data.batches import TrainingBatches
from wellfit.errors import Interrupted, UserError
from wellfit.inference.evaluate import ValidationScore
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.trial_curve import BREAK_OFF, Curve, OneRun, broken_off, line_of
from wellfit.recipe.trial_pause import Pause, Paused
from wellfit.recipe.trial_settings import with_settings
from wellfit.search.trial import Task, Trial
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint
from wellfit.training.loop import train
from wellfit.training.pace import Pace
from wellfit.training.schedules import plateau_of, schedule

EVALUATION_SHARE = 0.08  # of a trial's time: what looking at validation between epochs may cost
CONTINUABLE = "constant"
"""The schedule under which a longer trial is the same training gone on with. Any other spans the whole of a trial, so
that a longer one starts again, and settings of one length are judged alike however they came to it."""


Result = TypeVar("Result")


class WriteLine(Protocol):
    """Takes a line of the record."""

    def __call__(self, kind: str, **fields: Any) -> None: ...


class CannotKeep(Exception):
    """A checkpoint could not be written: no fault of the trial, and the next one would fare no better."""


@dataclass
class _Start:
    """Where a task begins: the states of the trial that it continues, one a run, or nothing and why."""

    states: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class TrialRunner:
    """Runs tasks on one material. folder: holds trials/<number>/; write: where each trial's line goes.

    rate: the schedule of a trial whose settings name none; constant by default, as the courses search without decay.
    stop: asked at each step; True stops the trial: Interrupted is raised, and it goes on from there when run again.
    clock: seconds of the search so far, for `Trial.ended`.
    keep: whether a trial's checkpoint is wanted, so that another can continue it.
    trained: told of each network that was trained to its trial's end on the training split: task, network, score, rate.
    """

    material: Material
    folder: Path
    write: WriteLine
    worker: str = ""
    rate: str = "constant"
    stop: Callable[[], bool] = lambda: False
    keep: Callable[[Task], bool] = lambda task: True
    trained: Callable[[Task, nn.Module, float, float], None] = lambda task, module, score, lr: None
    clock: Callable[[], float] = lambda: 0.0

    def __call__(self, task: Task) -> Trial:
        """The trial of a task. What goes wrong within it is its result; only an interrupt or a full disk is raised."""
        begun = time.monotonic()
        notes: list[str] = []
        runs: list[OneRun] = []
        pause = Pause(self.folder / "trials" / str(task.number))
        earlier = pause.read()
        try:
            material = with_settings(self.material, {"schedule": self.rate, **task.settings})
            runs = self._runs(task, material, notes, pause, earlier)
            trial = _judged(task, runs, notes)
        except Interrupted:
            pause.add_seconds(time.monotonic() - begun + earlier.seconds)
            raise
        except CannotKeep as error:
            raise error.__cause__ or error from None
        except Exception as error:  # a network, an optimizer or an augmentation may fail in any way
            trial = Trial(task.stage, task.number, task.settings, "failed", reason="; ".join([*notes, _said(error)]))
        trial = replace(
            _completed(trial, task, runs, time.monotonic() - begun + earlier.seconds),
            ended=round(self.clock(), 3),
            worker=self.worker,
            findings=tuple(runs[0].curve.findings(len(self.material.data.classes)) if runs else ()),
        )
        pause.forget()
        self.write("trial", **line_of(trial, runs))
        return trial

    def checkpoint(self, number: int, run: int = 0) -> Path:
        """Where a trial's state lies; several runs where it is cross-validated."""
        name = "checkpoint.safetensors" if run == 0 else f"checkpoint-{run}.safetensors"
        return self.folder / "trials" / str(number) / name

    def _runs(self, task: Task, material: Material, notes: list[str], pause: Pause, earlier: Paused) -> list[OneRun]:
        """All runs of the trial; where memory runs out, from the beginning of the task with half the batch."""
        splits = list(held_out(material))
        start = self._start(task, material.plan.schedule, len(splits))
        if start.note:
            notes.append(start.note)
        batch_size = int(start.states[0]["batch_size"]) if start.states else material.plan.training.batch_size
        if earlier.batch_size:
            notes[:], batch_size = earlier.notes, earlier.batch_size
        runs = list(earlier.done)
        while True:
            trouble = ""
            try:
                for number in range(len(runs), len(splits)):
                    desk = _Desk(pause, earlier if earlier.batch_size else Paused(), notes, runs)
                    states = start.states[number : number + 1]
                    runs.append(self._run(task, material, batch_size, number, *splits[number], states, desk))
                    earlier = Paused()
                return runs
            except Exception as error:
                if not out_of_memory(error) or batch_size < 2:
                    raise
                trouble = f"out of memory with {batch_size} images a step, so it ran with {batch_size // 2}"
            # Outside of the handler, whose traceback holds the tensors of what failed.
            notes[:] = [*(note for note in notes if not note.startswith("out of memory")), trouble]
            batch_size //= 2
            runs, earlier = [], Paused()
            if material.plan.engine.device == "cuda":
                torch.cuda.empty_cache()

    def _start(self, task: Task, schedule: str, runs: int) -> _Start:
        if task.continues is None:
            return _Start()
        if schedule != CONTINUABLE:
            return _Start(note=f"started again: its schedule '{schedule}' spans the whole trial")
        states = [load_checkpoint(self.checkpoint(task.continues, run)) for run in range(runs)]
        found = [state for state in states if state is not None]
        if len(found) == runs:
            return _Start(found)
        return _Start(note=f"started again: the checkpoint of trial {task.continues} is not in this run folder")

    def _run(
        self,
        task: Task,
        material: Material,
        batch_size: int,
        number: int,
        train_on: np.ndarray | None,
        scored: np.ndarray,
        states: list[dict[str, Any]],
        desk: _Desk,
    ) -> OneRun:
        plan = material.plan
        plan.engine.activate()
        settings = Settings.of(plan)
        module = plan.engine.place(material.network().module)
        optimizer = material.optimizer(module, settings)
        batches = material.training(plan.seed, settings.balance, batch_size=batch_size, images=train_on)
        pace = Pace(max(1, round(task.epochs * batches.steps_per_epoch)))
        curve = Curve()
        for state in states:
            module.load_state_dict(state["module"])
            optimizer.load_state_dict(state["optimizer"])
            curve = Curve(state["curve"]["steps"], state["curve"]["epochs"])
            step = (
                state["step"] if state["batch_size"] == batch_size else round(state["epochs"] * batches.steps_per_epoch)
            )
            pace.resume(step, min(1.0, step / pace.steps))
        begun, score = pace.step, _LastScore(material.score_on(scored))
        if desk.earlier.batch_size:
            curve = Curve(desk.earlier.steps, desk.earlier.epochs)
        else:
            desk.pause.state.unlink(missing_ok=True)  # of another run
        every = _evaluate_every(batches, len(scored), pace.steps)
        least = math.log(len(material.data.classes))

        def give_up(step: int, loss: float) -> bool:
            return loss > BREAK_OFF * max(curve.steps[0]["loss"], least)

        def stop() -> bool:
            asked = self.stop()
            score.idle = asked and not (pace.step % every == 0 or pace.finished)
            return asked

        outcome = _keeping(
            train,
            module,
            batches,
            material.criterion(settings.balance),
            optimizer,
            engine=plan.engine,
            preprocessing=material.preprocessing,
            schedule=schedule(plan.schedule),
            plateau=plateau_of(plan.schedule),
            penalty=material.penalty(),
            pace=pace,
            evaluate=score,
            evaluate_every=every,
            record=curve,
            checkpoint=desk.pause.state,
            checkpoint_seconds=math.inf,
            stop=stop,
            give_up=give_up,
        )
        judging = score.seconds + desk.earlier.judging
        if outcome.reason == "stopped":
            epochs = curve.epochs[:-1] if score.idle else curve.epochs  # the last one was not judged
            desk.pause.keep(
                Paused(batch_size, outcome.steps, desk.notes, desk.done, curve.steps, epochs, judging=judging)
            )
            raise Interrupted(f"trial {task.number} was stopped; it goes on from there when the search goes on")
        images = (outcome.steps - begun) * batches.batch_size
        run = OneRun(curve, images, outcome.epochs, len(scored), max(0.0, outcome.seconds - judging))
        if outcome.reason in ("diverged", "broken-off"):
            run.reason = broken_off(curve, least)
            return run
        value, figures = score.last if score.last is not None else score(module)
        run.score, run.loss = value, figures["loss"]
        if train_on is None:  # a network of a fold has seen validation images
            _keeping(self.trained, task, module, value, settings.lr)
        if self.keep(task):
            self._save(task, number, module, optimizer, batch_size, outcome.steps, outcome.epochs, curve)
        return run

    def _save(
        self,
        task: Task,
        number: int,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        step: int,
        epochs: float,
        curve: Curve,
    ) -> None:
        state = {
            "module": dict(module.state_dict()),
            "optimizer": optimizer.state_dict(),
            "batch_size": batch_size,
            "step": step,
            "epochs": epochs,
            "curve": curve.as_state(),
        }
        try:
            save_checkpoint(self.checkpoint(task.number, number), state)
        except UserError as error:
            raise CannotKeep from error


@dataclass
class _Desk:
    """What a run needs to be stopped and gone on with. done: the runs of its trial before it."""

    pause: Pause
    earlier: Paused
    notes: list[str]
    done: list[OneRun]


def _keeping(call: Callable[..., Result], *args: Any, **options: Any) -> Result:
    """What a call that writes files returns; a full disk is no fault of the trial."""
    try:
        return call(*args, **options)
    except UserError as error:
        if isinstance(error.__cause__, OSError):
            raise CannotKeep from error
        raise


class _LastScore:
    """The validation score, the last one remembered, and the seconds that it took in all. idle: judges nothing."""

    def __init__(self, score: ValidationScore) -> None:
        self.score = score
        self.last: tuple[float, dict[str, float]] | None = None
        self.seconds, self.idle = 0.0, False

    def __call__(self, module: nn.Module) -> tuple[float, dict[str, float]]:
        if self.idle:  # it is stopped, and what comes now is thrown away
            return 0.0, {"loss": math.inf}
        begun = time.monotonic()
        self.last = self.score(module)
        self.seconds += time.monotonic() - begun
        return self.last


def held_out(material: Material) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
    """(training images, or None for the training split; images that are scored) of each run of a trial."""
    split, search = material.data.split, material.plan.search
    if not search.folds or split.folds is None:
        yield None, material.some_of_validation(search.validation_images)
        return
    everything = np.concatenate([split.train, split.validation])
    for fold in split.folds:
        yield np.setdiff1d(everything, fold), fold


def out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may help: the device's memory or the machine's ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in said or "out of memory" in said)


def _evaluate_every(batches: TrainingBatches, scored: int, steps: int) -> int:
    """Steps between looks at validation: whole epochs, so few that they cost little; the last step is one of them."""
    # A validation image costs a third of a training image.
    epochs = max(1, math.ceil(scored / (3 * EVALUATION_SHARE * batches.images)))
    return min(steps, epochs * batches.steps_per_epoch)


def _judged(task: Task, runs: list[OneRun], notes: list[str]) -> Trial:
    scores = [run.score for run in runs if run.score is not None]
    broken = next((run.reason for run in runs if run.reason), "")
    if broken:  # a rate that breaks one of the folds is too high for all
        return Trial(task.stage, task.number, task.settings, "pruned", reason="; ".join([*notes, broken]))
    sizes = np.array([run.scored for run in runs])
    images = int(sizes.sum())
    value = float(np.average(scores, weights=sizes))
    loss = float(np.average([run.loss for run in runs], weights=sizes))
    error = math.sqrt(max(value * (1 - value), 1 / images) / images)
    known = loss if math.isfinite(loss) else None
    return Trial(task.stage, task.number, task.settings, "finished", value, error, known, reason="; ".join(notes))


def _completed(trial: Trial, task: Task, runs: list[OneRun], seconds: float) -> Trial:
    trained = task.epochs if trial.state == "finished" else max((run.epochs for run in runs), default=0.0)
    return Trial(
        **{
            **vars(trial),
            "rung": task.rung,
            "epochs": trained,
            "continues": task.continues,
            "images": sum(run.images for run in runs),
            "seconds": round(seconds, 3),
            "training": round(sum(run.training for run in runs), 3),
        }
    )


def _said(error: Exception) -> str:
    text = str(error).partition("\n")[0].strip()
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"

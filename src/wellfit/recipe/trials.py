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
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from wellfit.data.batches import TrainingBatches
from wellfit.diagnosis.history import Epoch, History
from wellfit.diagnosis.rules import judge
from wellfit.errors import Interrupted, UserError
from wellfit.inference.evaluate import ValidationScore
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.trial_settings import with_settings
from wellfit.search.trial import Task, Trial
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint
from wellfit.training.loop import train
from wellfit.training.pace import Pace
from wellfit.training.schedules import plateau_of, schedule

BREAK_OFF = 3.0  # times the initial loss (SPEC S3)
EVALUATION_SHARE = 0.08  # of a trial's time: what looking at validation between epochs may cost
CONTINUABLE = "constant"
"""The schedule under which a longer trial is the same training gone on with. Any other spans the whole of a trial, so
that a longer one starts again, and settings of one length are judged alike however they came to it."""
CURVE_POINTS = 100  # of the loss curve that the record keeps


class WriteLine(Protocol):
    """Takes a line of the record."""

    def __call__(self, kind: str, **fields: Any) -> None: ...


class CannotKeep(Exception):
    """A checkpoint could not be written: no fault of the trial, and the next one would fare no better."""


@dataclass
class Curve:
    """What one training said: takes the loop's lines as a record does, and keeps them in memory."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)

    def write(self, kind: str, **fields: Any) -> None:
        if kind == "step":
            self.steps.append({name: fields[name] for name in ("step", "loss", "lr")})
        elif kind == "epoch":
            self.epochs.append({name: fields[name] for name in fields if name not in ("seconds", "confusion")})

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.steps]

    def findings(self, classes: int) -> list[str]:
        """Ids of what the rules see on the curve, root cause first (SPEC S1 row 6)."""
        names = {"train_loss": "train_loss", "train_accuracy": "train_accuracy"}
        names |= {"val_loss": "validation_loss", "val_accuracy": "validation_accuracy"}
        epochs = [Epoch(int(e["step"]), **{own: e.get(given) for own, given in names.items()}) for e in self.epochs]
        history = History(self.losses, [line["lr"] for line in self.steps], epochs=epochs, classes=classes)
        return [finding.id for finding in judge(history)[0]]

    def as_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "epochs": self.epochs}


@dataclass
class OneRun:
    """One training of a trial. score and loss: None where it was broken off, and why in `reason`."""

    curve: Curve
    images: int
    epochs: float
    scored: int
    training: float = 0.0  # seconds, those of judging left out
    score: float | None = None
    loss: float | None = None
    reason: str = ""


@dataclass
class _Start:
    """Where a task begins: the states of the trial that it continues, one a run, or nothing and why."""

    states: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class TrialRunner:
    """Runs tasks on one material. folder: holds trials/<number>/; write: where each trial's line goes.

    rate: the schedule of a trial whose settings name none; constant by default, as the courses search without decay.
    stop: asked at each step; True abandons the trial, which raises Interrupted and leaves its task undone.
    clock: seconds of the search so far, for `Trial.ended`.
    keep: whether a trial's checkpoint is wanted, so that another can continue it.
    """

    material: Material
    folder: Path
    write: WriteLine
    worker: str = ""
    rate: str = "constant"
    stop: Callable[[], bool] = lambda: False
    keep: Callable[[Task], bool] = lambda task: True
    clock: Callable[[], float] = lambda: 0.0

    def __call__(self, task: Task) -> Trial:
        """The trial of a task. What goes wrong within it is its result; only an interrupt or a full disk is raised."""
        begun = time.monotonic()
        notes: list[str] = []
        runs: list[OneRun] = []
        try:
            material = with_settings(self.material, {"schedule": self.rate, **task.settings})
            runs = self._runs(task, material, notes)
            trial = _judged(task, runs, notes)
        except Interrupted:
            raise
        except CannotKeep as error:
            raise error.__cause__ or error from None
        except Exception as error:  # a network, an optimizer or an augmentation may fail in any way
            trial = Trial(task.stage, task.number, task.settings, "failed", reason="; ".join([*notes, _said(error)]))
        trial = replace(
            _completed(trial, task, runs, time.monotonic() - begun),
            ended=round(self.clock(), 3),
            worker=self.worker,
        )
        self.write("trial", **line_of(trial, runs, len(self.material.data.classes)))
        return trial

    def checkpoint(self, number: int, run: int = 0) -> Path:
        """Where a trial's state lies; several runs where it is cross-validated."""
        name = "checkpoint.safetensors" if run == 0 else f"checkpoint-{run}.safetensors"
        return self.folder / "trials" / str(number) / name

    def _runs(self, task: Task, material: Material, notes: list[str]) -> list[OneRun]:
        """All runs of the trial; where memory runs out, from the beginning of the task with half the batch."""
        splits = list(held_out(material))
        start = self._start(task, material.plan.schedule, len(splits))
        if start.note:
            notes.append(start.note)
        batch_size = int(start.states[0]["batch_size"]) if start.states else material.plan.training.batch_size
        while True:
            trouble = ""
            try:
                return [
                    self._run(task, material, batch_size, number, *split, start.states[number : number + 1])
                    for number, split in enumerate(splits)
                ]
            except Exception as error:
                if not out_of_memory(error) or batch_size < 2:
                    raise
                trouble = f"out of memory with {batch_size} images a step, so it ran with {batch_size // 2}"
            # Outside of the handler, whose traceback holds the tensors of what failed.
            notes[:] = [*(note for note in notes if not note.startswith("out of memory")), trouble]
            batch_size //= 2
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
        least = math.log(len(material.data.classes))

        def give_up(step: int, loss: float) -> bool:
            return loss > BREAK_OFF * max(curve.steps[0]["loss"], least)

        outcome = train(
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
            evaluate_every=_evaluate_every(batches, len(scored), pace.steps),
            record=curve,
            stop=self.stop,
            give_up=give_up,
        )
        if outcome.reason == "stopped":
            raise Interrupted(f"trial {task.number} was stopped; it is run again when the search goes on")
        images = (outcome.steps - begun) * batches.batch_size
        run = OneRun(curve, images, outcome.epochs, len(scored), max(0.0, outcome.seconds - score.seconds))
        if outcome.reason in ("diverged", "broken-off"):
            run.reason = _broken_off(curve, least)
            return run
        value, figures = score.last if score.last is not None else score(module)
        run.score, run.loss = value, figures["loss"]
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


class _LastScore:
    """The validation score, the last one remembered, and the seconds that it took in all."""

    def __init__(self, score: ValidationScore) -> None:
        self.score = score
        self.last: tuple[float, dict[str, float]] | None = None
        self.seconds = 0.0

    def __call__(self, module: nn.Module) -> tuple[float, dict[str, float]]:
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


def line_of(trial: Trial, runs: list[OneRun], classes: int) -> dict[str, Any]:
    """The fields of a trial's line in the record; the curve is that of its first run."""
    curve = runs[0].curve if runs else Curve()
    pairs = [[line["step"], line["loss"]] for line in curve.steps]
    thinned = pairs[:: max(1, len(pairs) // CURVE_POINTS)]
    return {
        "stage": trial.stage,
        "trial": trial.number,
        "rung": trial.rung,
        "epochs": trial.epochs,
        "continues": trial.continues,
        "settings": trial.settings,
        "state": trial.state,
        "validation_accuracy": trial.score,
        "validation_loss": trial.loss,
        "error": trial.error,
        "reason": trial.reason,
        "runs": len(runs),
        "curve": thinned if not pairs or thinned[-1] == pairs[-1] else [*thinned, pairs[-1]],
        "epoch_curve": curve.epochs,
        "findings": curve.findings(classes) if curve.steps else [],
        "images": trial.images,
        "seconds": trial.seconds,
        "training": trial.training,
        "ended": trial.ended,
        "threads": torch.get_num_threads(),
        "worker": trial.worker,
    }


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


def _broken_off(curve: Curve, least: float) -> str:
    last, first = curve.steps[-1], max(curve.steps[0]["loss"], least)
    if not math.isfinite(last["loss"]):
        return f"the loss was no number at step {last['step']:,}"
    return f"the loss rose to {last['loss']:.3g} at step {last['step']:,}, above {BREAK_OFF:g} × {first:.3g}"


def _said(error: Exception) -> str:
    text = str(error).partition("\n")[0].strip()
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"

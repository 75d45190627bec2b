"""Fitting the model: from the probe or from random weights, to the best weights on validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from wellfit.diagnosis.monitor import Monitor
from wellfit.errors import Interrupted
from wellfit.findings import Finding, GateFailed
from wellfit.models.zoo import Built
from wellfit.randomness import key_to_integer
from wellfit.recipe.full_batch import is_full_batch, train_on_all
from wellfit.recipe.job import Job
from wellfit.recipe.kept import Kept, place_of, set_aside
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.plan import Plan
from wellfit.recipe.sharing import Order, refuse_full_batch, shared_training
from wellfit.recipe.timed_score import TimedScore
from wellfit.recipe.training_parts import TrainingParts
from wellfit.training.distributed import SharedScore, Together
from wellfit.training.loop import Best, Lines, Outcome, train
from wellfit.training.pace import Pace
from wellfit.transfer.probe import Probe
from wellfit.transfer.rates import freeze_below_top

RETRIES = 2  # after a diverged training: each at a tenth of the rate before


@dataclass
class Fitted:
    """The network that is handed over, and how good it is on validation."""

    built: Built
    module: nn.Module
    score: float
    steps: int
    settings: Settings
    interrupted: bool = False
    held_out: tuple[np.ndarray, np.ndarray] | None = None  # log probabilities N×C and targets N of unseen images
    held_out_of: np.ndarray | None = None  # source indices of those images
    over_views: tuple[np.ndarray, np.ndarray] | None = None  # as held_out, over the test-time views that were chosen
    # Where the network was fitted on validation images too: its like, on the engine, fitted on training images alone.
    apart: Callable[[], nn.Module] | None = None
    probe: Probe | None = None  # fitted on training and validation images, for when nothing more is trained
    kept: list[Kept] = field(default_factory=list)  # weights set aside on the way
    views: str = "none"  # a name of `inference.views.VIEWS`
    on_validation: float = math.nan  # the score on the validation split, which a probe's folds may go beyond


@dataclass
class Trained:
    """A network from random weights, at its best on validation. kept: the weights set aside, that best among them."""

    built: Built
    module: nn.Module
    best: Best
    settings: Settings
    steps: int
    epochs: float
    reason: str
    kept: list[Kept] = field(default_factory=list)


def train_network(job: Job, material: Material, settings: Settings) -> Fitted:
    """Train at the settings; a training that diverges is begun anew at a tenth of the rate, and says so."""
    with job.step("train") as outcome:
        trained = train_member(job, material, settings)
        if not trained.best.weights:
            raise Interrupted(f"stopped before the first evaluation; go on with `wellfit resume {job.folder.path}`")
        best, rate = trained.best, trained.settings.lr
        outcome.reason = (
            f"{trained.epochs:.1f} epochs, {trained.steps:,} steps at lr {rate:.3g}; best on validation at step "
            f"{best.step:,}{', averaged weights' if best.averaged else ''}"
        )
        stopped = trained.reason == "stopped"
        fitted = Fitted(trained.built, trained.module, best.score, trained.steps, trained.settings, stopped)
        fitted.kept = trained.kept
        return fitted


def train_member(job: Job, material: Material, settings: Settings, number: int = 0) -> Trained:
    """One network from a seed of its own; number 0 has the plan's. Its weights are set aside on the way.

    One that is there already, from a session before, is taken as it is. Raises GateFailed where every rate diverges.
    """
    plan = material.plan
    if number:
        seed = key_to_integer(plan.seed, "member", number) % 2**31
        material = replace(material, plan=plan.replace(seed=seed))
    done = Kept(f"network {number + 1}", "best", place_of(job, f"member-{number}"))
    about = done.about if done.path.exists() else None
    for attempt in range(about["attempt"] if about else 0, RETRIES + 1):
        name = f"member-{number}-attempt-{attempt}" if number else f"attempt-{attempt}"
        rate = settings.lr / 10**attempt
        tried = replace(settings, lr=rate)
        built = material.network()
        module = plan.engine.place(built.module)
        if about is not None:
            best = Best(about["score"], about["loss"], about["step"], about["averaged"], done.weights())
            module.load_state_dict(best.weights)
            kept = _kept(job, plan, number, name)
            return Trained(built, module, best, tried, about["steps"], about["epochs"], "finished", kept)
        share = 1 / (plan.ending.members - number)  # the networks still to come have their time too
        result = _train(job, material, built, module, tried, name=name, share=share, shown=not number)
        if result.reason != "diverged":
            break
        job.report(_diverged(rate, result, last=attempt == RETRIES))
        if attempt == RETRIES:
            raise GateFailed(job.findings[-1:])
    best = result.best
    if best.weights:
        module.load_state_dict(best.weights)
    trained = Trained(built, module, best, tried, result.steps, result.epochs, result.reason)
    if result.reason != "stopped" and best.weights and _sets_aside(plan):
        numbers = {"score": best.score, "loss": best.loss, "step": best.step, "averaged": best.averaged}
        set_aside(done.path, module, **numbers, steps=result.steps, epochs=result.epochs, attempt=attempt)
        trained.kept = _kept(job, plan, number, name)
    return trained


def _sets_aside(plan: Plan) -> bool:
    return bool(plan.ending.snapshots or plan.ending.members > 1)


def _kept(job: Job, plan: Plan, number: int, name: str) -> list[Kept]:
    """What a training left: its best weights, its snapshots, the average of its weights."""
    whose = f" of network {number + 1}" if number else ""
    found = [Kept(f"network {number + 1}", "best", place_of(job, f"member-{number}"))]
    for point in plan.ending.snapshots:
        found.append(Kept(f"snapshot at {point:.0%}{whose}", "snapshot", place_of(job, f"{name}-at-{point:.4f}")))
    found.append(Kept(f"averaged weights{whose}", "average", place_of(job, f"{name}-average")))
    return [kept for kept in found if kept.path.exists()]


def fine_tune(
    job: Job, material: Material, settings: Settings, start: Fitted, before: float, *, top: bool, share: float = 1.0
) -> Fitted | None:
    """Train the network from the fitted classifier, to its best on validation; None where it was never judged.

    start: the network to train, with a classifier that was fitted on training images alone; it is changed. before: what
    the best linear classifier scores on validation. top: only the last stages are trained, of all layers else. share:
    of the time that is left.
    """
    with job.step("fine-tune") as outcome:
        module = start.module
        if top:
            freeze_below_top(module, material.plan.model.image_size)
        result = _train(job, material, start.built, module, settings, name="fine-tune", share=share, top=top)
        score = result.best.score
        gains = bool(result.best.weights) and score > before
        outcome.gain = round(score - before, 4) if gains else 0.0
        if gains:
            what = "the top stages" if top else "all layers, lower rates below"
            outcome.reason = f"{what}; {result.epochs:.1f} epochs; validation {before:.4f} → {score:.4f}"
        else:
            outcome.reason = f"no better by itself: {score:.4f} on validation against the probe's {before:.4f}"
        if not result.best.weights:
            return None
        module.load_state_dict(result.best.weights)
        stopped = result.reason == "stopped"
        return Fitted(start.built, module, score, result.steps, settings, stopped, on_validation=score)


def _train(
    job: Job,
    material: Material,
    built: Built,
    module: nn.Module,
    settings: Settings,
    *,
    name: str,
    share: float = 1.0,
    shown: bool = True,
    top: bool = False,
) -> Outcome:
    """share: of the time that is left. shown: its curves are the record's, and the monitor watches."""
    plan = material.plan
    training = plan.training
    pace = Pace(0, job.budget.deadline)
    # Under a deadline the time decides; an epoch count that was asked for is kept to.
    longer = pace.deadline is not None and not job.config.training.epochs
    pace.steps = 3 * training.steps if longer else training.steps
    score = material.validation_score()
    evaluate = TimedScore(score, pace, plan, material.data, budget=job.budget.seconds, share=share)
    checkpoint = job.folder.checkpoint.with_name(f"{name}.safetensors")
    if is_full_batch(plan.optimizer.name):
        refuse_full_batch(plan.optimizer.name)
        return train_on_all(job, material, module, settings, pace=pace, evaluate=evaluate, checkpoint=checkpoint)
    order = Order.of(material, built, module, settings, top=top, steps=pace.steps)
    with shared_training(job, order, material.data, module) as together:
        if job.group is not None:
            evaluate.score = SharedScore(score, job.group)
        return _with_parts(job, material, module, settings, pace, evaluate, checkpoint, together, name, shown)


def _with_parts(
    job: Job,
    material: Material,
    module: nn.Module,
    settings: Settings,
    pace: Pace,
    evaluate: TimedScore,
    checkpoint: Path,
    together: Together,
    name: str,
    shown: bool,
) -> Outcome:
    plan, parts = material.plan, TrainingParts.of(material, module, settings)
    average = parts.average

    def keep(point: float, net: nn.Module) -> None:
        if point in plan.ending.snapshots:
            set_aside(place_of(job, f"{name}-at-{point:.4f}"), net)
        if point == 1.0 and average is not None:
            with average.applied_to(net):
                set_aside(place_of(job, f"{name}-average"), net)

    points = sorted({*plan.ending.snapshots, 1.0}) if _sets_aside(plan) else ()
    record: Lines = job.record if shown else _Told(job)
    with Monitor(module, parts.optimizer, classes=len(material.data.classes), every=20) as monitor:
        result = train(
            module,
            parts.batches,
            parts.criterion,
            parts.optimizer,
            pace=pace,
            evaluate=evaluate,
            monitor=monitor,
            record=record,
            checkpoint=checkpoint,
            stop=job.stop_now,
            stop_at_evaluation=job.stop,
            on_evaluation=_Alarms(job, monitor) if shown else lambda step: None,
            snapshots=points,
            on_snapshot=keep,
            together=together,
            **parts.options,
        )
        if shown and len(monitor.history.losses):  # none where a resumed training had nothing left to do
            job.report(*monitor.findings())
    return result


@dataclass
class _Told:
    """Takes a training's lines for the person who watches alone: the record's curves are those of the first network."""

    job: Job

    def write(self, kind: str, **fields: Any) -> None:
        self.job.record.tell(kind, **fields)


class _Alarms:
    """Says what the monitor sees while the training still runs, each id once; the findings are settled at its end."""

    def __init__(self, job: Job, monitor: Monitor) -> None:
        self.job, self.monitor, self.said = job, monitor, set[str]()

    def __call__(self, step: int) -> None:
        if not len(self.monitor.history.losses):
            return
        for finding in self.monitor.findings():
            if finding.severity != "info" and finding.id not in self.said:
                self.said.add(finding.id)
                self.job.record.write("alarm", step=step, **finding.as_dict())


def _diverged(rate: float, result: Outcome, *, last: bool) -> Finding:
    action = (
        "Lower --lr, or look at the data and the network: no rate worked."
        if last
        else f"Nothing to do now: the training begins anew at lr {rate / 10:.3g}."
    )
    return Finding(
        "lr-too-high",
        "error" if last else "warning",
        f"at lr {rate:.3g} the loss became no number at step {result.steps}",
        {"lr": rate, "step": result.steps, "losses": [x for x in result.losses[-5:] if math.isfinite(x)]},
        action,
        "CS231n, babysitting the learning process; SPEC C5",
    )

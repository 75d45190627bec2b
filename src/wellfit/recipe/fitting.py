"""Fitting the model: from the probe or from random weights, to the best weights on validation."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import numpy as np
from torch import nn

from wellfit.diagnosis.monitor import Monitor
from wellfit.errors import Interrupted
from wellfit.findings import Finding, GateFailed
from wellfit.models.probe_net import ProbeNet
from wellfit.models.zoo import Built
from wellfit.recipe.full_batch import is_full_batch, train_on_all
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.model_choice import closing_time
from wellfit.training.averaging import WeightAverage
from wellfit.training.loop import Outcome, train
from wellfit.training.pace import Pace
from wellfit.training.schedules import plateau_of, schedule
from wellfit.transfer.probe import Probe, install

CAUTIOUS_SPEED = 500.0  # images a second that are judged, before the first evaluation has been timed
AFFORDED = 0.02  # the share of a budget that may be kept for the features of the training images
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
    probe: Probe | None = None  # fitted on training and validation images, for when nothing more is trained


def train_network(job: Job, material: Material, settings: Settings) -> Fitted:
    """Train at the settings; a training that diverges is begun anew at a tenth of the rate, and says so."""
    with job.step("train") as outcome:
        for attempt in range(RETRIES + 1):
            rate = settings.lr / 10**attempt
            tried = Settings(rate, settings.weight_decay, settings.balance)
            built = material.network()
            module = material.plan.engine.place(built.module)
            result = _train(job, material, module, tried, name=f"attempt-{attempt}")
            if result.reason != "diverged":
                break
            job.report(_diverged(rate, result, last=attempt == RETRIES))
            if attempt == RETRIES:
                raise GateFailed(job.findings[-1:])
        if not result.best.weights:
            raise Interrupted(f"stopped before the first evaluation; go on with `wellfit resume {job.folder.path}`")
        module.load_state_dict(result.best.weights)
        outcome.reason = (
            f"{result.epochs:.1f} epochs, {result.steps:,} steps at lr {rate:.3g}; best on validation at step "
            f"{result.best.step:,}{', averaged weights' if result.best.averaged else ''}"
        )
        stopped = result.reason == "stopped"
        return Fitted(built, module, result.best.score, result.steps, tried, stopped)


def fine_tune(job: Job, material: Material, settings: Settings, probed: Fitted) -> Fitted:
    """Train the whole network from the fitted classifier, at low rates; kept only if validation gains."""
    with job.step("fine-tune") as outcome:
        if not material.plan.training.steps:
            outcome.skip(next((r for r in material.plan.reasons if r.startswith("no fine-tuning")), "not planned"))
            return probed
        module = copy.deepcopy(probed.module)
        before, _ = material.validation_score()(module)
        result = _train(job, material, module, settings, name="fine-tune")
        if not result.best.weights or result.best.score <= before:
            outcome.reason = f"not kept: {result.best.score:.4f} on validation against the probe's {before:.4f}"
            outcome.gain = 0.0
            if isinstance(probed.module, ProbeNet) and probed.probe is not None:
                install(probed.module, probed.probe)
            return probed
        module.load_state_dict(result.best.weights)
        outcome.gain = round(result.best.score - before, 4)
        outcome.reason = f"{result.epochs:.1f} epochs; validation {before:.4f} → {result.best.score:.4f}"
        return Fitted(
            probed.built,
            module,
            result.best.score,
            result.steps,
            settings,
            result.reason == "stopped",
        )


def _train(job: Job, material: Material, module: nn.Module, settings: Settings, *, name: str) -> Outcome:
    plan = material.plan
    training = plan.training
    average = WeightAverage(module, training.average, ramp=True) if training.average else None
    pace = Pace(0, job.budget.deadline)
    # Under a deadline the time decides; an epoch count that was asked for is kept to.
    longer = pace.deadline is not None and not job.config.training.epochs
    pace.steps = 3 * training.steps if longer else training.steps
    evaluate = _TimedScore(material, pace, job.budget.seconds)
    checkpoint = job.folder.checkpoint.with_name(f"{name}.safetensors")
    if is_full_batch(plan.optimizer.name):
        return train_on_all(job, material, module, settings, pace=pace, evaluate=evaluate, checkpoint=checkpoint)
    optimizer = material.optimizer(module, settings)
    with Monitor(module, optimizer, classes=len(material.data.classes), every=20) as monitor:
        result = train(
            module,
            material.training(plan.seed, settings.balance),
            material.criterion(settings.balance),
            optimizer,
            engine=plan.engine,
            preprocessing=material.preprocessing,
            schedule=schedule(plan.schedule),
            plateau=plateau_of(plan.schedule),
            pace=pace,
            penalty=material.penalty(),
            evaluate=evaluate,
            evaluate_every=training.evaluate_every,
            average=average,
            patience=training.patience,
            monitor=monitor,
            record=job.record,
            checkpoint=checkpoint,
            stop=job.stop,
            on_evaluation=_Alarms(job, monitor),
        )
        if len(monitor.history.losses):  # none where a resumed training had nothing left to do
            job.report(*monitor.findings())
    return result


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


class _TimedScore:
    """The validation score, which also moves the training's deadline.

    What one pass over validation takes, saving will take again and the test images in proportion: measured anew each
    time, so that a machine that has become slower still ends on time.
    """

    def __init__(self, material: Material, pace: Pace, budget: float | None) -> None:
        self.score, self.pace, self.end, self.budget = material.validation_score(), pace, pace.deadline, budget
        self.data, self.images = material.data, len(material.data.split.validation)
        self._keep(self.images / CAUTIOUS_SPEED)

    def __call__(self, module: nn.Module) -> tuple[float, dict[str, float]]:
        begun = time.monotonic()
        result = self.score(module)
        self._keep(time.monotonic() - begun)
        return result

    def _keep(self, validation_seconds: float) -> None:
        if self.end is not None:
            share = 1 + len(self.data.split.test) / max(1, self.images)
            looking = validation_seconds * len(self.data.split.train) / max(1, self.images)
            if looking > AFFORDED * (self.budget or 0.0):
                looking = 0.0  # `wellfit neighbours` does it later
            self.pace.deadline = self.end - closing_time(self.data) - share * validation_seconds - looking


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

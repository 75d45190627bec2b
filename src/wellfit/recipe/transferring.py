"""The policy: what the probe saw decides what is trained, and validation which network is handed over (SPEC T4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from wellfit.findings import Finding
from wellfit.recipe.fitting import Fitted, fine_tune, train_network
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.probing import Looked, control, linear, probe
from wellfit.recipe.transfer_ensemble import Tried, join_tried
from wellfit.recipe.trials import TrialRunner
from wellfit.search.trial import Task
from wellfit.transfer.policy import (
    ALL,
    EARLIER,
    FASTER,
    PROBE,
    SCRATCH,
    TOP,
    Decision,
    Evidence,
    Stage,
    decide,
    handed_over,
)
from wellfit.transfer.rates import LOWEST


def transfer(job: Job, material: Material) -> tuple[Material, Fitted]:
    """Probe, decide, and train what the decision asks for; the material at the size that was chosen, and the best."""
    looked = probe(job, material)
    decision = choose_strategy(job, looked)
    tried, asked = carry_out(job, looked, decision), material.plan.transfer_strategy
    best = best_of(tried, asked)
    if tried[-1].fitted.interrupted or job.stop() or best.strategy == asked == SCRATCH:
        return best.material, best.fitted
    return join_tried(job, looked, tried, best)


def choose_strategy(job: Job, looked: Looked) -> Decision:
    """Weigh the evidence; the finding prints the taught table with these numbers."""
    with job.step("policy") as outcome:
        planned = looked.material.plan
        # An epoch count that was asked for says nothing of the time.
        epochs = planned.epochs if planned.training.steps and not job.config.training.epochs else math.inf
        decision = decide(replace(evidence_of(looked, _small_net(job, looked)), epochs=epochs))
        wanted = looked.material.plan.transfer_strategy
        if wanted != "auto":
            decision = replace(
                decision, strategies=(wanted,), reasons=(*decision.reasons, f"'{wanted}' was asked for: it is taken")
            )
        job.report(
            Finding(
                "transfer-policy",
                "info",
                f"{' and '.join(decision.cell)}: {', '.join(decision.strategies)}; " + "; ".join(decision.reasons),
                decision.evidence,
                "Nothing to do: the run follows the cell; training.transfer names another strategy.",
                "CS231n, transfer learning; SPEC T4",
            )
        )
        job.say(decision.table)
        outcome.reason = f"{decision.cell[0]} data, {decision.cell[1]}: {', then '.join(decision.strategies)}"
        return decision


def _small_net(job: Job, looked: Looked) -> float | None:
    """The validation score of the plan's small net after a short training from random weights; None without one."""
    small = looked.material.plan.compared
    if not small.steps:
        return None
    material = looked.material.from_scratch(small)
    folder = job.folder.checkpoint.parent / "compared"
    runner = TrialRunner(
        material, folder, lambda kind, **fields: None, rate=material.plan.schedule, keep=lambda task: False
    )
    images, batch_size = len(material.data.split.train), material.plan.training.batch_size
    trial = runner(Task(0, "compared", {}, small.steps / max(1, images // min(batch_size, images))))
    looked.material.plan.engine.activate()
    return trial.score


def evidence_of(looked: Looked, scratch: float | None = None) -> Evidence:
    """The measured numbers: linear classifiers by stage, the same network with random weights, a small net's score."""
    plan, data = looked.material.plan, looked.material.data
    rows = looked.result.stages(plan.metric)
    stages = [
        Stage(layer, row["pooling"], row[plan.metric], row["loss"])
        for layer in looked.features.layers
        for row in [rows[layer]]
    ]
    compared = control(looked)
    unmeasured = []
    if compared is None:
        unmeasured.append("too few images to compare with random weights")
    if scratch is None:
        unmeasured.append("no small net was trained from scratch to compare with")
    return Evidence(
        images=len(data.split.train),
        classes=len(data.classes),
        judged=int(next(iter(rows.values()))["judged"]),
        metric=plan.metric,
        stages=stages,
        control=None if compared is None else compared[:2],
        control_images=0 if compared is None else compared[2],
        scratch=None if scratch is None else (scratch, looked.validation_score(looked.result)),
        scratch_images=len(looked.on_validation),
        unmeasured=unmeasured,
    )


def carry_out(job: Job, looked: Looked, decision: Decision) -> list[Tried]:
    """What was decided, a linear classifier first; what the plan has no time for is said."""
    material, plan = looked.material, looked.material.plan
    wanted, layers = decision.strategies, looked.features.layers
    earlier = EARLIER in wanted and len(layers) > 1
    chosen = looked.best_at(layers[:-1] if earlier else layers[-1:])
    fitted = linear(looked, chosen)
    fine = next((strategy for strategy in wanted if strategy in (TOP, ALL)), None)
    # A plan that holds fine-tuning is followed, however few the images: it was written so.
    if fine is None and plan.training.steps and plan.transfer_strategy == "auto" and SCRATCH not in wanted:
        fine = ALL
    scratch = SCRATCH in wanted and plan.scratch.steps > 0
    if scratch or (fine is not None and plan.training.steps):
        # What is trained will not have seen validation images, so neither has the classifier that it is compared with.
        fitted = replace(fitted, on_validation=looked.apart(chosen)[1])
    tried = [Tried(EARLIER if earlier else PROBE, material, fitted, chosen)]
    if fine is None or not plan.training.steps:
        job.skip("fine-tune", _why_not(material, decision))
    else:
        start = linear(looked, looked.best_at(layers[-1:]), unseen_validation=True)
        settings, share = fine_tuning_settings(job, material, decision), 0.5 if scratch else 1.0
        tuned = fine_tune(job, material, settings, start, fitted.on_validation, top=fine == TOP, share=share)
        if tuned is not None:
            tried.append(Tried(fine, material, tuned))
    if scratch and not tried[-1].fitted.interrupted:
        small = material.from_scratch()
        trained = train_network(job, small, Settings.of(small.plan))
        tried.append(Tried(SCRATCH, small, replace(trained, on_validation=trained.score)))
    return tried


def best_of(tried: Sequence[Tried], asked: str = "auto") -> Tried:
    """What validation puts first; a later one must be better than those before. A net from scratch that was asked for
    by name is taken whatever else is better.
    """
    by_name = {each.strategy: each for each in tried}
    if asked == SCRATCH and SCRATCH in by_name:
        return by_name[SCRATCH]
    return by_name[handed_over(list(by_name), {name: each.fitted.on_validation for name, each in by_name.items()})]


def fine_tuning_settings(job: Job, material: Material, decision: Decision) -> Settings:
    """The plan's rates, lower for earlier layers; higher ones where the data are different and none was asked for."""
    settings = replace(Settings.of(material.plan), lowest=LOWEST)
    faster = decision.cell[1] == "different" and not job.config.optimizer.lr
    return replace(settings, lr=settings.lr * FASTER) if faster else settings


def _why_not(material: Material, decision: Decision) -> str:
    planned = next((reason for reason in material.plan.reasons if reason.startswith("no fine-tuning")), "")
    return planned or f"{decision.cell[0]} data, {decision.cell[1]}: not advised"

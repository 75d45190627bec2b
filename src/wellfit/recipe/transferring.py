"""The policy: what the probe saw decides what is trained, and validation which network is handed over (SPEC T4)."""

from __future__ import annotations

from dataclasses import replace

from wellfit.findings import Finding
from wellfit.recipe.fitting import Fitted, fine_tune, train_network
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.probing import Looked, control, linear, probe
from wellfit.recipe.stage_ensemble import join_stages
from wellfit.recipe.trials import TrialRunner
from wellfit.search.trial import Task
from wellfit.transfer.policy import ALL, EARLIER, FASTER, SCRATCH, TOP, Decision, Evidence, Stage, decide
from wellfit.transfer.rates import LOWEST


def transfer(job: Job, material: Material) -> tuple[Material, Fitted]:
    """Probe, decide, and train what the decision asks for; the material at the size that was chosen, and the best."""
    looked = probe(job, material)
    decision = choose_strategy(job, looked)
    material, fitted = carry_out(job, looked, decision)
    if material is not looked.material or fitted.interrupted or job.stop():
        return material, fitted
    return material, join_stages(job, looked, fitted)


def choose_strategy(job: Job, looked: Looked) -> Decision:
    """Weigh the evidence; the finding prints the taught table with these numbers."""
    with job.step("policy") as outcome:
        decision = decide(evidence_of(looked, _small_net(job, looked)))
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


def carry_out(job: Job, looked: Looked, decision: Decision) -> tuple[Material, Fitted]:
    """Train what was decided, each kept only where validation gains; what the plan has no time for is said."""
    material, plan = looked.material, looked.material.plan
    wanted, layers = decision.strategies, looked.features.layers
    chosen = looked.best_at(layers[:-1] if EARLIER in wanted and len(layers) > 1 else layers[-1:])
    best = linear(looked, chosen)
    fine = next((strategy for strategy in wanted if strategy in (TOP, ALL)), None)
    # A plan that holds fine-tuning is followed, however few the images: it was written so.
    if fine is None and plan.training.steps and plan.transfer_strategy == "auto" and SCRATCH not in wanted:
        fine = ALL
    scratch = SCRATCH in wanted and plan.scratch.steps > 0
    if scratch or (fine is not None and plan.training.steps):
        # What is trained will not have seen validation images, so neither has the classifier that it is compared with.
        best = replace(best, on_validation=looked.apart(chosen)[1])
    if fine is None or not plan.training.steps:
        job.skip("fine-tune", _why_not(material, decision))
    else:
        start = linear(looked, looked.best_at(layers[-1:]), unseen_validation=True)
        settings = fine_tuning_settings(job, material, decision)
        best = fine_tune(job, material, settings, best, start, top=fine == TOP, share=0.5 if scratch else 1.0)
    if scratch and not best.interrupted:
        small = material.from_scratch()
        trained = train_network(job, small, Settings.of(small.plan))
        if trained.score > best.on_validation or plan.transfer_strategy == SCRATCH:
            return small, trained
    return material, best


def fine_tuning_settings(job: Job, material: Material, decision: Decision) -> Settings:
    """The plan's rates, lower for earlier layers; higher ones where the data are different and none was asked for."""
    settings = replace(Settings.of(material.plan), lowest=LOWEST)
    faster = decision.cell[1] == "different" and not job.config.optimizer.lr
    return replace(settings, lr=settings.lr * FASTER) if faster else settings


def _why_not(material: Material, decision: Decision) -> str:
    planned = next((reason for reason in material.plan.reasons if reason.startswith("no fine-tuning")), "")
    return planned or f"{decision.cell[0]} data, {decision.cell[1]}: not advised"

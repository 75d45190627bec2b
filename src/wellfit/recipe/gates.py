"""The checks as gates: a failed one stops the run, in words, before any time is spent on training."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import torch

from wellfit.checks import CheckResult, run_gates
from wellfit.data.augmentations.table import name_of
from wellfit.models.zoo import resolve
from wellfit.randomness import generator
from wellfit.recipe.earlier import card_beside
from wellfit.recipe.full_batch import is_full_batch
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.record import read_record

GATE_IMAGES = 64
GATE_BATCH = 32  # at least, for the range of rates
BUDGET_SHARE = 0.08  # of what is left, for all gates of a run together


def check(job: Job, material: Material) -> list[CheckResult]:
    """Run the gates on the network at its start. Raises GateFailed unless the job is forced."""
    with job.step("checks") as outcome:
        if any(
            line["kind"] == "recipe_step" and line["name"] == "checks" and line["status"] == "done"
            for line in read_record(job.folder.record)
        ):
            outcome.skip("already passed before this run was taken up again")
            return []
        results = gate_results(job, material)
        passed = sum(result.passed for result in results)
        outcome.reason = f"{passed} of {len(results)} passed"
        for text, names in (
            ("undecided", [r.check for r in results if not r.finished and not r.passed]),
            ("gone on in spite of", [r.check for r in results if r.stops]),
            ("passed with a remark", [r.check for r in results if r.finished and not r.passed and not r.stops]),
        ):
            if names:
                outcome.reason += f"; {text}: {', '.join(names)}"
        return results


def gate_results(job: Job, material: Material, share: float = BUDGET_SHARE) -> list[CheckResult]:
    """The gates' results, each written into the record as it comes; also what `wellfit check` shows.

    share: how much of the time that is left they may take together.
    """
    plan, data = material.plan, material.data
    plan.engine.activate()
    train = data.split.train
    draw = generator(plan.seed, "gate-images").permutation(len(train))[:GATE_IMAGES]
    indices = train[np.sort(draw)]
    module = plan.engine.place(material.network().module)
    inputs = material.inputs(indices).to(plan.engine.device)
    targets = torch.from_numpy(data.targets(indices)).to(plan.engine.device)
    settings = Settings.of(plan)
    # A handful of images a step is too noisy to tell rates apart within a hundred steps.
    # Erased, distorted and blended images hide its fall as well, and are not what the gate is about.
    kept = tuple(text for text in plan.augment if name_of(text) in ("flip", "crop"))
    light = replace(material, plan=plan.replace(augment=kept))
    batches = light.training(plan.seed, "none", batch_size=max(GATE_BATCH, plan.training.batch_size))

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        made = batches.batch(step)
        return plan.engine.inputs(made.images, material.preprocessing), made.targets.to(plan.engine.device)

    def on_result(result: CheckResult) -> None:
        job.record.write("check", **result.as_dict())
        if result.finding is not None:  # a gate that ran out of time has seen nothing wrong
            finding = result.finding if result.finished else replace(result.finding, severity="info")
            job.report(finding)

    deadline = None if math.isinf(job.budget.left) else time.monotonic() + share * job.budget.left
    lr = settings.lr
    return run_gates(
        module,
        material.criterion("none"),
        inputs,
        targets,
        classes=len(data.classes),
        # A network gone on from an earlier run has a trained classifier: it need not start at log C.
        created_head=(resolve(plan.model.name)[0] == "own" or plan.model.transfer != "none")
        and card_beside(plan.model.weights) is None,
        optimizer=lambda network, rate: material.optimizer(network, Settings(rate, settings.weight_decay)),
        lr=lr,
        penalty=material.penalty(),
        # A classifier on frozen features is solved for, not trained, and fine-tuning begins where that ends.
        batches=batch if plan.model.transfer != "probe" and not is_full_batch(plan.optimizer.name) else None,
        candidates=(10 * lr, lr, lr / 10),
        iterations=plan.checks.lr_iterations,
        max_steps=plan.checks.small_sample_steps,
        deadline=deadline,
        context=plan.engine.autocast,
        seed=plan.seed,
        force=job.force,
        gradients=resolve(plan.model.name)[0] == "user",
        on_result=on_result,
    )

"""`--ensemble N` of a run from pretrained weights: the mean of what several stages say (SPEC E1, E4).

Networks from other seeds are of no use here: a linear fit has one optimum, whatever the seed. What differs is where a
classifier sits: members are the best linear classifier of each stage and, where one was kept, the fine-tuned network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from wellfit.inference.evaluate import logits_of
from wellfit.inference.gain import Judged, judge
from wellfit.inference.selection import greedy, mean_answers
from wellfit.models.ensemble import Ensemble
from wellfit.models.zoo import Built
from wellfit.recipe.combining import record_line, verdict, worth
from wellfit.recipe.fitting import Fitted
from wellfit.recipe.job import Job
from wellfit.recipe.probing import Looked, linear
from wellfit.transfer.probe import ProbeResult

TIMED = 64  # images on which the cost of one pass is measured


@dataclass
class Member:
    """What could be part of the mean. kind: "best", the fine-tuned network, or "linear".

    answers: of images that it was not fitted on. whole: the network to hand over, fitted on all that may be learnt
    from; apart: the same, fitted on training images alone.
    """

    name: str
    kind: str
    answers: np.ndarray
    judged: Judged
    whole: Callable[[], Fitted]
    apart: Callable[[], nn.Module]


def join_stages(job: Job, looked: Looked, fitted: Fitted) -> Fitted:
    """The fitted network, or its mean with linear classifiers of other stages where they were asked for and gain.

    fitted: what `looked` has led to, at its image size. Judged on all images that the probe's classifiers have held
    out; with a fine-tuned network among the members, on the validation split.
    """
    material, plan = looked.material, looked.material.plan
    if plan.ending.members < 2:
        asked = "one was asked for" if job.config.ensemble == "none" else "more were not asked for"
        job.skip("ensemble", f"one network, as {asked}; `--ensemble N` averages classifiers of N stages")
        return fitted
    with job.step("ensemble") as outcome:
        plan.engine.activate()
        pool, rows = _pool(looked, fitted)
        targets = looked.targets[rows]
        selection = greedy(
            [each.answers for each in pool], targets, plan.metric, most_members=min(plan.ending.members, len(pool))
        )
        took = worth(selection, asked=True)
        milliseconds = _milliseconds(looked, fitted)
        outcome.gain = round(selection.gain.score, 4) if took else 0.0
        outcome.reason = (
            f"{verdict(selection, took)}; tried: {', '.join(each.name for each in pool)} (a linear fit is the same "
            "whatever the seed, so further ones would bring nothing)"
        )
        if not took:
            return fitted
        job.record.write("ensemble", **record_line(pool, selection, milliseconds, len(rows)))
        members = [pool[i] for i in selection.chosen]
        shares = [round(float(selection.weights[i]), 6) for i in selection.chosen]
        whole = [member.whole() for member in members]
        module = plan.engine.place(Ensemble([each.module for each in whole], shares).eval())
        size = material.plan.model.image_size
        described = [{"name": w.built.name, "options": w.built.options, "image_size": size} for w in whole]
        options: dict[str, Any] = {"members": described, "shares": shares}
        origin = fitted.built
        return replace(
            fitted,
            built=Built(module, "ensemble", options, origin.weights, licence=origin.licence, source=origin.source),
            module=module,
            score=selection.judged.score,
            held_out=(mean_answers([member.answers for member in members], shares), targets),
            held_out_of=looked.indices[rows],
            apart=lambda: plan.engine.place(Ensemble([member.apart() for member in members], shares).eval()),
        )


def _pool(looked: Looked, fitted: Fitted) -> tuple[list[Member], np.ndarray]:
    """The candidates, and the rows of `looked` that all of them are judged on."""
    plan = looked.material.plan
    results = [looked.best_at([layer]) for layer in looked.features.layers]
    rows = np.flatnonzero(np.all([np.isfinite(each.held_out).all(axis=1) for each in results], axis=0))
    pool = []
    if fitted.probe is None:
        rows = np.intersect1d(rows, looked.on_validation)
        batches = looked.material.evaluation(looked.indices[rows])
        answers = logits_of(fitted.module, batches, plan.engine, looked.material.preprocessing)
        judged = judge(answers, looked.targets[rows], plan.metric)
        pool.append(Member("fine-tuned", "best", answers, judged, lambda: fitted, lambda: fitted.module))
    pool += [_linear_member(looked, result, rows) for result in results]
    return pool, rows


def _linear_member(looked: Looked, result: ProbeResult, rows: np.ndarray) -> Member:
    assert result.spot is not None
    answers = np.log(result.held_out[rows] + 1e-12)
    judged = judge(answers, looked.targets[rows], looked.material.plan.metric)
    name = f"{result.spot.layer}, {result.spot.pooling}"
    return Member(
        name,
        "linear",
        answers,
        judged,
        lambda: linear(looked, result),
        lambda: linear(looked, result, unseen_validation=True).module,
    )


def _milliseconds(looked: Looked, fitted: Fitted) -> float:
    """Of one pass over one image."""
    material, some = looked.material, looked.indices[:TIMED]
    begun = time.monotonic()
    logits_of(fitted.module, material.evaluation(some), material.plan.engine, material.preprocessing)
    return 1000 * (time.monotonic() - begun) / len(some)

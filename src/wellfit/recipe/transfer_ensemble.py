"""The mean of what transfer has led to: networks that were trained, classifiers on several stages (SPEC E1, E4).

Networks from other seeds are of no use here: a linear fit has one optimum, whatever the seed. What differs is where a
classifier sits and what was trained. The networks that the policy trained are there anyway, so their mean with the
linear classifier is tried unasked; `--ensemble N` adds the best linear classifier of each stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from wellfit.errors import UserError
from wellfit.inference.evaluate import logits_of
from wellfit.inference.gain import Judged, judge
from wellfit.inference.selection import MOST_MEMBERS, greedy, mean_answers
from wellfit.recipe.combining import record_line, verdict, worth
from wellfit.recipe.common_view import Part, common_view, joined
from wellfit.recipe.fitting import Fitted
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.probing import Looked, linear
from wellfit.transfer.policy import ALL, SCRATCH, TOP
from wellfit.transfer.probe import ProbeResult

TIMED = 64  # images on which the cost of one pass is measured
TRAINED = {TOP: "fine-tuned", ALL: "fine-tuned", SCRATCH: "from scratch"}


@dataclass(frozen=True)
class Tried:
    """What a strategy of transfer has led to, and the material that it was carried out on."""

    strategy: str
    material: Material
    fitted: Fitted


@dataclass
class Member:
    """What could be part of the mean. kind: "best", a network that was trained, or "linear".

    answers: of images that it was not fitted on. whole: the network to hand over, fitted on all that may be learnt
    from; apart: the same, fitted on training images alone.
    """

    name: str
    kind: str
    material: Material
    answers: np.ndarray
    judged: Judged
    whole: Callable[[], Fitted]
    apart: Callable[[], nn.Module]


def join_tried(job: Job, looked: Looked, tried: Sequence[Tried], best: Tried) -> tuple[Material, Fitted]:
    """The best of what was tried, or its mean with others where validation gains; and the material that belongs to it.

    Judged on all images that the probe's classifiers have held out; with a trained network among the members, on the
    validation split. Unasked, a mean has to gain beyond doubt; where it was asked for, it must not lose.
    """
    plan, asked = looked.material.plan, looked.material.plan.ending.members >= 2
    trained = [each for each in tried if each.strategy in TRAINED]
    if not asked and (job.config.ensemble == "none" or not trained):
        why = "one was asked for" if job.config.ensemble == "none" else "more were not asked for"
        job.skip("ensemble", f"one network, as {why}; `--ensemble N` averages classifiers of N stages")
        return best.material, best.fitted
    with job.step("ensemble") as outcome:
        plan.engine.activate()
        pool, rows = _pool(looked, trained, every_stage=asked)
        targets = looked.targets[rows]
        most = min(plan.ending.members if asked else MOST_MEMBERS, len(pool))
        selection = greedy([each.answers for each in pool], targets, plan.metric, most_members=most)
        took = worth(selection, asked=asked)
        outcome.gain = round(selection.gain.score, 4) if took else 0.0
        outcome.reason = (
            f"{verdict(selection, took)}; tried: {', '.join(each.name for each in pool)} (a linear fit is the same "
            "whatever the seed, so further ones would bring nothing)"
        )
        if not took:
            return best.material, best.fitted
        members = [pool[i] for i in selection.chosen]
        try:
            common, ways = common_view([member.material.preprocessing for member in members])
        except UserError as error:
            outcome.gain, outcome.reason = 0.0, f"not kept: {error}"
            return best.material, best.fitted
        job.record.write("ensemble", **record_line(pool, selection, _milliseconds(looked, best), len(rows)))
        shares = [float(selection.weights[i]) for i in selection.chosen]
        whole = [member.whole() for member in members]

        def of(modules: Sequence[nn.Module]) -> list[Part]:
            sizes = [member.material.preprocessing.size for member in members]
            return [
                Part(module, each.built.name, each.built.options, size, way, each.built.licence, each.built.source)
                for module, each, size, way in zip(modules, whole, sizes, ways, strict=True)
            ]

        # The settings to repeat it with are those of the pretrained network's training.
        base = next((each.fitted for each in tried if each.strategy in (TOP, ALL)), best.fitted)
        built = joined(of([each.module for each in whole]), shares, common.size, plan.engine)
        fitted = replace(
            base,
            built=replace(built, weights=base.built.weights),
            module=built.module,
            score=selection.judged.score,
            kept=[],
        )
        if any(member.kind == "linear" for member in members):  # fitted on validation images too
            fitted.held_out = mean_answers([member.answers for member in members], shares), targets
            fitted.held_out_of = looked.indices[rows]
            fitted.apart = lambda: joined(of([m.apart() for m in members]), shares, common.size, plan.engine).module
        return replace(looked.material, preprocessing=common), fitted


def _pool(looked: Looked, trained: Sequence[Tried], *, every_stage: bool) -> tuple[list[Member], np.ndarray]:
    """The candidates, and the rows of `looked` that all of them are judged on."""
    layers = looked.features.layers
    results = [looked.best_at([layer]) for layer in layers] if every_stage else [looked.result]
    rows = np.flatnonzero(np.all([np.isfinite(each.held_out).all(axis=1) for each in results], axis=0))
    if trained:
        rows = np.intersect1d(rows, looked.on_validation)
    return [_trained_member(looked, each, rows) for each in trained] + [
        _linear_member(looked, result, rows) for result in results
    ], rows


def _trained_member(looked: Looked, tried: Tried, rows: np.ndarray) -> Member:
    material, fitted = tried.material, tried.fitted
    plan, batches = material.plan, material.evaluation(looked.indices[rows])
    answers = logits_of(fitted.module, batches, plan.engine, material.preprocessing)
    judged = judge(answers, looked.targets[rows], plan.metric)
    name = TRAINED[tried.strategy]
    return Member(name, "best", material, answers, judged, lambda: fitted, lambda: fitted.module)


def _linear_member(looked: Looked, result: ProbeResult, rows: np.ndarray) -> Member:
    assert result.spot is not None
    answers = np.log(result.held_out[rows] + 1e-12)
    judged = judge(answers, looked.targets[rows], looked.material.plan.metric)
    return Member(
        f"{result.spot.layer}, {result.spot.pooling}",
        "linear",
        looked.material,
        answers,
        judged,
        lambda: linear(looked, result),
        lambda: linear(looked, result, unseen_validation=True).module,
    )


def _milliseconds(looked: Looked, best: Tried) -> float:
    """Of one pass over one image."""
    material, some = best.material, looked.indices[:TIMED]
    begun = time.monotonic()
    logits_of(best.fitted.module, material.evaluation(some), material.plan.engine, material.preprocessing)
    return 1000 * (time.monotonic() - begun) / len(some)

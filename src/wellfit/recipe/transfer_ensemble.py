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
from wellfit.recipe.common_view import common_view
from wellfit.recipe.fitting import Fitted
from wellfit.recipe.job import Job
from wellfit.recipe.joined_network import Part, joined
from wellfit.recipe.material import Material
from wellfit.recipe.model_choice import closing_time
from wellfit.recipe.probing import Looked, linear
from wellfit.transfer.policy import ALL, SCRATCH, TOP
from wellfit.transfer.probe import ProbeResult

TIMED = 64  # images on which the cost of a network's pass is measured
TRAINED = {TOP: "fine-tuned", ALL: "fine-tuned", SCRATCH: "from scratch"}


@dataclass(frozen=True)
class Tried:
    """What a strategy of transfer has led to, and the material that it was carried out on.

    linear: what the probe found, where the strategy is a linear classifier.
    """

    strategy: str
    material: Material
    fitted: Fitted
    linear: ProbeResult | None = None


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

    tried: a linear classifier first. Judged on all images that the probe's classifiers have held out; with a trained
    network among the members, on the validation split. Unasked, a mean has to gain beyond doubt, and there has to be
    the time to use it; where it was asked for, it must not lose.
    """
    plan, asked = looked.material.plan, looked.material.plan.ending.members >= 2
    trained = [each for each in tried if each.strategy in TRAINED]
    if asked and best.strategy == SCRATCH:
        return best.material, best.fitted  # networks from other seeds are its ensemble, and come later
    if not asked and (job.config.ensemble == "none" or not trained):
        why = "one was asked for" if job.config.ensemble == "none" else "more were not asked for"
        job.skip("ensemble", f"one network, as {why}; `--ensemble N` averages classifiers of N stages")
        return best.material, best.fitted
    with job.step("ensemble") as outcome:
        plan.engine.activate()
        if not asked:  # what was asked for is tried without a look at the clock
            more = _seconds(job, looked, [each for each in tried if each is not best])
            if more > job.budget.left - closing_time(looked.material.data):
                outcome.skip(
                    f"no time: with the networks that were tried beside the best, the end would take {more:.0f} s more"
                )
                return best.material, best.fitted
        layers = looked.features.layers
        results = [looked.best_at([layer]) for layer in layers] if asked else [r for r in [tried[0].linear] if r]
        pool, rows = _pool(looked, trained, results)
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
        shares = [float(selection.weights[i]) for i in selection.chosen]
        whole = [member.whole() for member in members]

        def of(modules: Sequence[nn.Module]) -> list[Part]:
            sizes = [member.material.preprocessing.size for member in members]
            return [
                Part(module, each.built.name, each.built.options, size, way, each.built.licence, each.built.source)
                for module, each, size, way in zip(modules, whole, sizes, ways, strict=True)
            ]

        # What it is repeated with are the settings of the pretrained network, of its training where there was one.
        base = next((each.fitted for each in tried if each.strategy in (TOP, ALL)), tried[0].fitted)
        built = joined(of([each.module for each in whole]), shares, common.size, plan.engine)
        fitted = replace(
            base,
            built=replace(built, weights=base.built.weights),
            module=built.module,
            score=selection.judged.score,
            interrupted=best.fitted.interrupted,
            held_out=None,
            held_out_of=None,
            apart=None,
            kept=[],
        )
        if any(member.kind == "linear" for member in members):  # fitted on validation images too
            fitted.held_out = mean_answers([member.answers for member in members], shares), targets
            fitted.held_out_of = looked.indices[rows]
            fitted.apart = lambda: joined(of([m.apart() for m in members]), shares, common.size, plan.engine).module
        material = replace(looked.material, preprocessing=common)
        alone, together = (_of_one(*each, looked) for each in ((best.material, best.fitted), (material, fitted)))
        line = record_line(pool, selection, 1000 * alone, len(rows), together=1000 * together)
        job.record.write("ensemble", **line)
        return material, fitted


def _seconds(job: Job, looked: Looked, others: Sequence[Tried]) -> float:
    """What the others would cost from here on: the validation images twice, the test images once."""
    if job.budget.seconds is None:
        return 0.0
    split = looked.material.data.split
    images = 2 * len(split.validation) + len(split.test)
    return images * sum(_of_one(each.material, each.fitted, looked) for each in others)


def _of_one(material: Material, fitted: Fitted, looked: Looked) -> float:
    """Seconds that a network takes for one image, of a second pass: a first one pays for what is set up but once."""
    some, taken = looked.indices[:TIMED], 0.0
    for _ in range(2):
        begun = time.monotonic()
        logits_of(fitted.module, material.evaluation(some), material.plan.engine, material.preprocessing)
        taken = time.monotonic() - begun
    return taken / len(some)


def _pool(looked: Looked, trained: Sequence[Tried], results: Sequence[ProbeResult]) -> tuple[list[Member], np.ndarray]:
    """The candidates, and the rows of `looked` that all of them are judged on."""
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

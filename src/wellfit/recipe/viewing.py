"""Which test-time views the model is used with: those that validation gains by, in the time there is (SPEC D8, E4)."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from torch import nn

from wellfit.inference.gain import Judged, gain, judge
from wellfit.inference.views import answers_of, preset
from wellfit.recipe.fitting import Fitted
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.model_choice import closing_time


def choose_views(job: Job, material: Material, fitted: Fitted) -> Fitted:
    """The same network, with the views that it is to be used with; each one tried is a line of the record.

    Views are tried from the cheapest on, each against the best before it, so that dearer ones have to bring more.
    """
    plan, data = material.plan, material.data
    names = [name for name in plan.ending.views if name != "none"]
    with job.step("views") as outcome:
        if not names or fitted.interrupted:
            asked = "none" in plan.ending.views
            outcome.skip("not asked for" if asked else "the run was stopped" if fitted.interrupted else "not planned")
            return fitted
        if fitted.held_out is not None and fitted.apart is None:
            outcome.skip("the classifier was fitted on the validation images too, so none are left to judge views on")
            return fitted
        # What was fitted on validation images too is judged by its like that was not.
        module = fitted.module if fitted.apart is None else fitted.apart()
        images = len(data.split.validation)
        plain_seconds, answers, plain = _timed(module, material, "none")
        asked = "views" in plan.ending.asked
        best, chosen, late = plain, "none", []
        for name in names:
            passes = preset(name).passes
            expected = time_of_views(material, plain_seconds, passes)
            if not asked and expected > job.budget.left - closing_time(data):
                late.append(name)
                continue
            seconds, over_views, judged = _timed(module, material, name)
            change = gain(best, judged)
            kept = change.helps or (asked and judged.score >= plain.score)
            job.record.write(
                "views",
                name=name,
                passes=passes,
                images=images,
                score=judged.score,
                loss=judged.loss,
                gain=judged.score - plain.score,
                loss_gain=plain.loss - judged.loss,
                milliseconds=round(1000 * seconds / images, 3),
                plain_milliseconds=round(1000 * plain_seconds / images, 3),
                kept=kept,
            )
            if kept:
                best, chosen, answers = judged, name, over_views
        outcome.gain = round(best.score - plain.score, 4)
        tried = ", ".join(name for name in names if name not in late)
        if chosen == "none":
            outcome.reason = f"not kept: none of {tried} makes validation's {plain.score:.4f} better beyond its error"
        else:
            outcome.reason = (
                f"{chosen} kept: {plain.score:.4f} → {best.score:.4f} on validation, for {preset(chosen).passes} "
                f"passes an image instead of one; tried {tried}"
            )
        if late:
            outcome.reason += f"; no time for {', '.join(late)}"
        if not tried:
            outcome.skip(f"no time for {', '.join(late)}")
        fitted = replace(fitted, views=chosen, apart=None)
        if fitted.held_out is None or chosen == "none":
            return fitted
        # The temperature belongs to the answers over these views.
        return replace(fitted, over_views=(answers, data.targets(data.split.validation)))


def time_of_views(material: Material, plain: float, passes: int) -> float:
    """Seconds that views take; plain: of the validation images in one pass.

    Kept, they are seen again when the model is saved, and with the test images.
    """
    split = material.data.split
    return plain * passes * (2 + len(split.test) / len(split.validation))


def _timed(module: nn.Module, material: Material, views: str) -> tuple[float, np.ndarray, Judged]:
    """Seconds that the validation images took over these views, the answers N×C, and how good they are."""
    begun = time.monotonic()
    batches = material.evaluation(material.data.split.validation)
    answers = answers_of(module, batches, views, material.plan.engine, material.preprocessing)
    return time.monotonic() - begun, answers, judge(answers, batches.targets, material.plan.metric)

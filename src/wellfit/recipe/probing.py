"""The probe: features of a frozen pretrained network once, then linear classifiers in moments (SPEC T2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellfit.models.probe_net import ProbeNet
from wellfit.models.zoo import Built
from wellfit.recipe.fitting import Fitted
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.transfer.probe import ProbeResult, choose_probe, extract_features, fit_probe, install


@dataclass
class _Attempt:
    """One image size: the network, its features, and the best classifier on them."""

    material: Material
    built: Built
    net: ProbeNet
    features: np.ndarray
    result: ProbeResult


def probe(job: Job, material: Material) -> tuple[Material, Fitted]:
    """The linear classifier, and the image size, that are best on images not fitted on; the material at that size."""
    plan, data, split = material.plan, material.data, material.data.split
    with job.step("probe") as outcome:
        plan.engine.activate()
        indices = np.concatenate([split.train, split.validation])
        targets = data.targets(indices)
        folds, judged = _folds(material, indices)
        balances = _balances(material)
        attempts: list[_Attempt] = []
        for size in plan.model.probe_sizes or (plan.model.image_size,):
            at_size = material.at_size(size)
            built, net = at_size.probe_network()
            plan.engine.place(net)
            features = _features(job, at_size, net, indices)
            result = choose_probe(features, targets, len(data.classes), folds, plan.metric, balances=balances)
            attempts.append(_Attempt(at_size, built, net, features, result))
        best = max(attempts, key=lambda attempt: (attempt.result.score, -attempt.result.loss))
        result = best.result
        _write_table(job, attempts, best)
        if plan.training.steps:  # fine-tuning is judged on validation: its start must not have seen it
            own, chosen, classes = slice(len(split.train)), result.probe, len(data.classes)
            start = fit_probe(best.features[own], targets[own], classes, chosen.strength, balanced=chosen.balanced)
            install(best.net, start)
        else:
            install(best.net, result.probe)
        size = best.material.plan.model.image_size
        outcome.reason = (
            f"{best.features.shape[2]:,} features of {best.built.options['backbone']} at {size} px, strength "
            f"{result.probe.strength:g}, chosen among {len(attempts) * len(result.table)} by {judged}"
        )
        outcome.gain = round(result.score - attempts[0].result.score, 4) if len(attempts) > 1 else None
        unseen = np.isfinite(result.held_out).all(axis=1)
        held_out = np.log(result.held_out[unseen] + 1e-12), targets[unseen]
        settings, score = Settings.of(plan), result.score
        fitted = Fitted(best.built, best.net, score, 0, settings, held_out=held_out, probe=result.probe)
        return best.material, fitted


def _write_table(job: Job, attempts: list[_Attempt], best: _Attempt) -> None:
    for attempt in attempts:
        for row in attempt.result.table:
            probe = attempt.result.probe
            own = attempt is best and (row["strength"], row["balanced"]) == (probe.strength, probe.balanced)
            job.record.write("probe", image_size=attempt.material.plan.model.image_size, chosen=own, **row)


def _features(job: Job, material: Material, net: ProbeNet, indices: np.ndarray) -> np.ndarray:
    done = 0

    def progress(images: int) -> None:
        nonlocal done
        done += images
        job.record.tell("progress", what="features", done=done, of=len(indices))

    return extract_features(net, material.evaluation(indices), material.plan.engine, material.preprocessing, progress)


def _balances(material: Material) -> tuple[bool, ...]:
    """Whether classes are weighted: as asked, and where they differ in size, both ways are tried."""
    asked = material.plan.training.balance
    if asked == "auto":
        return (False, True) if material.imbalanced else (False,)
    return (asked != "none",)


def _folds(material: Material, indices: np.ndarray) -> tuple[list[np.ndarray], str]:
    """Positions that are held out in turn: the folds of a small set, else the validation split."""
    split = material.data.split
    if split.folds is None:
        return [np.arange(len(split.train), len(indices))], f"{len(split.validation):,} validation images"
    position = {int(index): i for i, index in enumerate(indices)}
    folds = [np.array([position[int(i)] for i in fold]) for fold in split.folds]
    return folds, f"{len(folds)}-fold cross-validation"

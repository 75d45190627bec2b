"""The probe: features of a frozen pretrained network once, then linear classifiers in moments (SPEC T2)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import nn

from wellfit.data.split import make_folds
from wellfit.inference.evaluate import SCORES
from wellfit.models.zoo import build
from wellfit.recipe.fitting import Fitted
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material, Settings
from wellfit.transfer.policy import LITTLE
from wellfit.transfer.probe import Probe, ProbeResult, best_row, choose_probe, fit_probe, install
from wellfit.transfer.stage_features import Spot, StageFeatures, features_key, kept_features, stage_features

MIRRORED_UP_TO = 5000  # images: above it their number makes up for the mirror images
CONTROL_IMAGES = 300  # at most, and a quarter of the images, on which random weights are compared
FEWEST_COMPARED = 40


@dataclass
class Looked:
    """What the probe saw at one image size: the features of training and validation images, and the best classifier.

    indices: source indices of the features' rows, training images first. folds: rows that are held out in turn.
    """

    material: Material
    features: StageFeatures
    result: ProbeResult
    indices: np.ndarray
    targets: np.ndarray
    folds: list[np.ndarray]
    judged_by: str
    others: dict[tuple[str, ...], ProbeResult] = field(default_factory=dict)
    fitted_apart: dict[tuple[Spot, float, bool], tuple[Probe, float]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.material.plan.model.image_size

    @property
    def on_validation(self) -> np.ndarray:
        """Rows of the validation split."""
        return np.arange(len(self.material.data.split.train), len(self.indices))

    def validation_score(self, result: ProbeResult) -> float:
        """The metric of a classifier on the validation split, each image judged by one that had not seen it."""
        rows = self.on_validation
        rows = rows[np.isfinite(result.held_out[rows]).all(axis=1)]  # an image that every fold trains on is not judged
        if not len(rows):
            return result.score
        predicted = result.held_out[rows].argmax(1)
        return SCORES[self.material.plan.metric](self.targets[rows], predicted, len(self.material.data.classes))

    def apart(self, result: ProbeResult) -> tuple[Probe, float]:
        """A classifier like that one, fitted on training images alone, and its score on the validation split."""
        assert result.spot is not None
        key = result.spot, result.probe.strength, result.probe.balanced
        if key not in self.fitted_apart:
            own, rows = np.arange(len(self.material.data.split.train)), self.on_validation
            classes, features = len(self.material.data.classes), self.features.of(result.spot, own)
            probe = fit_probe(
                features, self.targets[own], classes, result.probe.strength, balanced=result.probe.balanced
            )
            predicted = probe.logits(self.features.of(result.spot, rows)[:, 0]).argmax(1)
            score = SCORES[self.material.plan.metric](self.targets[rows], predicted, classes)
            self.fitted_apart[key] = probe, score
        return self.fitted_apart[key]

    def best_at(self, layers: list[str]) -> ProbeResult:
        """The best classifier on one of these layers, judged and fitted as the best of all is."""
        if self.result.spot is not None and self.result.spot.layer in layers:
            return self.result
        if tuple(layers) not in self.others:
            rows = [row for row in self.result.table if row["layer"] in layers]
            row = rows[best_row(rows, metric=self.material.plan.metric)]
            data, plan = self.material.data, self.material.plan
            self.others[tuple(layers)] = choose_probe(
                self.features,
                self.targets,
                len(data.classes),
                self.folds,
                plan.metric,
                balances=(row["balanced"],),
                strengths=(row["strength"],),
                seed=plan.seed,
                spots=[Spot(row["layer"], row["pooling"])],
            )
        return self.others[tuple(layers)]


def probe(job: Job, material: Material) -> Looked:
    """The stage, pooling, strength and image size whose linear classifier is best on images not fitted on."""
    plan, data, split = material.plan, material.data, material.data.split
    with job.step("probe") as outcome:
        plan.engine.activate()
        indices = np.concatenate([split.train, split.validation])
        targets = data.targets(indices)
        folds, judged = _folds(material, indices)
        balances = _balances(material)
        attempts: list[Looked] = []
        passes = fits = 0.0
        for size in plan.model.probe_sizes or (plan.model.image_size,):
            at_size = material.at_size(size)
            begun = time.monotonic()
            features, was_kept = _features(job, at_size, indices)
            between = time.monotonic()
            result = choose_probe(
                features, targets, len(data.classes), folds, plan.metric, balances=balances, seed=plan.seed
            )
            passes, fits = passes + between - begun, fits + time.monotonic() - between
            attempts.append(Looked(at_size, features, result, indices, targets, folds, judged))
        best = max(attempts, key=lambda attempt: (attempt.result.score, -attempt.result.loss))
        _write_table(job, attempts, best)
        tried = sum(len(attempt.result.table) for attempt in attempts)
        spot, chosen = best.result.spot, best.result.probe
        assert spot is not None
        outcome.reason = (
            f"{chosen.weight.shape[1]:,} features of {_backbone_name(material)} at {best.size} px: {spot.layer}, "
            f"{spot.pooling}, strength {chosen.strength:g}, chosen among {tried} by {judged}; the features took "
            f"{passes:.1f} s{', read from an earlier pass' if was_kept else ''}, the {tried} settings {fits:.1f} s"
        )
        outcome.gain = round(best.result.score - attempts[0].result.score, 4) if len(attempts) > 1 else None
        return best


def linear(looked: Looked, result: ProbeResult, *, unseen_validation: bool = False) -> Fitted:
    """The network with a fitted linear classifier; the material at hand is `looked.material`.

    unseen_validation: fit the classifier on training images alone, as the start of a training that validation judges.
    """
    material = looked.material
    built, net = material.probe_network(result.spot)
    chosen, on_validation = result.probe, looked.validation_score(result)
    if unseen_validation:
        chosen, on_validation = looked.apart(result)
    install(net, chosen)
    material.plan.engine.place(net)
    unseen = np.isfinite(result.held_out).all(axis=1)
    held_out = np.log(result.held_out[unseen] + 1e-12), looked.targets[unseen]
    settings = Settings.of(material.plan)
    return Fitted(
        built,
        net,
        result.score,
        0,
        settings,
        held_out=held_out,
        held_out_of=looked.indices[unseen],
        apart=lambda: linear(looked, result, unseen_validation=True).module,
        probe=result.probe,
        on_validation=on_validation,
    )


def control(looked: Looked) -> tuple[float, float, int] | None:
    """On some of the images: the best score of the pretrained stages, that of random weights, and how many images.

    None where there are too few images to compare on.
    """
    material, plan = looked.material, looked.material.plan
    count = min(CONTROL_IMAGES, max(FEWEST_COMPARED, len(looked.indices) // 4), len(looked.indices))
    if count < FEWEST_COMPARED:
        return None
    rows = np.unique(np.linspace(0, len(looked.indices) - 1, count).round().astype(int))
    targets = looked.targets[rows]
    classes = len(material.data.classes)
    folds = [np.flatnonzero(np.arange(len(rows)) % 5 == number) for number in range(5)]
    random = _random_network(material)
    theirs = StageFeatures(looked.features.values[rows][:, :1], looked.features.columns)
    batches = material.evaluation(looked.indices[rows])
    own = stage_features(plan.engine.place(random), batches, plan.engine, material.preprocessing, views=1)
    scores = []
    for features in (theirs, own):
        found = choose_probe(
            features, targets, classes, folds, plan.metric, seed=plan.seed, strengths=(1e-3, 1e-2, 1e-1)
        )
        scores.append(max(row[plan.metric] for row in found.table))
    return scores[0], scores[1], len(rows)


def _random_network(material: Material) -> nn.Module:
    plan = material.plan
    model = plan.model
    options = dict(model.options)
    name = options.pop("backbone", model.name) if model.name == "probe_net" else model.name
    options = {key: value for key, value in options.items() if key not in ("probe_layer", "probe_pooling")}
    return build(name, len(material.data.classes), image_size=model.image_size, seed=plan.seed, **options).module


def _backbone_name(material: Material) -> str:
    return str(material.plan.model.options.get("backbone", material.plan.model.name))


def _write_table(job: Job, attempts: list[Looked], best: Looked) -> None:
    for attempt in attempts:
        for row in attempt.result.table:
            spot, probe = attempt.result.spot, attempt.result.probe
            here = (row["layer"], row["pooling"], row["strength"], row["balanced"])
            taken = None if spot is None else (spot.layer, spot.pooling, probe.strength, probe.balanced)
            own = attempt is best and here == taken
            job.record.write("probe", image_size=attempt.size, chosen=own, **row)


def _features(job: Job, material: Material, indices: np.ndarray) -> tuple[StageFeatures, bool]:
    """The features of these images at the material's size: kept ones, or one pass, and whether they were kept."""
    engine, done = material.plan.engine, 0

    def progress(images: int) -> None:
        nonlocal done
        done += images
        job.record.tell("progress", what="features", done=done, of=len(indices))

    _, net = material.probe_network()
    engine.place(net)
    rows, views = material.data.rows(indices), 2 if len(indices) <= MIRRORED_UP_TO else 1
    key = features_key(net, engine, material.preprocessing, rows, views)
    folder: Path | None = getattr(material.data.store, "folder", None)
    batches = material.evaluation(indices)

    def compute() -> StageFeatures:
        return stage_features(net, batches, engine, material.preprocessing, views=views, progress=progress)

    return kept_features(folder, key, compute)


def _balances(material: Material) -> tuple[bool, ...]:
    """Whether classes are weighted: as asked, and where they differ in size, both ways are tried."""
    asked = material.plan.training.balance
    if asked == "auto":
        return (False, True) if material.imbalanced else (False,)
    return (asked != "none",)


def _folds(material: Material, indices: np.ndarray) -> tuple[list[np.ndarray], str]:
    """Positions that are held out in turn: the folds of a set with little data, else the validation split.

    The validation images of a set below LITTLE are too few to tell stages apart, and a classifier is quickly fitted.
    """
    data, split = material.data, material.data.split
    held_out = split.folds
    if held_out is None and len(split.train) < LITTLE:
        held_out = make_folds(split, data.audit, material.plan.seed)
    if held_out is None:
        return [np.arange(len(split.train), len(indices))], f"{len(split.validation):,} validation images"
    position = {int(index): i for i, index in enumerate(indices)}
    folds = [np.array([position[int(i)] for i in fold]) for fold in held_out]
    return folds, f"{len(folds)}-fold cross-validation"

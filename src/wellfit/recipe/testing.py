"""The end: test pixels are decoded here, once; the model is judged, saved, and the evidence kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn

from wellfit.data.audit import stated_splits
from wellfit.data.batches import EvaluationBatches
from wellfit.data.split_mismatch import split_mismatch
from wellfit.data.store import PixelStore, build_store
from wellfit.diagnosis.filters import first_filters
from wellfit.inference.evaluate import cross_entropy, softmax
from wellfit.inference.gain import TEMPERATURE_PRIOR
from wellfit.inference.metrics import abstention_threshold, fit_temperature, summarise
from wellfit.inference.thumbnails import save_thumbnail
from wellfit.inference.views import answers_of
from wellfit.models.saved import card_of, read_card, save_model
from wellfit.recipe.answers import keep_answers, keep_held_out
from wellfit.recipe.fitting import Fitted
from wellfit.recipe.job import Job
from wellfit.recipe.material import Material
from wellfit.recipe.prepare import LARGEST_SHORT_SIDE
from wellfit.record import read_record
from wellfit.report.curves_filters import FILE as FILTERS_FILE

SHOWN_MISTAKES, SHOWN_SAMPLES = 24, 12
ERROR_RATES = (0.01, 0.02, 0.05, 0.1, 0.2)  # for which an abstention threshold is kept with the model


def save(job: Job, material: Material, fitted: Fitted) -> None:
    """Write model.safetensors and model.json: weights, classes, preprocessing, temperature, abstention thresholds."""
    with job.step("save") as outcome:
        module = fitted.module
        data, plan = material.data, material.plan
        if fitted.held_out is not None:  # a probe was fitted on validation too: only its folds are unseen
            logits, targets = fitted.over_views or fitted.held_out
            if fitted.held_out_of is not None:
                keep_held_out(job.folder, data, fitted.held_out_of, fitted.held_out[0])
        else:
            batches = material.evaluation(data.split.validation)
            logits = answers_of(module, batches, fitted.views, plan.engine, material.preprocessing)
            targets = batches.targets
        temperature = fit_temperature(logits, targets, prior_width=TEMPERATURE_PRIOR)
        probabilities = softmax(logits / temperature)
        lowest = {rate: abstention_threshold(probabilities, targets, rate) for rate in ERROR_RATES}
        thresholds = {str(rate): value if math.isfinite(value) else None for rate, value in lowest.items()}
        card = card_of(fitted.built, data.classes, material.preprocessing.size, material.preprocessing.as_dict())
        card |= {
            "temperature": temperature,
            "abstention_thresholds": thresholds,
            "engine": plan.engine.as_dict(),
            "views": fitted.views,
            "learnt": "train" if fitted.held_out is None else "train and validation",
            "validation_accuracy": float((logits.argmax(1) == targets).mean()),
        }
        save_model(job.folder, module, card)
        save_filters(job, module)
        outcome.reason = f"{job.folder.model_weights.stat().st_size / 1e6:.1f} MB, temperature {temperature:.2f}"


def save_filters(job: Job, module: nn.Module) -> None:
    """The first convolution's weights, for the report's picture of them; nothing where there is nothing to see."""
    filters = first_filters(module)
    if filters is not None:
        job.folder.arrays.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(job.folder.arrays / FILTERS_FILE, filters=filters)


def evaluate(job: Job, material: Material, module: nn.Module, also_seen: Iterable[bytes] = ()) -> dict[str, Any]:
    """Open the test split, judge the module on it once, and write the record's "evaluation" line.

    also_seen: content hashes of images that the model learnt from and that are in no split of the material's.
    """
    data = material.data
    with job.step("evaluate") as outcome:
        sealed = data.split.test
        if not len(sealed):
            outcome.skip("the data are too few for a test split; the figure on validation is all there is")
            return {}
        store = open_test_split(material)
        rows = store.row_of[sealed]
        usable = rows >= 0
        usable[usable] &= store.usable[rows[usable]]
        indices, rows = sealed[usable], rows[usable]
        figures = judge(job, material, module, store, rows, indices, "test", also_seen)
        for item in store.left_out:
            job.say(f"test image left out: {item.file}: {item.reason}")
        report_mismatch(job, material, store)
        low, high = figures["interval"]
        outcome.reason = f"accuracy {figures['accuracy']:.4f} ({low:.4f} to {high:.4f}) on {figures['images']:,} images"
        return figures


def open_test_split(material: Material) -> PixelStore:
    """Test pixels: from the run's own store where the split was carved out, decoded now where it was given."""
    data = material.data
    if not data.test_is_sealed:
        return data.store
    sealed = data.split.test
    usable = sealed[data.inspection.usable[sealed]]
    return build_store(data.source, data.inspection, usable, short_side=LARGEST_SHORT_SIDE)


def report_mismatch(job: Job, material: Material, store: PixelStore) -> None:
    """Say where the test images, opened only now, were prepared otherwise than the training images."""
    data = material.data
    splits = stated_splits(data.source)
    if store is data.store or not (splits == "test").any():
        return
    splits[splits == "validation"] = ""  # looked at by the audit

    found = split_mismatch(data.source, data.inspection, data.store, data.audit.usable, splits, store)
    said = {
        (line["id"], line["evidence"].get("split")) for line in read_record(job.folder.record) if "evidence" in line
    }
    job.report(*(finding for finding in found if (finding.id, "test") not in said))


def judge(
    job: Job,
    material: Material,
    module: nn.Module,
    store: PixelStore,
    rows: np.ndarray,
    indices: np.ndarray,
    split: str,
    also_seen: Iterable[bytes] = (),
) -> dict[str, Any]:
    """All figures of a split, written into the record with the most confident mistakes and a few samples."""
    data, plan = material.data, material.plan
    batch_size = 256 if plan.model.image_size <= 64 else 32
    batches = EvaluationBatches(store, rows, data.targets(indices), material.preprocessing, batch_size)
    card = read_card(job.folder)
    views, temperature = str(card.get("views", "none")), float(card["temperature"])
    logits = answers_of(module, batches, views, plan.engine, material.preprocessing)
    probabilities = softmax(logits / temperature)
    figures = summarise(probabilities, batches.targets, data.classes)
    figures["loss"] = cross_entropy(logits, batches.targets)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    keep_answers(job.folder, split, data, indices, predicted, also_seen)
    wrong = np.flatnonzero(predicted != batches.targets)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN_MISTAKES]
    samples = np.linspace(0, len(rows) - 1, min(SHOWN_SAMPLES, len(rows))).astype(int)

    def shown(position: int, name: str) -> dict[str, Any]:
        file = f"{split}-{name}.jpg"
        save_thumbnail(store.image(int(rows[position])), job.folder.arrays / file)
        return {
            "file": data.source.names[int(indices[position])],
            "label": data.classes[int(batches.targets[position])],
            "predicted": data.classes[int(predicted[position])],
            "probability": float(confidence[position]),
            "thumbnail": file,
        }

    mistakes = [shown(int(p), f"mistake-{i:02d}") for i, p in enumerate(worst)]
    chosen = [shown(int(p), f"sample-{i:02d}") for i, p in enumerate(samples)]
    line = {
        **figures,
        "split": split,
        "temperature": temperature,
        "views": views,
        "mistakes": mistakes,
        "samples": chosen,
    }
    if len(data.classes) > 100:
        line.pop("confusion")
        job.folder.arrays.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(job.folder.arrays / f"evaluation-{split}.npz", confusion=np.asarray(figures["confusion"]))
    job.record.write("evaluation", **line)
    return figures

"""The training images nearest to an image: `wellfit neighbours`, and what makes missing features from a run's data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from wellfit.config import load_config
from wellfit.data.batches import EvaluationBatches
from wellfit.data.decode import Undecodable
from wellfit.data.preprocess import Preprocessing
from wellfit.data.views import evaluation_view
from wellfit.engine import Engine, engine_here
from wellfit.errors import UserError
from wellfit.inference.evaluate import softmax
from wellfit.inference.features import Features
from wellfit.inference.predict import name_of, pixels_of, reason_of
from wellfit.models.saved import load_model
from wellfit.recipe.feature_bank import FeatureBank, build_bank, read_bank
from wellfit.recipe.neighbourhood import K, find_strangers, findings_of, named, record_line, suspects_named
from wellfit.recipe.prepare import Prepared, look_at_data, split_of
from wellfit.record import Record, RunFolder, read_record

Listener = Callable[[str, dict[str, Any]], None]


def neighbours_of(
    run: str | Path | RunFolder,
    images: Sequence[Any],
    k: int = K,
    *,
    data: Any = None,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """The k training images nearest to each image by L2 distance of the network's penultimate features.

    images: file names, H×W or H×W×3 uint8 arrays, PIL images; may be empty. data: the run's own data, where they have
    been moved or were given from memory; needed only where the features are not kept yet.

    Returns {"run", "metric", "layer", "features", "training_images", "k", "images": [{"file", "predicted",
    "probability", "neighbours": [{"file", "label", "distance"}]} | {"file", "error"}], "perhaps_mislabelled": [{"file",
    "label", "neighbours_label"}], "perhaps_mislabelled_in_all"}. Raises UserError.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    module, card = load_model(folder)
    preprocessing = Preprocessing.from_dict(card["preprocessing"])
    engine = engine_here(Engine(**card["engine"]))
    engine.activate()
    with Features(engine.place(module), engine, preprocessing) as features:
        bank, line = read_bank(folder), _kept_line(folder)
        if bank is None or line is None:
            bank, line = _rebuild(folder, features, data, listener)
        if not 1 <= k <= len(bank):
            raise UserError(f"there are {len(bank):,} training images, so -k is from 1 to {len(bank):,}, got {k}")
        answers = [_answer(image, i, k, features, bank, card) for i, image in enumerate(images)]
    return {
        "run": str(folder.path),
        "metric": "L2",
        "layer": bank.layer,
        "features": int(bank.features.shape[1]),
        "training_images": len(bank),
        "k": k,
        "images": answers,
        "perhaps_mislabelled": suspects_named(line["suspects"]),
        "perhaps_mislabelled_in_all": line["suspects_in_all"],
    }


def _answer(
    image: Any, number: int, k: int, features: Features, bank: FeatureBank, card: dict[str, Any]
) -> dict[str, Any]:
    name = name_of(image, number)
    preprocessing = features.preprocessing
    try:
        view = evaluation_view(pixels_of(image, preprocessing), preprocessing.resize, preprocessing.size)
    except (Undecodable, OSError) as error:
        return {"file": name, "error": reason_of(error)}
    values, logits = features.of(torch.from_numpy(view.copy()).permute(2, 0, 1)[None])
    probabilities = softmax(logits / card.get("temperature", 1.0))[0]
    best = int(probabilities.argmax())
    return {
        "file": name,
        "predicted": card["classes"][best],
        "probability": float(probabilities[best]),
        "neighbours": named(bank, *(found[0] for found in bank.nearest(values, k))),
    }


def _kept_line(folder: RunFolder) -> dict[str, Any] | None:
    """The record's last line on neighbours."""
    line = None
    for line_ in read_record(folder.record):
        if line_["kind"] == "neighbours":
            line = line_
    return line


def _rebuild(
    folder: RunFolder, features: Features, data: Any, listener: Listener | None
) -> tuple[FeatureBank, dict[str, Any]]:
    """Features, record line, finding and report of a run that has none yet."""
    from wellfit.report.page import write_report

    if listener is not None:
        listener("begin", {"name": "neighbours"})
    prepared = _data_again(folder, data, listener)
    train = prepared.split.train
    rows = prepared.rows(train)
    targets, size = prepared.targets(train), features.preprocessing.size
    batches = EvaluationBatches(prepared.store, rows, targets, features.preprocessing, 256 if size <= 64 else 32)

    def progress(done: int) -> None:
        if listener is not None:
            listener("progress", {"what": "features", "done": done, "of": len(train)})

    files = [prepared.source.names[i] for i in train.tolist()]
    bank, own = build_bank(folder, features, batches, files, prepared.classes, progress=progress)
    line = record_line(folder, bank, find_strangers(bank, own, features.engine.device), prepared.store, rows, [])
    record = Record(folder.record)
    try:
        record.write("neighbours", **line)
        for finding in findings_of(line):
            record.write("finding", step=None, **finding.as_dict())
    finally:
        record.close()
    write_report(folder)
    return bank, line


def _data_again(folder: RunFolder, data: Any, listener: Listener | None) -> Prepared:
    """The run's data, read and divided as then; UserError where they are gone or are not the same."""
    lines = list(read_record(folder.record))
    begun: dict[str, Any] = next((line for line in lines if line["kind"] == "run"), {})
    audited: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "audit"), {})
    place = data if data is not None else begun.get("request", {}).get("data")
    lacking = f"'{folder.path}' does not keep its training images' features yet, and"
    if place is None:
        raise UserError(f"{lacking} its data came from Python's memory; give them: run.neighbours(image, data=…)")
    if data is None and place != "digits" and not Path(place).exists():
        raise UserError(f"{lacking} its data are no longer at '{place}'; say where they are with --data DIR")
    config = load_config(folder.config)

    def progress(done: int, total: int) -> None:
        if listener is not None:
            listener("progress", {"what": "decoding", "done": done, "of": total})

    source, inspection, store, audit = look_at_data(place, config.data, progress)
    split = split_of(source, audit, config)
    sizes = {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)}
    if audited.get("splits") != sizes or list(audited.get("classes", {})) != list(audit.classes):
        raise UserError(
            f"{lacking} the data at '{place}' are not those that it was fitted on: they divide into {sizes['train']:,} "
            f"training images, then there were {audited.get('splits', {}).get('train', 0):,}; fit again"
        )
    return Prepared(source, inspection, store, audit, split)

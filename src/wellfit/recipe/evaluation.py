"""Judging a finished run's model on other labelled images: `wellfit evaluate RUN DATA`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wellfit.config import DataConfig
from wellfit.data.batches import EvaluationBatches
from wellfit.data.inspect import inspect
from wellfit.data.preprocess import Preprocessing
from wellfit.data.sources import open_source
from wellfit.data.store import build_store
from wellfit.engine import Engine, engine_here
from wellfit.errors import UserError
from wellfit.inference.evaluate import cross_entropy, logits_of, softmax
from wellfit.inference.metrics import summarise
from wellfit.models.saved import load_model
from wellfit.recipe.prepare import LARGEST_SHORT_SIDE
from wellfit.record import RunFolder


def evaluate_run(run: str | Path, data: Any, config: DataConfig | None = None) -> dict[str, Any]:
    """The figures of the record's "evaluation" line, with "run", "left_out".

    data: as for fit; where it holds a test split, that alone is judged. Raises UserError where it has a label that
    the model does not know, or no usable image.
    """
    config = config or DataConfig()
    folder = RunFolder.open(run)
    module, card = load_model(folder)
    source = open_source(
        data, image_column=config.image_column, label_column=config.label_column, test=config.test, minimum_classes=1
    )
    classes = list(card["classes"])
    unknown = sorted(set(source.labels) - set(classes))
    if unknown:
        raise UserError(
            f"the model in '{run}' knows the classes {', '.join(classes[:10])}, and '{source.location}' has "
            f"'{unknown[0]}'{' and others' if len(unknown) > 1 else ''}; rename the folder or leave it out"
        )
    inspection = inspect(source)
    chosen = inspection.usable.copy()
    if "test" in source.splits:
        chosen &= np.array([split == "test" for split in source.splits])
    indices = np.flatnonzero(chosen)
    if not len(indices):
        raise UserError(f"'{source.location}' holds no usable image; `wellfit audit {source.location}` says why")
    store = build_store(source, inspection, indices, short_side=LARGEST_SHORT_SIDE)
    rows = np.flatnonzero(store.usable)
    targets = np.array([classes.index(source.labels[i]) for i in indices[rows]])
    preprocessing = Preprocessing.from_dict(card["preprocessing"])
    engine = engine_here(Engine(**card["engine"]))
    engine.activate()
    batches = EvaluationBatches(store, rows, targets, preprocessing, 256 if preprocessing.size <= 64 else 32)
    logits = logits_of(engine.place(module), batches, engine, preprocessing)
    figures = summarise(softmax(logits / card.get("temperature", 1.0)), targets, classes)
    left_out = [vars(item) for item in (*source.left_out, *inspection.left_out, *store.left_out)]
    return {"run": str(run), **figures, "loss": cross_entropy(logits, targets), "left_out": left_out}

"""Judging a finished run's model on other labelled images: `wellfit evaluate RUN DATA`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from wellfit.config import DataConfig
from wellfit.data.batches import EvaluationBatches
from wellfit.data.inspect import inspect
from wellfit.data.preprocess import Preprocessing
from wellfit.data.sources import LeftOut, Source, open_source
from wellfit.data.store import PixelStore, build_store
from wellfit.engine import Engine, engine_here
from wellfit.errors import UserError
from wellfit.inference.evaluate import cross_entropy, softmax
from wellfit.inference.metrics import summarise
from wellfit.inference.views import answers_of, preset
from wellfit.models.saved import load_model
from wellfit.recipe.prepare import LARGEST_SHORT_SIDE
from wellfit.record import RunFolder


@dataclass
class Labelled:
    """Labelled images to judge a model on. rows: the usable store rows; indices: where they stand in the source."""

    source: Source
    store: PixelStore
    rows: np.ndarray
    indices: np.ndarray
    left_out: list[LeftOut]


def open_labelled(run: str | Path, classes: list[str], data: Any, config: DataConfig) -> Labelled:
    """The usable images of `data`, decoded; of data that hold a test split, that alone.

    run, classes: whose model will judge them. UserError for a label that is no class of it, and where none is usable.
    """
    source = open_source(
        data, image_column=config.image_column, label_column=config.label_column, test=config.test, minimum_classes=1
    )
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
    left_out = [*source.left_out, *inspection.left_out, *store.left_out]
    return Labelled(source, store, rows, indices[rows], left_out)


def logits_on(
    module: nn.Module, card: dict[str, Any], images: Labelled, views: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(logits N×C, targets N) of a run's model on these images, both in the order of its classes.

    views: over which the answers are averaged, by default those that the card names.
    """
    number = {name: i for i, name in enumerate(card["classes"])}
    targets = np.array([number[images.source.labels[i]] for i in images.indices], dtype=np.int64)
    preprocessing = Preprocessing.from_dict(card["preprocessing"])
    engine = engine_here(Engine(**card["engine"]))
    engine.activate()
    batch_size = 256 if preprocessing.size <= 64 else 32
    batches = EvaluationBatches(images.store, images.rows, targets, preprocessing, batch_size)
    views = views or str(card.get("views", "none"))
    return answers_of(engine.place(module), batches, views, engine, preprocessing), targets


def evaluate_run(
    run: str | Path, data: Any, config: DataConfig | None = None, *, views: str | None = None
) -> dict[str, Any]:
    """The figures of the record's "evaluation" line, with "run", "views" and "left_out".

    data: as for fit; where it holds a test split, that alone is judged. views: a name of `inference.views.VIEWS`; by
    default those that the model's card names. Raises UserError where it has a label that the model does not know, or no
    usable image, and for unknown views.
    """
    if views is not None:
        preset(views)
    folder = RunFolder.open(run)
    module, card = load_model(folder)
    images = open_labelled(run, list(card["classes"]), data, config or DataConfig())
    views = views or str(card.get("views", "none"))
    logits, targets = logits_on(module, card, images, views)
    figures = summarise(softmax(logits / card.get("temperature", 1.0)), targets, card["classes"])
    left_out = [vars(item) for item in images.left_out]
    loss = cross_entropy(logits, targets)
    return {"run": str(run), "views": views, **figures, "loss": loss, "left_out": left_out}

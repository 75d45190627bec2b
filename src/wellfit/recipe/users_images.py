"""Images that wellfit reads itself, made into the tensors that a user's module takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from wellfit.checks.batch_data import fingerprints
from wellfit.checks.sandbox import copy_of, own_randomness
from wellfit.config import Config
from wellfit.data.batches import Views
from wellfit.data.preprocess import Preprocessing, fit_preprocessing
from wellfit.data.split import make_split
from wellfit.data.store import PixelStore
from wellfit.errors import UserError
from wellfit.findings import Finding
from wellfit.models.head import input_channels_of
from wellfit.models.sizes import SIZES, UNFIT
from wellfit.randomness import generator
from wellfit.recipe.loop_data import KEPT_BYTES, KEPT_IMAGES, LEAST_KEPT, USUAL_BATCH, LoopData
from wellfit.recipe.prepare import look_at_data

LARGEST_SIDE = 224  # pixels, where the module takes images of any size
Listener = Callable[[str, dict[str, Any]], None]


def prepared_for(
    data: Any, validation: Any, network: nn.Module, config: Config, listener: Listener | None
) -> tuple[LoopData, LoopData | None, list[Finding]]:
    """(training, validation where it came by itself, the audit's findings). Standardised by the training images.

    validation: a folder beside a folder is audited together with it; arrays are compared as tensors.
    """

    def progress(done: int, total: int) -> None:
        if listener is not None:
            listener("progress", {"what": "decoding", "done": done, "of": total})

    options = config.data
    beside = isinstance(validation, str | Path) and isinstance(data, str | Path)
    if beside:
        options = replace(options, test=str(validation))
    source, _, store, audited = look_at_data(data, options, progress, open_test=True)
    findings = [*source.findings, *audited.findings]
    split = make_split(source, audited, seed=config.seed, validation=options.validation_share, test=options.test_share)
    rows = store.row_of[split.train]
    size = _size(network, config.model.image_size, int(np.median(store.shapes[rows].min(axis=1))))
    preprocessing = fit_preprocessing(store, rows, size=size)
    training = _tensors(store, rows, split.targets[split.train], preprocessing, network, config.seed)
    if validation is None or beside:
        return training, None, findings
    other, _, other_store, other_audit = look_at_data(validation, replace(options, test=None), progress)
    strange = sorted(set(other.labels) - set(split.classes))
    if strange:
        raise UserError(
            f"validation has the classes of the data, but class '{strange[0]}' is not among them; give both the same"
        )
    number = {name: i for i, name in enumerate(split.classes)}
    chosen = np.flatnonzero(other_audit.usable & (other_store.row_of >= 0))
    targets = np.array([number[other.labels[i]] for i in chosen.tolist()], dtype=np.int64)
    held_out = _tensors(other_store, other_store.row_of[chosen], targets, preprocessing, network, config.seed)
    return training, held_out, findings


def _size(network: nn.Module, wanted: int, native: int) -> int:
    """The side in pixels that the module takes: the one asked for, the images' own, or the nearest that it can take."""
    if wanted:
        return wanted
    usual = native if native <= 64 else min(LARGEST_SIDE, native // 32 * 32)
    others = sorted(SIZES, key=lambda size: abs(np.log(size / usual)))
    for size in (usual, *others):
        try:
            with own_randomness(network, 0, "size"), torch.no_grad():
                copy_of(network).eval()(torch.zeros(2, _channels(network), size, size))
        except UNFIT:
            continue
        return int(size)
    raise UserError(
        f"{type(network).__name__} takes square images of none of the sizes {SIZES[0]} to {SIZES[-1]} px; give the "
        "size with Config(model=…image_size), or give batches of tensors as your loop makes them"
    )


def _channels(network: nn.Module) -> int:
    channels = input_channels_of(network)
    if channels not in (1, 3):
        raise UserError(
            f"images have 3 channels, or 1 as grey ones, but {type(network).__name__} takes {channels}; give batches "
            "of tensors as your loop makes them"
        )
    return channels


def _tensors(
    store: PixelStore,
    rows: np.ndarray,
    targets: np.ndarray,
    preprocessing: Preprocessing,
    network: nn.Module,
    seed: int,
) -> LoopData:
    each = 4 * 3 * preprocessing.size**2
    most = min(KEPT_IMAGES, max(LEAST_KEPT, KEPT_BYTES // each))
    chosen = np.sort(generator(seed, "check", "images").permutation(len(rows))[:most])
    pixels = Views(store, rows[chosen], preprocessing).fixed(np.arange(len(chosen)))
    inputs = preprocessing.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2)).contiguous()
    if _channels(network) == 1:
        inputs = inputs.mean(1, keepdim=True)
    labels = torch.from_numpy(np.asarray(targets)[chosen])
    return LoopData(inputs, labels, min(len(inputs), USUAL_BATCH), fingerprints(inputs))

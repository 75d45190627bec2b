"""Features of several stages of a frozen network, computed in one pass and kept beside the pixels (SPEC T2)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from wellfit.data.batches import EvaluationBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.models.probe_net import CELLS, FeatureMaps, ProbeNet, feature_maps, grid_means, poolings_of

SCHEMA = 1
WIDEST = 1024  # features of one pooling: wider grids cost more than they tell
MOST_BYTES = 2**30  # of all features: above it the grids are left out
MOST_KEPT = 4  # passes that are kept beside one pixel store


@dataclass(frozen=True)
class Spot:
    """Where a linear classifier can sit: a layer of the network, and how its map is pooled."""

    layer: str
    pooling: str


@dataclass
class StageFeatures:
    """float32 N×V×W, every view of every image; `columns` says which of the W belong to which spot, shallow to deep."""

    values: np.ndarray
    columns: dict[Spot, list[tuple[int, int]]]

    @property
    def spots(self) -> list[Spot]:
        return list(self.columns)

    @property
    def layers(self) -> list[str]:
        """Layers from the input on."""
        return list(dict.fromkeys(spot.layer for spot in self.columns))

    def of(self, spot: Spot, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """float32 N×V×F."""
        parts = [self.values[rows, :, first:last] for first, last in self.columns[spot]]
        return np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts, axis=2)


def backbone_of(net: nn.Module) -> nn.Module:
    return net.backbone if isinstance(net, ProbeNet) else net


@torch.inference_mode()
def stage_features(
    net: nn.Module,
    batches: EvaluationBatches,
    engine: Engine,
    preprocessing: Preprocessing,
    *,
    views: int = 2,
    progress: Callable[[int], None] = lambda done: None,
) -> StageFeatures:
    """One pass of a network over the images: every pooling of the last map at each of its resolutions.

    net: an image classifier, or a ProbeNet on one, which then adds its own layer. views: 1 for the image alone, 2 for
    its mirror image too. progress: told of each batch's number of images. UserError for a network without maps.
    """
    backbone = backbone_of(net).eval()
    found = feature_maps(backbone, preprocessing.size)
    if isinstance(net, ProbeNet) and net.layer not in [name for name, _, _ in found]:
        found.append((net.layer, *_map_of(net, preprocessing.size)))
    blocks, columns = _layout(found, batches.images * views)
    width = max(last for _, _, last in blocks.values())
    values = np.empty((batches.images, views, width), dtype=np.float32)
    maps = FeatureMaps(backbone, [name for name, _, _ in found])
    done = 0
    for batch in batches.on(engine.device):
        inputs = engine.inputs(batch.images, preprocessing)
        here = slice(done, done + len(batch.targets))
        for view in range(views):
            with engine.autocast():
                caught = maps.maps(inputs if view == 0 else inputs.flip(3))
            for name, feature_map in zip(maps.layers, caught, strict=True):
                for pooling, (layer, first, last) in blocks.items():
                    if layer == name:
                        kind = pooling.partition(" ")[0]
                        values[here, view, first:last] = _pooled(feature_map.float(), kind).cpu().numpy()
        done = here.stop
        progress(len(batch.targets))
    return StageFeatures(values, columns)


def kept_features(folder: Path | None, key: str, compute: Callable[[], StageFeatures]) -> tuple[StageFeatures, bool]:
    """The features kept under `key` beside a pixel store, or else computed and kept; and whether they were there.

    What cannot be kept, for want of room or of the right to write, is computed and used all the same.
    """
    if folder is None:
        return compute(), False
    path = folder / f"features-{key}.npy"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if about["schema"] == SCHEMA and values.ndim == 3:
            columns = {Spot(layer, pooling): [tuple(c) for c in at] for layer, pooling, at in about["columns"]}
            return StageFeatures(np.asarray(values), columns), True
    made = compute()
    columns_as_list = [[spot.layer, spot.pooling, at] for spot, at in made.columns.items()]
    with contextlib.suppress(OSError):
        _make_room(folder)
        _write(path, lambda file: np.save(file, made.values, allow_pickle=False))
        text = json.dumps({"schema": SCHEMA, "columns": columns_as_list})
        _write(path.with_suffix(".json"), lambda file: file.write(text.encode()))
    return made, False


def features_key(
    net: nn.Module, engine: Engine, preprocessing: Preprocessing, rows: np.ndarray, views: int, flip: str = ""
) -> str:
    """Names a pass: the weights, the engine and preprocessing, and which rows of the store in which views."""
    digest = hashlib.blake2b(digest_size=16)
    about = {"schema": SCHEMA, "views": views, "flip": flip, "engine": engine.as_dict(), **preprocessing.as_dict()}
    about["torch"], about["layer"] = torch.__version__, getattr(net, "layer", "")
    digest.update(json.dumps(about, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(rows, dtype=np.int64).tobytes())
    for name, value in sorted(backbone_of(net).state_dict().items()):
        digest.update(name.encode())
        plain = value.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()


def _layout(
    found: list[tuple[str, int, int]], rows: int
) -> tuple[dict[str, tuple[str, int, int]], dict[Spot, list[tuple[int, int]]]]:
    """Blocks of columns by "pooling layer", and the blocks of each spot; without grids where they take too much."""
    offered = {name: poolings_of(channels, side, WIDEST) for name, channels, side in found}

    def width(poolings: list[str], channels: int) -> int:
        return channels * (2 + sum(CELLS[p] ** 2 for p in poolings if p in CELLS))

    if 4 * rows * sum(width(offered[name], channels) for name, channels, _ in found) > MOST_BYTES:
        offered = {name: ["mean", "mean+max"] for name in offered}
    blocks: dict[str, tuple[str, int, int]] = {}
    columns: dict[Spot, list[tuple[int, int]]] = {}
    at = 0
    for name, channels, _ in found:
        here = {}
        for kind in ("mean", "max", *(p for p in offered[name] if p in CELLS)):
            last = at + channels * CELLS.get(kind, 1) ** 2
            here[kind], blocks[f"{kind} {name}"] = (at, last), (name, at, last)
            at = last
        for pooling in offered[name]:
            columns[Spot(name, pooling)] = [here[kind] for kind in pooling.split("+")]
    return blocks, columns


def _pooled(feature_map: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "mean":
        return feature_map.mean((2, 3))
    return feature_map.amax((2, 3)) if kind == "max" else grid_means(feature_map, CELLS[kind])


def _map_of(net: ProbeNet, size: int) -> tuple[int, int]:
    (caught,) = FeatureMaps(net.backbone, [net.layer]).maps(torch.zeros(1, 3, size, size))
    return caught.shape[1], min(caught.shape[2:])


def _make_room(folder: Path) -> None:
    kept = sorted(folder.glob("features-*.npy"), key=lambda path: path.stat().st_mtime)
    for path in kept[: max(0, len(kept) - MOST_KEPT + 1)]:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)


def _write(path: Path, write: Callable[[Any], object]) -> None:
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        Path(aside).replace(path)
    finally:
        Path(aside).unlink(missing_ok=True)

"""Features of several stages in one pass, and kept beside the pixels (SPEC T2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.data.memory_store import MemoryStore, random_images
from wellfit.data.batches import EvaluationBatches
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.models.probe_net import ProbeNet, feature_maps, grid_means
from wellfit.models.zoo import build
from wellfit.transfer.stage_features import Spot, StageFeatures, features_key, kept_features, stage_features

SIZE, IMAGES = 32, 10
PREPROCESSING = Preprocessing(SIZE, SIZE, (0.5,) * 3, (0.25,) * 3)
ENGINE = Engine(threads=1)


def batches() -> EvaluationBatches:
    store = MemoryStore(random_images(IMAGES, SIZE, SIZE))
    return EvaluationBatches(store, np.arange(IMAGES), np.arange(IMAGES) % 2, PREPROCESSING, 4)


def inputs() -> torch.Tensor:
    return PREPROCESSING.normalise(torch.from_numpy(random_images(IMAGES, SIZE, SIZE)).permute(0, 3, 1, 2))


def test_every_spot_is_what_the_network_with_a_probe_there_computes() -> None:
    net = build("resnet20", 2, image_size=SIZE, seed=0).module
    done: list[int] = []
    features = stage_features(net, batches(), ENGINE, PREPROCESSING, progress=done.append)
    assert features.layers == ["layer1", "layer2", "layer3"]
    assert done == [4, 4, 2]
    assert len(features.spots) == 12
    for spot in features.spots:
        probe = ProbeNet(net, 2, SIZE, layer=spot.layer, pooling=spot.pooling).eval()
        with torch.no_grad():
            plain, mirrored = probe.features(inputs()), probe.features(inputs().flip(3))
        np.testing.assert_allclose(features.of(spot)[:, 0], plain, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(features.of(spot)[:, 1], mirrored, rtol=1e-4, atol=1e-5)
        assert probe.released() is net


@pytest.mark.parametrize(("height", "cells"), [(8, 2), (7, 2), (7, 4), (13, 4)])
def test_a_grid_is_torchs_adaptive_pooling(height: int, cells: int) -> None:
    maps = torch.randn(3, 5, height, height + 2, generator=torch.Generator().manual_seed(0))
    expected = functional.adaptive_avg_pool2d(maps, cells).flatten(1)
    torch.testing.assert_close(grid_means(maps, cells), expected)


def test_the_last_map_is_the_one_of_the_usual_probe() -> None:
    for name, size in (("squeezenet1_1", 64), ("resnet18", 64), ("torchvision:densenet121", 64)):
        net = build(name, 3, image_size=size, seed=0).module
        found = feature_maps(net, size)
        assert found[-1][0] == ProbeNet(net, 3, size).layer
        assert len(found) == 4
        assert [side for *_, side in found] == sorted((side for *_, side in found), reverse=True)


def test_one_view_is_the_image_alone() -> None:
    net = build("resnet20", 2, image_size=SIZE, seed=0).module
    one = stage_features(net, batches(), ENGINE, PREPROCESSING, views=1)
    two = stage_features(net, batches(), ENGINE, PREPROCESSING, views=2)
    assert one.values.shape[1] == 1
    np.testing.assert_array_equal(one.values[:, 0], two.values[:, 0])


def test_where_the_grids_would_take_too_much_room_they_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wellfit.transfer.stage_features.MOST_BYTES", 1000)
    net = build("resnet20", 2, image_size=SIZE, seed=0).module
    features = stage_features(net, batches(), ENGINE, PREPROCESSING)
    assert {spot.pooling for spot in features.spots} == {"mean", "mean+max"}
    assert features.values.shape[2] == 2 * (16 + 32 + 64)


def test_a_pass_is_kept_and_read_back_and_the_oldest_goes(tmp_path: Path) -> None:
    made = 0

    def compute() -> StageFeatures:
        nonlocal made
        made += 1
        values = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
        return StageFeatures(values, {Spot("a", "mean"): [(0, 2)], Spot("a", "mean+max"): [(0, 2), (2, 4)]})

    first, was_kept = kept_features(tmp_path, "one", compute)
    again, is_kept = kept_features(tmp_path, "one", compute)
    assert (made, was_kept, is_kept) == (1, False, True)
    for spot in first.spots:
        np.testing.assert_array_equal(first.of(spot), again.of(spot))
    (tmp_path / "features-one.npy").write_bytes(b"damaged")
    assert not kept_features(tmp_path, "one", compute)[1]
    for key in "abcdef":
        kept_features(tmp_path, key, compute)
    assert len(list(tmp_path.glob("features-*.npy"))) == 4
    assert (tmp_path / "features-f.npy").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_cannot_be_kept_is_computed_all_the_same(tmp_path: Path) -> None:
    values = StageFeatures(np.zeros((2, 1, 2), np.float32), {Spot("a", "mean"): [(0, 2)]})
    assert kept_features(tmp_path / "absent", "key", lambda: values) == (values, False)
    assert kept_features(None, "key", lambda: values) == (values, False)


def test_a_pass_is_named_by_weights_engine_preprocessing_and_rows() -> None:
    net = build("resnet20", 2, image_size=SIZE, seed=0).module
    rows = np.arange(5)
    key = features_key(net, ENGINE, PREPROCESSING, rows, 2)
    assert key == features_key(ProbeNet(net, 7, SIZE).backbone, ENGINE, PREPROCESSING, rows.copy(), 2)
    others = {
        features_key(build("resnet20", 2, image_size=SIZE, seed=1).module, ENGINE, PREPROCESSING, rows, 2),
        features_key(net, Engine(dtype="bfloat16", threads=1), PREPROCESSING, rows, 2),
        features_key(net, ENGINE, Preprocessing(SIZE, SIZE, (0.4,) * 3, (0.25,) * 3), rows, 2),
        features_key(net, ENGINE, PREPROCESSING, rows + 1, 2),
        features_key(net, ENGINE, PREPROCESSING, rows, 1),
    }
    assert len(others) == 5
    assert key not in others

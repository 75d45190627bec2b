"""Nearest vectors in blocks, against a search by hand and scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn

from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.inference import neighbours
from wellfit.inference.features import Features
from wellfit.inference.neighbours import nearest, strangers


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", 7)
    monkeypatch.setattr(neighbours, "BANK_BLOCK", 13)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_blocks_find_what_scikit_learn_finds(k: int) -> None:
    rng = np.random.default_rng(0)
    queries, bank = rng.normal(size=(20, 6)), rng.normal(size=(100, 6))
    positions, distances = nearest(queries, bank, k)
    expected, places = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank).kneighbors(queries)
    assert (positions == places).all()
    assert distances == pytest.approx(expected, rel=1e-5)


def test_a_memory_mapped_bank_of_halves_is_read_as_it_is(tmp_path: Path) -> None:
    bank = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float16)
    np.save(tmp_path / "bank.npy", bank)
    positions, distances = nearest(bank[[7, 33]], np.load(tmp_path / "bank.npy", mmap_mode="r"), 2)
    assert positions[:, 0].tolist() == [7, 33]
    assert distances[:, 0].tolist() == [0, 0]
    assert (distances[:, 1] > 0).all()


def test_small_distances_far_from_the_origin_are_exact() -> None:
    bank = np.array([[1000.0, 0.0], [1000.0, 0.01], [1000.0, 0.03]], dtype=np.float32)
    _, distances = nearest(bank[:1], bank, 3)
    assert distances[0] == pytest.approx([0, 0.01, 0.03], rel=1e-4)


def test_an_image_is_not_its_own_neighbour() -> None:
    bank = np.arange(40, dtype=np.float32).reshape(-1, 1) ** 1.5
    positions, _ = nearest(bank, bank, 2, own=np.arange(40))
    assert (positions != np.arange(40)[:, None]).all()
    assert positions[0].tolist() == [1, 2]
    assert positions[39].tolist() == [38, 37]


@pytest.mark.parametrize("k", [0, 4])
def test_more_neighbours_than_there_are_images_are_refused(k: int) -> None:
    bank = np.zeros((4, 2), dtype=np.float32)
    with pytest.raises(UserError, match=f"from 1 to 3, got {k}"):
        nearest(bank, bank, k, own=np.arange(4))


def test_a_planted_wrong_label_is_found_and_nothing_else() -> None:
    rng = np.random.default_rng(2)
    bank = np.concatenate([rng.normal(0, 1, (30, 3)), rng.normal(20, 1, (30, 3)), rng.normal(-20, 1, (30, 3))])
    labels = np.repeat([0, 1, 2], 30)
    labels[4] = 2
    labels[40] = 0
    found = strangers(bank, labels, 8)
    assert found.positions.tolist() == [4, 40]
    assert found.labels.tolist() == [0, 1]
    assert found.neighbours.shape == (2, 8)
    assert (found.neighbours[0] < 30).all()
    assert strangers(bank, labels, 8, candidates=np.array([40, 5])).positions.tolist() == [40]


def test_neighbours_of_two_other_labels_accuse_nobody() -> None:
    bank = np.array([[0.0], [1], [2], [3], [4]])
    assert strangers(bank, np.array([0, 1, 1, 2, 2]), 4).positions.tolist() == []
    assert strangers(bank, np.array([0, 1, 1, 1, 1]), 4).positions.tolist() == [0]


class Places(nn.Module):
    """A classifier that answers for each place, as a 1×1 convolution, and is averaged afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 5, 3)
        self.head = nn.Conv2d(5, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)).mean((2, 3))


def test_features_are_what_enters_the_classifier() -> None:
    preprocessing = Preprocessing(8, 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    engine = Engine("cpu", "float32", "contiguous", 1)
    pixels = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 4))
    with Features(flat, engine, preprocessing) as features:
        values, logits = features.of(pixels)
    inputs = engine.inputs(pixels, preprocessing)
    assert values == pytest.approx(flat[:3](inputs).detach().numpy())
    assert logits == pytest.approx(flat(inputs).detach().numpy())
    assert features.layer == "3"
    assert not flat[3]._forward_pre_hooks
    places = Places()
    with Features(places, engine, preprocessing) as features:
        values, _ = features.of(pixels)
    assert values == pytest.approx(places.body(inputs).mean((2, 3)).detach().numpy(), abs=1e-6)

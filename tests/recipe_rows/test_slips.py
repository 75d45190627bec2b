"""What some published slides print wrongly, where the right form needs a test of its own (SPEC Z)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.data.memory_store import MemoryStore, random_images
from wellfit.data.augmentations import policies
from wellfit.data.augmentations.operations import STANDARD, WIDE, apply_operations
from wellfit.data.preprocess import fit_preprocessing
from wellfit.models.layers.activations import build_activation
from wellfit.models.layers.normalization import build_normalization
from wellfit.training.second_order import bfgs

BLACK = np.zeros((1, 1, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["batch", "layer", "instance", "group"])
def test_a_feature_that_never_varies_is_zero_and_no_division_by_zero(name: str) -> None:
    """(x − μ)/√(σ² + ε): without ε, 0/0."""
    x = torch.full((4, 16, 3, 3), 2.5, dtype=torch.float64)
    assert torch.equal(build_normalization(name, 16).double()(x), torch.zeros_like(x))


@pytest.mark.parametrize("slope", [0.25, 1.0, 3.0, -0.5])
def test_prelu_of_a_slope_above_one_bends_below_zero(slope: float) -> None:
    layer = build_activation("prelu")
    with torch.no_grad():
        layer.weight.fill_(slope)
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert layer(x).tolist() == [-2 * slope, -slope, 0.0, 1.0, 2.0]


def test_an_update_of_bfgs_changes_two_directions() -> None:
    """The learnt inverse Hessian differs from a multiple of the identity by a matrix of rank 2 after one update."""
    draw = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hessian = draw @ draw.T + torch.eye(6, dtype=torch.float64)
    found = bfgs(lambda x: 0.5 * x @ hessian @ x, torch.ones(6, dtype=torch.float64), steps=1)
    values = torch.linalg.eigvalsh(found.inverse_hessian)
    unchanged = (values - values.median()).abs() < 1e-9 * values.max()
    assert int(unchanged.sum()) == 4


def test_a_dark_image_stays_dark() -> None:
    """By the training set's figures a dark image lies below a bright one; by its own, each would have mean 0."""
    images = random_images(6, 8, 8, seed=2) // 4
    images[3:] += 150
    preprocessing = fit_preprocessing(MemoryStore(images), np.arange(6), size=8)
    inputs = preprocessing.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
    means = inputs.mean((1, 2, 3))
    assert (means[:3] < -0.5).all()
    assert (means[3:] > 0.5).all()
    assert inputs.mean().item() == pytest.approx(0, abs=1e-5)


def test_each_policy_applies_what_it_drew() -> None:
    """One image, draws chosen so that each operation is known: the pixels are those of the operation."""
    image = random_images(1, 8, 8, seed=5).repeat(4, axis=1).repeat(4, axis=2)
    kinds = len(policies.CHOICES)
    for number, name in enumerate(policies.CHOICES):
        draws = np.array([[(number + 0.5) / kinds, 0.9, 0.0, 0.0]])
        first = policies.CHOICES[0]
        expected = apply_operations(image, np.array([name]), np.array([0.3]), BLACK, STANDARD)
        expected = apply_operations(expected, np.array([first]), np.array([-0.3]), BLACK, STANDARD)
        np.testing.assert_array_equal(policies.randaugment(image, draws, 9.0, BLACK), expected)
        draws = np.array([[(number + 0.5) / kinds, 20.5 / 31, 0.9]])
        expected = apply_operations(image, np.array([name]), np.array([20 / 30]), BLACK, WIDE)
        np.testing.assert_array_equal(policies.trivialaugment(image, draws, BLACK), expected)

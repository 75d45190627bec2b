"""The stem that whitens patches: from the data's own covariance, worked out over a few images at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from wellfit.models import whitened as whitened_module
from wellfit.models.whitened import WhitenedNet


def pictures(number: int, size: int, channels: int = 3) -> torch.Tensor:
    """Noise over smooth patterns, so that neighbouring pixels are alike; a mean apart from 0."""
    source = torch.Generator().manual_seed(number)
    coarse = torch.randn(number, channels, (size + 3) // 4, (size + 3) // 4, generator=source)
    smooth = functional.interpolate(coarse, (size, size), mode="bilinear")
    return smooth + 0.2 * torch.randn(number, channels, size, size, generator=source) + 0.3


def patches_of(images: torch.Tensor) -> np.ndarray:
    """Every 2×2 patch as a row, channel by channel."""
    x = images.double().numpy()
    corners = [x[:, :, i : x.shape[2] - 1 + i, j : x.shape[3] - 1 + j] for i in (0, 1) for j in (0, 1)]
    return np.stack(corners, 2).transpose(0, 3, 4, 1, 2).reshape(-1, 4 * x.shape[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_covariance_is_that_of_all_patches_at_once(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(37, 18, channels)
    expected = np.cov(patches_of(images).T)
    for numbers in (1, 5 * 12 * 18 * 18, 2**20):
        monkeypatch.setattr(whitened_module, "PATCH_NUMBERS", numbers)
        found = whitened_module._covariance_of_patches(images).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_no_more_patches_are_held_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    unfold = functional.unfold

    def noted(images: torch.Tensor, size: int) -> torch.Tensor:
        made = unfold(images, size)
        held.append(made.numel())
        return made

    monkeypatch.setattr(whitened_module.functional, "unfold", noted)
    monkeypatch.setattr(whitened_module, "PATCH_NUMBERS", 100_000)
    WhitenedNet(10).initialise_from_data(pictures(64, 32))
    assert sum(held) == 64 * 12 * 31 * 31
    assert max(held) <= 100_000


def test_what_the_filters_say_of_the_images_is_white() -> None:
    images = pictures(50, 24)
    net = WhitenedNet(10)
    net.initialise_from_data(images)
    filters = net.whiten.weight.detach().double().numpy().reshape(24, 12)
    np.testing.assert_array_equal(filters[12:], -filters[:12])
    said = patches_of(images) @ filters[:12].T
    covariance = np.cov(said.T)
    # The floor of the smallest eigenvalues keeps them below 1.
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-4
    assert 0.9 < np.diag(covariance).max() <= 1.0
    assert np.diag(covariance).min() > 0.3

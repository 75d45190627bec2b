"""Figures of images agree with plain NumPy, and their sum does not depend on how the batches are cut."""

import numpy as np
import pytest
import scipy.stats
import torch

from wellfit.diagnosis.inputs import IMAGES, find_input, measure, sum_up_inputs, to_host


def by_hand(images):
    """The figures of N×C×H×W, one row an image."""
    mean, std = images.mean((2, 3)), images.std((2, 3))
    steps = np.abs(np.diff(images, axis=3)).mean((1, 2, 3))
    colour = images.std(1).mean((1, 2)) / std.mean(1)
    skew = np.stack([[scipy.stats.skew(c.ravel()) for c in image] for image in images]).mean(1)
    return np.concatenate([mean, std, np.stack([colour, skew, steps / std.mean(1)], 1)], 1)


def bands_by_hand(images):
    """Four bands from top to bottom, four from left to right, of N×C×8×12, a channel after the other."""
    z = (images - images.mean((2, 3), keepdims=True)) / images.std((2, 3), keepdims=True)
    z = z if z.shape[1] == 3 else z.mean(1, keepdims=True)
    down = z.reshape(len(z), z.shape[1], 4, 2, 12).mean((3, 4))
    across = z.reshape(len(z), z.shape[1], 8, 4, 3).mean((2, 4))
    return np.concatenate([down, across], 2).reshape(len(z), -1)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_figures_are_those_of_each_image(channels):
    x = torch.rand(6, channels, 8, 12, generator=torch.Generator().manual_seed(0)) * 3 - 1
    (table,) = to_host([measure(x)])
    images = x.double().numpy()
    figures = np.concatenate([by_hand(images), bands_by_hand(images)], 1)
    assert table[:-1] == pytest.approx(figures, rel=1e-4, abs=1e-6)
    assert table[-1, :3] == pytest.approx([float(x.min()), float(x.max()), channels])


def test_averages_and_scatter_over_two_batches_are_those_of_all_images():
    x = torch.rand(20, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    summed = sum_up_inputs(to_host([measure(x[:12]), measure(x[12:])]), (3, 8, 12))
    rows = by_hand(x.double().numpy())
    assert (summed.images, summed.batches, summed.channels, summed.shape) == (20, 2, 3, (3, 8, 12))
    assert summed.figures == pytest.approx(rows.mean(0), rel=1e-4)
    assert summed.scatter == pytest.approx(np.cov(rows.T), rel=1e-3, abs=1e-7)
    means = np.array([rows[:12].mean(0), rows[12:].mean(0)])
    assert summed.between == pytest.approx(np.cov(means.T), rel=1e-3, abs=1e-7)
    bands = bands_by_hand(x.double().numpy())
    assert summed.bands == pytest.approx(bands.mean(0), rel=1e-3, abs=1e-5)
    assert summed.bands_scatter == pytest.approx(bands.var(0, ddof=1), rel=1e-3, abs=1e-7)
    halves = np.array([bands[:12].mean(0), bands[12:].mean(0)])
    assert summed.bands_between == pytest.approx(halves.var(0, ddof=1), rel=1e-3, abs=1e-7)


def test_large_batches_are_read_in_part_and_estimate_the_whole():
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(64, 3, 96, 96, generator=draw) * torch.tensor([0.5, 1.0, 2.0]).view(1, 3, 1, 1) + 1.0
    summed = sum_up_inputs(to_host([measure(x)]), (3, 96, 96))
    assert summed.images == IMAGES
    assert summed.figures[:6] == pytest.approx([1, 1, 1, 0.5, 1, 2], abs=0.05)
    # neighbours of white noise differ by 2/√π standard deviations; the channels' are 0.5, 1 and 2
    assert summed.figures[-1] == pytest.approx(2 / np.sqrt(np.pi), rel=0.02)


@pytest.mark.parametrize("shape", [(5, 64), (5, 8, 8), (5, 2, 4, 6, 6), (5, 40, 4, 4), (5, 100_000)])
def test_other_shapes_have_figures_too(shape):
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(3))
    summed = sum_up_inputs(to_host([measure(x)]), shape[1:])
    assert summed.images == 5
    assert summed.channels == (2 if len(shape) == 5 else 1)
    assert summed.figures[0] == pytest.approx(0.5, abs=0.05)


def test_images_with_numbers_that_are_none_are_left_out():
    x = torch.rand(4, 1, 5, 5)
    x[1, 0, 2, 2] = torch.nan
    summed = sum_up_inputs(to_host([measure(x)]), (1, 5, 5))
    assert summed.images == 3
    assert np.isfinite(summed.figures).all()
    assert sum_up_inputs(to_host([measure(x[1:2])]), (1, 5, 5)) is None
    assert measure(x[:0]) is None


def test_the_input_is_found_among_arguments_and_mappings():
    x = torch.rand(2, 3)
    ids = torch.arange(6).reshape(2, 3)
    assert find_input((ids, x), {}) is not None
    assert torch.equal(find_input((), {"labels": ids, "pixel_values": x}), x)
    assert torch.equal(find_input(({"image": x},), {}), x)
    assert find_input((x.mul(255).to(torch.uint8),), {}).dtype == torch.uint8
    assert find_input((ids, 3), {"label": torch.rand(4)}) is None

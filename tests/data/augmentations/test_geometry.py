"""Maps of places: against scipy's interpolation and by hand; the middle of each changes nothing (SPEC D11, R4)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from tests.data.augmentations.conftest import even_grid, middle
from wellfit.data.augmentations import geometry
from wellfit.data.augmentations.geometry import warp

MAPS = [
    (geometry.rotate, 1, 30.0),
    (geometry.translate, 2, 0.3),
    (geometry.stretch, 2, 0.5),
    (geometry.shear, 2, 25.0),
    (geometry.lens, 1, 0.15),
]
IDS = [place_map.__name__ for place_map, _, _ in MAPS]


def places(side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    line = (2 * torch.arange(side, dtype=torch.float32) + 1) / side - 1
    return line.view(1, 1, side), line.view(1, side, 1)


@pytest.mark.parametrize(("place_map", "columns", "strength"), MAPS, ids=IDS)
def test_the_test_side_is_the_middle_of_the_draws(
    place_map: geometry.PlaceMap, columns: int, strength: float, smooth: np.ndarray
) -> None:
    np.testing.assert_array_equal(warp(smooth, [(place_map, middle(columns), strength)]), smooth)
    away = warp(smooth, [(place_map, np.full((8, columns), 0.95), strength)])
    assert np.abs(away.astype(int) - smooth).mean() > 3


@pytest.mark.parametrize(("place_map", "columns", "strength"), MAPS, ids=IDS)
def test_the_mean_place_over_the_draws_is_the_place_itself(
    place_map: geometry.PlaceMap, columns: int, strength: float
) -> None:
    """Exactly for offsets, shears and bends; turns and stretches scale it evenly about the centre."""
    x, y = places()
    count = 400
    one_by_one = [np.where(np.arange(columns) == c, even_grid(count), 0.5) for c in range(columns)]
    for draws in one_by_one:
        read_x, read_y = place_map(x, y, draws, strength)
        mean_x = read_x.double().mean(0).expand(32, 32)
        mean_y = read_y.double().mean(0).expand(32, 32)
        across, down = x[0].double().expand(32, 32), y[0].double().expand(32, 32)
        scale_x, scale_y = float(mean_x[0, 0] / across[0, 0]), float(mean_y[0, 0] / down[0, 0])
        torch.testing.assert_close(mean_x, scale_x * across, atol=1e-5, rtol=0)
        torch.testing.assert_close(mean_y, scale_y * down, atol=1e-5, rtol=0)
        if place_map in (geometry.translate, geometry.shear, geometry.lens):
            assert (scale_x, scale_y) == pytest.approx((1, 1), abs=1e-4)
        elif place_map is geometry.rotate:  # the mean of cos over ±30°
            assert scale_x == pytest.approx(math.sin(math.pi / 6) / (math.pi / 6), abs=1e-4)
        else:  # the mean of e^u over ±log 1.5
            assert max(scale_x, scale_y) == pytest.approx(math.sinh(math.log(1.5)) / math.log(1.5), abs=1e-4)


def by_scipy(image: np.ndarray, matrix: np.ndarray, fill: float | None = None) -> np.ndarray:
    """The pixel at (row, column) of the result is read at matrix @ (row, column), about the image's centre."""
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre - matrix @ centre
    options = {"mode": "reflect"} if fill is None else {"mode": "grid-constant", "cval": fill}
    channels = [
        ndimage.affine_transform(image[:, :, c].astype(float), matrix, offset, order=1, **options) for c in range(3)
    ]
    return np.stack(channels, axis=2)


@pytest.mark.parametrize("fill", [None, 90])
def test_rotation_and_shear_agree_with_scipys_interpolation(smooth: np.ndarray, fill: int | None) -> None:
    ground = None if fill is None else np.full((1, 1, 3), fill, dtype=np.uint8)
    draws = np.linspace(0.05, 0.95, 8)[:, None]
    turned = warp(smooth, [(geometry.rotate, draws, 40.0)], ground)
    slanted = warp(smooth, [(geometry.shear, np.hstack([draws, middle(1)]), 30.0)], ground)
    for i, draw in enumerate(draws[:, 0]):
        angle = math.radians((2 * draw - 1) * 40)
        matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        assert np.abs(turned[i] - by_scipy(smooth[i], matrix, fill)).max() < 0.6
        slant = math.tan(math.radians((2 * draw - 1) * 30))
        assert np.abs(slanted[i] - by_scipy(smooth[i], np.array([[1, 0], [slant, 1]]), fill)).max() < 0.6


def test_translation_by_whole_pixels_moves_them(smooth: np.ndarray) -> None:
    draws = np.tile([0.5 + 0.5 * (4 / 32) / 0.25, 0.5 - 0.5 * (2 / 32) / 0.25], (8, 1))  # 4 pixels and −2 of ±8
    moved = warp(smooth, [(geometry.translate, draws, 0.25)])
    np.testing.assert_array_equal(moved[:, 2:, :-4], smooth[:, :-2, 4:])


@pytest.mark.parametrize(("draw", "outwards"), [(1 - 1e-9, False), (0.0, True)], ids=["barrel", "pincushion"])
def test_a_lens_moves_the_rim_inwards_or_outwards_and_never_folds(draw: float, outwards: bool) -> None:
    x, y = places(64)
    read_x, read_y = geometry.lens(x, y, np.array([[draw]]), 0.16)
    k = -0.16 if outwards else 0.16
    torch.testing.assert_close(read_x, x * (1 + k * (x**2 + y**2)), atol=1e-5, rtol=0)
    torch.testing.assert_close(read_y, y * (1 + k * (x**2 + y**2)), atol=1e-5, rtol=0)
    diagonal = read_x[0].diagonal()
    assert (diagonal.diff() > 0).all()
    ring = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    ring[:, 8] = 255  # a straight line near the upper rim
    black = np.zeros((1, 1, 3), dtype=np.uint8)
    seen = warp(ring, [(geometry.lens, np.array([[draw]]), 0.16)], black)[0, :, :, 0].astype(float)
    middle_row = (seen[:32, 32] * np.arange(32)).sum() / seen[:32, 32].sum()
    side_row = (seen[:32, 6] * np.arange(32)).sum() / seen[:32, 6].sum()
    # Barrel: the line bulges away from the centre in its middle; pincushion: at its ends.
    assert (side_row < middle_row) == outwards
    assert abs(side_row - middle_row) > 0.5


def test_several_maps_are_one_resampling_in_their_order(smooth: np.ndarray) -> None:
    turn = (geometry.rotate, np.full((8, 1), 0.99), 20.0)
    move = (geometry.translate, np.tile([0.9, 0.5], (8, 1)), 0.2)
    together, apart = warp(smooth, [turn, move]), warp(warp(smooth, [turn]), [move])
    other_order = warp(smooth, [move, turn])
    inner = np.s_[:, 10:22, 10:22]
    assert np.abs(together[inner].astype(int) - apart[inner]).max() <= 2
    assert np.abs(together[inner].astype(int) - other_order[inner]).max() > 5


def test_outside_the_image_is_its_reflection_or_the_fill() -> None:
    image = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    image[0, :, :, 0] = 10 * np.arange(8)
    far = [(geometry.translate, np.array([[1.0, 0.5]]), 0.25)]  # two pixels to the left
    assert warp(image, far)[0, 0, :, 0].tolist() == [20, 30, 40, 50, 60, 70, 70, 60]
    fill = np.array([[[7, 8, 9]]], dtype=np.uint8)
    filled = warp(image, far, fill)
    assert filled[0, 0, :, 0].tolist() == [20, 30, 40, 50, 60, 70, 7, 7]
    assert filled[0, 3, 7].tolist() == [7, 8, 9]

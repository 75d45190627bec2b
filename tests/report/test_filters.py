from __future__ import annotations

import numpy as np
import pytest

from tests.report.conftest import RunMaker
from wellfit.report.curves_filters import FILE, columns_for, filters_of, read_filters
from wellfit.report.history import read_history
from wellfit.report.page import write_report
from wellfit.report.panels import filters as panel
from wellfit.report.static_filters import draw_filters, plot_filters

WEIGHTS = np.zeros((3, 3, 2, 2))
WEIGHTS[0, 0] = [[2, -2], [1, 0]]  # red where positive
WEIGHTS[1] = 1e-4


def test_each_filter_is_coloured_on_its_own_scale_with_grey_at_zero() -> None:
    found = filters_of(WEIGHTS)
    assert found.colours.shape == (3, 2, 2, 3)
    assert found.colours[0, :, :, 0].tolist() == [[1.0, 0.0], [0.75, 0.5]]
    assert (found.colours[0, :, :, 1:] == 0.5).all()
    assert (found.colours[1] == 1.0).all()  # as strong as the first on its own scale
    assert (found.colours[2] == 0.5).all()  # all zero: grey, and no division by it
    assert found.strongest.tolist() == [2.0, 1e-4, 0.0]


def test_filters_near_zero_beside_the_others_are_counted() -> None:
    weights = np.ones((5, 3, 3, 3))
    assert filters_of(weights).flat == 0
    weights[1] *= 1e-3
    assert filters_of(weights).flat == 1


def test_filters_of_grey_images_are_grey() -> None:
    found = filters_of(np.array([[[[1.0, -0.5]]]]))
    assert found.colours.tolist() == [[[[1.0] * 3, [0.25] * 3]]]


def test_the_mosaic_places_filters_in_rows_one_pixel_apart() -> None:
    found = filters_of(WEIGHTS)
    sheet = found.mosaic(columns=2)
    assert sheet.shape == (5, 5, 4)
    assert np.array_equal(sheet[:2, :2, :3], found.colours[0])
    assert np.array_equal(sheet[:2, 3:, :3], found.colours[1])
    assert np.array_equal(sheet[3:, :2, :3], found.colours[2])
    assert not sheet[2].any()  # transparent between them, and where no filter is left
    assert not sheet[:, 2].any()
    assert not sheet[3:, 3:].any()


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (6, 3), (24, 8), (64, 16), (96, 16), (7, 7)])
def test_columns_divide_the_count_where_they_can(count: int, columns: int) -> None:
    assert columns_for(count) == columns


@pytest.mark.parametrize("shape", [(4, 2, 3, 3), (3, 3, 3), (0, 3, 2, 2)])
def test_other_shapes_are_no_filters(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="filters are"):
        filters_of(np.zeros(shape))


def test_the_page_shows_them_where_the_run_saved_them(make_run: RunMaker) -> None:
    folder = make_run()
    assert panel(read_history(folder)) is None
    assert "First filters" not in write_report(folder).read_text(encoding="utf-8")
    np.savez_compressed(folder.arrays / FILE, filters=np.random.default_rng(0).normal(size=(24, 3, 5, 5)))
    text = write_report(folder).read_text(encoding="utf-8")
    assert "First filters" in text
    assert "24 filters of the first convolution" in text
    (folder.arrays / FILE).write_bytes(b"torn")
    assert read_filters(folder) is None
    assert "First filters" not in write_report(folder).read_text(encoding="utf-8")


def test_the_drawing_repeats_and_its_image_is_the_mosaic() -> None:
    found = filters_of(WEIGHTS)
    assert draw_filters(found) == draw_filters(found)
    assert "<image" in draw_filters(found)
    (axes,) = plot_filters(found).axes
    assert np.allclose(axes.images[0].get_array(), found.mosaic())

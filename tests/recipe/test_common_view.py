"""Networks with several preprocessings on one input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wellfit.data.preprocess import Preprocessing
from wellfit.data.views import evaluation_view
from wellfit.errors import UserError
from wellfit.models.ensemble import entrance_of
from wellfit.recipe.common_view import common_view

GREY = (0.5,) * 3
ONE, OTHER = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def smooth(size: int = 120) -> np.ndarray:
    """An image without fine detail, which resampling leaves as it is."""
    across = np.linspace(0, 2 * np.pi, size)
    red, green = np.sin(across)[:, None] * np.ones(size), np.cos(2 * across)[None] * np.ones((size, 1))
    return (127 + 100 * np.stack([red, green, red * green], 2)).astype(np.uint8)


def seen(image: np.ndarray, one: Preprocessing) -> torch.Tensor:
    view = evaluation_view(image, one.resize, one.size)
    return one.normalise(torch.from_numpy(view.copy()).permute(2, 0, 1)[None])


def test_members_alike_keep_their_preprocessing() -> None:
    each = [Preprocessing(32, 36, ONE, OTHER)] * 3
    common, ways = common_view(each)
    assert common is each[0]
    assert ways == [{}, {}, {}]


@pytest.mark.parametrize(
    "others",
    [
        [Preprocessing(40, 40, OTHER, GREY)],
        [Preprocessing(48, 60, ONE, OTHER), Preprocessing(32, 32, GREY, GREY)],
        [Preprocessing(20, 40, ONE, OTHER)],
        [Preprocessing(40, 46, GREY, OTHER)],
    ],
)
def test_each_member_sees_what_it_would_have_seen_alone(others: list[Preprocessing]) -> None:
    each = [Preprocessing(40, 46, ONE, OTHER), *others]
    common, ways = common_view(each)
    image = smooth()
    for one, way in zip(each, ways, strict=True):
        entrance = entrance_of({"image_size": one.size, **way}, common.size)
        x = seen(image, common)
        got = x if entrance is None else entrance(x)
        want = seen(image, one)
        assert got.shape == want.shape
        # Within a few of 255 grey levels: the view is resampled once more, and rounded once less.
        assert ((got - want).abs() * torch.tensor(one.std).view(1, 3, 1, 1)).max() < 6 / 255


def test_the_common_view_is_as_wide_and_as_fine_as_any() -> None:
    each = [Preprocessing(32, 32, GREY, GREY), Preprocessing(48, 60, GREY, GREY)]
    common, ways = common_view(each)
    assert common.size / common.resize == 1.0
    assert common.size * 48 / 60 >= 48
    assert ways[1]["crop"] == pytest.approx(0.8)
    assert ways[0]["crop"] == 1.0


def test_mean_images_that_differ_cannot_be_joined() -> None:
    images = [np.full((8, 8, 3), value, dtype=np.float32) for value in (0.1, 0.2)]
    each = [Preprocessing(8, 8, GREY, (1.0,) * 3, "mean-image", image) for image in images]
    assert common_view([each[0], each[0]])[1] == [{}, {}]
    with pytest.raises(UserError, match="subtract the same image"):
        common_view(each)

"""Test-time views: geometry by hand, and probabilities averaged (SPEC D8)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional

from tests.data.memory_store import MemoryStore, ramp, random_images
from wellfit.data.preprocess import Preprocessing
from wellfit.data.views import SCALE_RANGE, evaluation_view, training_view
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.inference.evaluate import softmax
from wellfit.inference.views import (
    SCALES,
    VIEWS,
    View,
    answers_over_views,
    mirrored_pair,
    multi_scale,
    preset,
    probabilities_over_views,
    ten_crop,
    ten_crop_at,
)

CPU = Engine("cpu", "float32", "contiguous", 1)
PLAIN = Preprocessing(16, 16, (0.5,) * 3, (0.25,) * 3)


def test_ten_crops_are_torchvisions() -> None:
    image = random_images(1, 20, 28)[0]
    ours = {view.cut(image, 16).tobytes() for view in ten_crop(20, 28, 16)}
    planes = functional.ten_crop(torch.from_numpy(image).permute(2, 0, 1), [16, 16])
    theirs = {crop.permute(1, 2, 0).numpy().tobytes() for crop in planes}
    assert len(theirs) == 10
    assert ours == theirs


def test_the_scales_are_resnets() -> None:
    assert [round(224 * scale) for scale in SCALES] == [224, 256, 384, 480, 640]


@pytest.mark.parametrize(("height", "width"), [(500, 375), (240, 240), (33, 64)])
def test_fifty_views_lie_inside_the_image_five_scales_of_ten(height: int, width: int) -> None:
    views = multi_scale(height, width)
    assert len(views) == 50
    for view in views:
        assert 0 <= view.top <= height - view.side + 1e-9
        assert 0 <= view.left <= width - view.side + 1e-9
    sides = Counter(round(view.side * 640 / min(height, width), 6) for view in views)
    assert len(sides) == 5
    assert set(sides.values()) == {10}
    assert sum(view.mirrored for view in views) == 25
    # The short side stands for 640 pixels at the last scale, where a crop is 224 of them.
    assert min(view.side for view in views) == pytest.approx(min(height, width) * 224 / 640)


def test_at_the_smallest_scale_of_a_square_image_the_ten_hold_two() -> None:
    assert len(set(multi_scale(224, 224)[:10])) == 2
    assert len(set(multi_scale(224, 224))) == 42
    assert len(set(multi_scale(300, 224)[:10])) == 6


def test_a_view_shows_its_corner_mirrored_or_not() -> None:
    image = ramp(100, 200)
    plain, mirrored = View(60.0, 150.0, 40.0).cut(image, 20), View(60.0, 150.0, 40.0, True).cut(image, 20)
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])
    assert np.abs(plain[0, 0, :2].astype(int) - [60, 150]).max() <= 1
    assert np.abs(plain[-1, -1, :2].astype(int) - [99, 189]).max() <= 1


def test_the_mean_place_of_the_views_is_that_of_the_training_crops() -> None:
    """Both sides of the random crop: uniform places in training, a grid about the same centre in the test (R4)."""
    image, size = ramp(200, 250), 56
    fixed = np.array([(v.top + v.side / 2, v.left + v.side / 2) for v in multi_scale(200, 250)]).mean(0)
    np.testing.assert_allclose(fixed, (100, 125))
    draws = np.random.default_rng(0).random((600, 3))
    drawn = np.array([training_view(image, size, row)[:, :, :2].mean((0, 1)) + 0.5 for row in draws])
    assert (np.abs(drawn.mean(0) - fixed) < 4 * drawn.std(0) / np.sqrt(600)).all()
    assert SCALES[0] < SCALE_RANGE[0] < SCALE_RANGE[1] < SCALES[-1]  # training's scales lie within the test's


@pytest.mark.parametrize("crop", [33, 0])
def test_a_ten_crop_larger_than_the_image_names_both(crop: float) -> None:
    with pytest.raises(UserError, match=f"crops of {crop} pixels and an image of 32×64"):
        ten_crop(32, 64, crop)
    with pytest.raises(UserError, match=r"an image of 0\.9 times the crop's side"):
        ten_crop_at(0.9)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4 * 144, 3))


@pytest.mark.parametrize("batch_size", [7, 1000])
@pytest.mark.parametrize("layout", [multi_scale, ten_crop_at(1.5), mirrored_pair(16, 16)])
def test_probabilities_are_the_mean_over_the_views(layout: object, batch_size: int) -> None:
    images = [random_images(1, 20 + 3 * (i % 2), 20 + i, seed=i)[0] for i in range(5)]
    rows = np.array([4, 0, 3])
    module = network()
    got = probabilities_over_views(
        module, MemoryStore(images), rows, layout, engine=CPU, preprocessing=PLAIN, batch_size=batch_size, temperature=2
    )
    for row, answer in zip(rows, got, strict=True):
        cuts = np.stack([view.cut(images[row], 16) for view in layout(*images[row].shape[:2])])
        with torch.inference_mode():
            logits = module(PLAIN.normalise(torch.from_numpy(cuts.copy()).permute(0, 3, 1, 2))).numpy()
        np.testing.assert_allclose(answer, softmax(logits / 2).mean(0), atol=1e-5)
    np.testing.assert_allclose(got.sum(1), 1)


def test_the_mirrored_pair_makes_answers_blind_to_mirroring() -> None:
    """The test side of "flip": what training averages over its draws, the pair averages at once (R4)."""
    images = random_images(4, 16, 16)
    module = network()
    both = [
        probabilities_over_views(
            module, MemoryStore(pixels), np.arange(4), mirrored_pair(16, 16), engine=CPU, preprocessing=PLAIN
        )
        for pixels in (images, images[:, :, ::-1])
    ]
    np.testing.assert_allclose(both[0], both[1], atol=1e-6)


def test_no_rows_is_a_mistake() -> None:
    with pytest.raises(UserError, match="at least one image"):
        probabilities_over_views(
            network(), MemoryStore([]), np.array([], dtype=int), multi_scale, engine=CPU, preprocessing=PLAIN
        )


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("shape", [(32, 32), (40, 56)])
def test_each_preset_has_the_passes_that_it_says(name: str, shape: tuple[int, int]) -> None:
    chosen = VIEWS[name]
    views = chosen.layout(16, 16)(*shape)
    assert len(views) == chosen.passes
    assert any(view.mirrored for view in views) == chosen.mirrored
    # What a preset shows is blind to mirroring where it says so: each view has its twin.
    if chosen.mirrored:
        plain = Counter((v.top, v.left, v.side) for v in views if not v.mirrored)
        assert plain == Counter((v.top, v.left, v.side) for v in views if v.mirrored)


def test_presets_go_from_the_cheapest_to_the_dearest() -> None:
    passes = [preset.passes for preset in VIEWS.values()]
    assert passes == sorted(passes)
    assert next(iter(VIEWS)) == "none"


def test_the_first_view_of_few_is_the_evaluation_view() -> None:
    image = random_images(1, 37, 52)[0]
    for name in ("none", "flip", "shift", "shift-flip"):
        view = VIEWS[name].layout(20, 16)(37, 52)[0]
        np.testing.assert_array_equal(view.cut(image, 16), evaluation_view(image, 20, 16))


def test_a_moved_view_shows_the_image_moved_and_its_edge_reflected() -> None:
    image = random_images(1, 32, 32)[0]
    centre, up, down = (view.cut(image, 32) for view in VIEWS["shift"].layout(32, 32)(32, 32))
    np.testing.assert_array_equal(centre, image)
    np.testing.assert_array_equal(up[1:, 1:], image[:-1, :-1])
    np.testing.assert_array_equal(up[0, 1:], image[0, :-1])
    np.testing.assert_array_equal(down[:-1, :-1], image[1:, 1:])
    np.testing.assert_array_equal(down[:-1, -1], image[1:, -1])


def test_answers_are_logarithms_of_the_mean_probabilities() -> None:
    images, module = random_images(3, 20, 24), network()
    got = answers_over_views(module, MemoryStore(images), np.arange(3), "ten", engine=CPU, preprocessing=PLAIN)
    layout = VIEWS["ten"].layout(16, 16)
    want = probabilities_over_views(module, MemoryStore(images), np.arange(3), layout, engine=CPU, preprocessing=PLAIN)
    np.testing.assert_allclose(np.exp(got), want, atol=1e-12)


def test_unknown_views_name_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'flip'"):
        preset("flp")

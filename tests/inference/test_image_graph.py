"""The exported graph's own resize, against that of `data.resize`, which prediction uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from wellfit.data.decode import decode
from wellfit.data.preprocess import Preprocessing
from wellfit.data.views import evaluation_view
from wellfit.inference.image_graph import Cut, ImageGraph
from wellfit.inference.places import PLACES
from wellfit.inference.views import VIEWS, preset

SIZES = [
    *((8, 8), (28, 28), (32, 32), (16, 40), (41, 33), (100, 101), (224, 224), (300, 257), (320, 320), (321, 640)),
    *((375, 500), (500, 333), (427, 640), (768, 1024), (640, 640), (330, 2000), (1, 5)),
]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise beside smooth slopes and hard edges, all values of 0-255."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3))
    pixels[:, : width // 2] = np.linspace(0, 255, height)[:, None, None]
    pixels[height // 3 : height // 2] = 255 * (np.arange(width)[None, :, None] % 7 < 3)
    return pixels.astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("resize", "size"), [(32, 32), (256, 224), (329, 288), (73, 64)])
def test_views_are_those_of_a_prediction_to_the_last_bit(height: int, width: int, resize: int, size: int) -> None:
    image = picture(height, width)
    short = max(resize, 320)
    expected = evaluation_view(decode(image, short_side=short), resize, size)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    view = Cut(size, short, size / resize)(tensor)[0].permute(1, 2, 0).numpy()
    assert view.shape == (size, size, 3)
    different = view != expected
    assert np.abs(view - expected).max() <= 1
    # A weight that lies between two whole numbers of 2⁻ᵖ may be rounded the other way.
    assert different.mean() < 1e-4


@pytest.mark.parametrize(("resize", "size"), [(32, 32), (256, 224)])
@pytest.mark.parametrize("name", [name for name in VIEWS if not VIEWS[name].mirrored] + ["all"])
def test_every_view_is_cut_as_a_prediction_cuts_it(name: str, resize: int, size: int) -> None:
    for height, width in [(28, 28), (41, 33), (375, 500), (500, 333), (3, 2)]:
        image = decode(picture(height, width), short_side=max(resize, 320))
        tensor = torch.from_numpy(picture(height, width)).permute(2, 0, 1)[None].float()
        expected = preset(name).layout(resize, size)(*image.shape[:2])
        plain = [view for view in expected if not view.mirrored]
        places = PLACES[name](resize, size)
        assert len(places) == len(plain)
        for place, view in zip(places, plain, strict=True):
            cut = Cut(size, max(resize, 320), place.share, place.down, place.across, place.moved)
            got = cut(tensor)[0].permute(1, 2, 0).numpy()
            different = got != view.cut(image, size)
            assert np.abs(got - view.cut(image, size)).max() <= 1, (height, width, place)
            assert different.mean() < 1e-3, (height, width, place)


def test_very_large_images_differ_by_the_blocks_that_prediction_averages_first() -> None:
    # From four times the short side on. Noise is the worst case.
    for height, width in [(1930, 1940), (1280, 1280)]:
        image = picture(height, width)
        expected = evaluation_view(decode(image, short_side=320), 256, 224).astype(float)
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        view = Cut(224, 320, 224 / 256)(tensor)[0].permute(1, 2, 0).numpy()
        assert 0 < np.abs(view - expected).mean() < 2


@pytest.mark.parametrize("mean_image", [False, True])
def test_pixels_become_what_the_network_was_trained_on(mean_image: bool) -> None:
    image = np.random.default_rng(0).random((4, 4, 3)).astype(np.float32) if mean_image else None
    std = (1.0, 1.0, 1.0) if mean_image else (0.2, 0.25, 0.3)
    preprocessing = Preprocessing(4, 4, (0.4, 0.5, 0.6), std, "any", image)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8))
    graph = ImageGraph(network, preprocessing, short_side=320, temperature=2.0, fixed=True)
    expected = torch.softmax(network(preprocessing.normalise(pixels)) / 2.0, 1)
    assert torch.allclose(graph(pixels), expected, atol=1e-6)
    free = ImageGraph(network, preprocessing, short_side=320, temperature=2.0, fixed=False)
    assert torch.equal(free(pixels), graph(pixels))

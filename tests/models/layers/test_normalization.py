from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.models.layers.normalization import NORMALIZATIONS, build_normalization, usual_groups

N, C, H, W = 6, 16, 5, 3


def images() -> torch.Tensor:
    return torch.randn(N, C, H, W, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 1


def by_hand(x: np.ndarray, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    parts = x.reshape(shape)
    mean, variance = parts.mean(axes, keepdims=True), parts.var(axes, keepdims=True)
    return ((parts - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)


@pytest.mark.parametrize(
    ("name", "shape", "axes"),
    [
        ("batch", (N, C, H, W), (0, 2, 3)),
        ("layer", (N, C, H, W), (1, 2, 3)),
        ("instance", (N, C, H, W), (2, 3)),
        ("group", (N, 2, C // 2, H, W), (2, 3, 4)),
    ],
)
def test_statistics_of_each_name_on_maps(name: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = images()
    y = build_normalization(name, C).double()(x)
    np.testing.assert_allclose(y.detach().numpy(), by_hand(x.numpy(), shape, axes), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "shape", "axes"), [("batch", (N, C), (0,)), ("layer", (N, C), (1,)), ("group", (N, 2, C // 2), (2,))]
)
def test_statistics_of_each_name_on_vectors(name: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = images()[:, :, 0, 0]
    y = build_normalization(name, C, vectors=True).double()(x)
    np.testing.assert_allclose(y.detach().numpy(), by_hand(x.numpy(), shape, axes), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_only_batch_differs_between_training_and_test(name: str) -> None:
    x = images()
    layer = build_normalization(name, C).double()
    training = layer.train()(x)
    assert torch.allclose(training, layer.eval()(x)) is (name != "batch")
    torch.testing.assert_close(layer(x[:1]), layer(x)[:1], msg="at test an image does not depend on its batch")


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_shifts_says_whether_a_bias_in_front_would_be_idle(name: str) -> None:
    layer = build_normalization(name, C)
    assert NORMALIZATIONS[name].shifts is (getattr(layer, "bias", None) is not None)


def test_the_test_side_of_batch_normalisation_is_what_training_gives_on_average() -> None:
    """The batch's other images are the randomness; running statistics average them out."""
    source = torch.Generator().manual_seed(0)
    pool = torch.randn(4000, 3, 2, 2, generator=source, dtype=torch.float64) * 2 + 5
    layer = nn.BatchNorm2d(3, momentum=None, affine=False).double()
    image, seen = pool[:1], []
    for _ in range(400):
        others = pool[torch.randint(len(pool), (63,), generator=source)]
        seen.append(layer(torch.cat([image, others]))[:1])
    average, test_side = torch.cat(seen).mean(0, keepdim=True), layer.eval()(image)
    single = torch.cat(seen).std(0).max()
    assert single > 0.02, "one batch differs from another"
    torch.testing.assert_close(average, test_side, rtol=0, atol=0.3 * single.item())


def test_groups_hold_eight_channels_or_more_where_there_are_enough() -> None:
    for channels in range(1, 600):
        groups = usual_groups(channels)
        assert channels % groups == 0
        assert groups == 1 or (groups <= 32 and channels // groups >= (8 if channels >= 16 else 2))
    assert isinstance(build_normalization("group", 64, groups=4), nn.GroupNorm)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "bacth"}, "did you mean 'batch'"),
        ({"name": "instance", "vectors": True}, "for image maps, and a vector of 16 features"),
        ({"name": "group", "groups": 3}, "got 3 for 16 channels"),
        ({"name": "batch", "groups": 4}, "groups go with normalization 'group'"),
    ],
)
def test_wrong_choices_are_one_sentence(arguments: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_normalization(channels=C, **arguments)

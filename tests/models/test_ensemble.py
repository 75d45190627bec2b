"""Several networks as one: the mean of their probabilities, whatever their preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from wellfit.errors import UserError
from wellfit.models.ensemble import Ensemble, Entrance, resampling
from wellfit.models.saved import card_of, load_model, save_model
from wellfit.models.zoo import build, construct
from wellfit.record import RunFolder


def nets(count: int = 3) -> list[nn.Module]:
    return [construct("lenet5", 4, image_size=32, seed=seed).eval() for seed in range(count)]


def images(count: int = 5, size: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, 3, size, size)).astype(np.float32))


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [2.0, 1.0, 5.0]])
def test_its_softmax_is_the_weighted_mean_of_its_members(weights: list[float]) -> None:
    members, x = nets(), images()
    with torch.no_grad():
        got = Ensemble(members, weights)(x)
        want = sum(w / sum(weights) * torch.softmax(m(x), 1) for w, m in zip(weights, members, strict=True))
    torch.testing.assert_close(torch.softmax(got, 1), want)
    torch.testing.assert_close(got, want.log())


def test_members_that_are_certain_leave_no_infinity() -> None:
    class Certain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[400.0, -400.0, 0.0]]).expand(len(x), 3)

    got = Ensemble([Certain(), Certain()], [1, 1])(images(2))
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got[0], torch.tensor([0.0, -800.0, -400.0]))


@pytest.mark.parametrize(("members", "weights"), [(0, []), (2, [1.0]), (2, [1.0, 0.0])])
def test_members_and_weights_that_do_not_fit_are_named(members: int, weights: list[float]) -> None:
    with pytest.raises(UserError, match=rf"one positive share a member, got {members} members"):
        Ensemble(nets(members), weights)


def test_it_is_saved_and_loaded_like_any_net_to_the_last_bit(tmp_path: Path) -> None:
    folder, x = RunFolder(tmp_path), images(4, 48)
    options = {
        "members": [
            {"name": "lenet5", "options": {}, "image_size": 48},
            {"name": "lenet5", "options": {}, "image_size": 32, "crop": 0.9, "scale": [2.0] * 3, "shift": [0.5] * 3},
        ],
        "shares": [1.0, 2.0],
    }
    built = build("ensemble", 4, image_size=48, seed=3, **options)
    module = built.module.eval()
    card = card_of(built, ["a", "b", "c", "d"], 48, {"size": 48})
    save_model(folder, module, card)
    loaded, read = load_model(folder)
    assert read["architecture"]["name"] == "ensemble"
    with torch.no_grad():
        assert torch.equal(module(x), loaded(x))
    assert not any("rows" in key or "scale" in key for key in module.state_dict())


def test_a_plain_request_for_one_says_that_it_has_no_members() -> None:
    with pytest.raises(UserError, match="got 0 members"):
        build("ensemble", 4, image_size=32)


def test_resampling_is_torchs_antialiased_bilinear_where_the_crop_is_whole_pixels() -> None:
    x = images(2, 48)
    for view, size, crop in ((48, 30, 1.0), (48, 60, 1.0), (48, 20, 0.75)):
        rows, edge = resampling(view, size, crop), round(view * (1 - crop) / 2)
        torch.testing.assert_close(rows.sum(1), torch.ones(size))
        if crop == 1.0:
            want = functional.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
            torch.testing.assert_close(rows @ x @ rows.T, want, atol=5e-5, rtol=0)
        else:  # pixels beside the crop count too, at its edge alone
            cut = x[:, :, edge : view - edge, edge : view - edge]
            want = functional.interpolate(cut, (size, size), mode="bilinear", antialias=True, align_corners=False)
            inner = (..., slice(2, -2), slice(2, -2))
            torch.testing.assert_close((rows @ x @ rows.T)[inner], want[inner], atol=5e-5, rtol=0)


def test_an_entrance_turns_one_normalisation_into_another() -> None:
    pixels = torch.rand(2, 3, 16, 16)
    ours, theirs = (0.5, 0.25), (0.3, 0.4)  # mean, deviation
    entrance = Entrance(16, 16, scale=[ours[1] / theirs[1]] * 3, shift=[(ours[0] - theirs[0]) / theirs[1]] * 3)
    torch.testing.assert_close(entrance((pixels - ours[0]) / ours[1]), (pixels - theirs[0]) / theirs[1])


def test_under_autocast_the_entrance_keeps_the_pixels_precision() -> None:
    entrance, x = Entrance(32, 20, 0.9), images()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = entrance(x)
    assert torch.equal(mixed, entrance(x))


def test_a_crop_beyond_the_view_is_refused() -> None:
    with pytest.raises(UserError, match=r"got 1\.2"):
        Entrance(32, 20, 1.2)

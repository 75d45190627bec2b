"""Resizing, against its arithmetic written out in whole numbers and against torch's public function."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from wellfit.data.resize import resized

SIZES = [
    *((64, 48, 31, 23), (375, 500, 320, 427), (48, 64, 24, 32), (9, 500, 3, 167), (500, 9, 167, 3), (40, 41, 2, 2)),
    *((600, 33, 40, 7), (7, 5, 6, 4)),
]
PLAIN = """
import hashlib, numpy as np, torch
from wellfit.data.resize import resized
found = hashlib.sha256()
for seed in range(40):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(4, 200, 2)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    sides = rng.integers(2, height), rng.integers(2, width)
    for method in ("bicubic", "bilinear"):
        found.update(resized(pixels, int(sides[0]), int(sides[1]), method).tobytes())
print(torch.backends.cpu.get_cpu_capability(), found.hexdigest())
"""


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole_weights(length: int, out: int, method: str) -> tuple[np.ndarray, int]:
    """out×length whole weights, and their bits, from the rule in the module's docstring."""
    scale = length / out
    x = np.abs((np.arange(length) + 0.5) - (np.arange(out)[:, None] + 0.5) * scale) / max(scale, 1.0)
    if method == "bilinear":
        exact = np.maximum(1 - x, 0)
    else:
        exact = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
    exact /= exact.sum(1, keepdims=True)
    bits = max(p for p in range(1, 23) if np.floor(exact.max() * 2**p + 0.5) < 2**15)
    return (np.sign(exact) * np.floor(np.abs(exact) * 2**bits + 0.5)).astype(np.int64), bits


def by_hand(pixels: np.ndarray, height: int, width: int, method: str) -> np.ndarray:
    weights, bits = whole_weights(pixels.shape[1], width, method)
    rows = np.clip((np.einsum("hwc,kw->hkc", pixels.astype(np.int64), weights) + 2 ** (bits - 1)) >> bits, 0, 255)
    weights, bits = whole_weights(pixels.shape[0], height, method)
    return np.clip((np.einsum("hkc,gh->gkc", rows, weights) + 2 ** (bits - 1)) >> bits, 0, 255)


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
@pytest.mark.parametrize("sides", SIZES)
def test_every_bit_follows_from_the_rule(sides: tuple[int, int, int, int], method: str) -> None:
    pixels = noise(*sides[:2])
    pixels[:, ::3] = 255 * (pixels[:, ::3] > 127)  # hard edges overshoot, and are clipped
    found = resized(pixels, *sides[2:], method)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, by_hand(pixels, *sides[2:], method))


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
def test_many_at_once_are_the_same_as_one_by_one_and_as_torchs_public_function(method: str) -> None:
    images = np.stack([noise(40, 56), noise(40, 56)[::-1], noise(40, 56)[:, ::-1]])
    for height, width in [(30, 42), (60, 84), (40, 56), (1, 1)]:
        many = resized(images, height, width, method)
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
        public = functional.interpolate(tensor, (height, width), mode=method, antialias=True, align_corners=False)
        np.testing.assert_array_equal(many, public.permute(0, 2, 3, 1).numpy())
        np.testing.assert_array_equal(many, np.stack([resized(image, height, width, method) for image in images]))


@pytest.mark.parametrize(("method", "other"), [("bicubic", "BICUBIC"), ("bilinear", "BILINEAR")])
def test_it_is_pillows_filter_but_for_the_rounding(method: str, other: str) -> None:
    for height, width, h, w in SIZES:
        pixels = noise(height, width)
        theirs = np.asarray(Image.fromarray(pixels).resize((w, h), Image.Resampling[other]))
        assert np.abs(resized(pixels, h, w, method).astype(int) - theirs).max() <= 2


@pytest.mark.parametrize("lower", ["default", "avx2"])
def test_vector_kernels_and_plain_ones_agree_to_the_last_bit(lower: str) -> None:
    name = "ATEN_CPU_CAPABILITY"
    usual = {key: value for key, value in os.environ.items() if key != name}
    found = {}
    for environment in (usual, {**usual, name: lower}):
        done = subprocess.run(
            [sys.executable, "-c", PLAIN], capture_output=True, text=True, check=True, env=environment
        )
        *capability, digest = done.stdout.split()
        found[" ".join(capability)] = digest
    if len(found) == 1:
        pytest.skip(f"torch has no kernels below {', '.join(found)} here by the name of {lower}: nothing to compare")
    assert len(set(found.values())) == 1, found


def test_the_original_is_left_and_may_be_read_only_or_a_part() -> None:
    whole = noise(50, 70)
    whole.flags.writeable = False
    before = whole.copy()
    part = whole[5:35, 10:60]
    np.testing.assert_array_equal(resized(part, 15, 25, "bilinear"), resized(part.copy(), 15, 25, "bilinear"))
    assert resized(whole, 25, 35, "bicubic").flags.writeable
    assert (whole == before).all()

"""One preprocessing for networks that were trained with several: an ensemble's input, and each member's way in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wellfit.data.preprocess import Preprocessing
from wellfit.errors import UserError

ALIKE = 1e-9


def common_view(each: Sequence[Preprocessing]) -> tuple[Preprocessing, list[dict[str, Any]]]:
    """The preprocessing of an ensemble, and for each member what `models.ensemble.entrance_of` takes.

    The view is the largest square that a member sees, with as many pixels as the finest needs; mean and deviation are
    the first member's. Members that all have the same preprocessing keep it to the last bit.

    UserError where mean images differ: what was subtracted pixel by pixel cannot be put back at another size.
    """
    first = each[0]
    if all(_same(one, first) for one in each):
        return first, [{} for _ in each]
    if any(one.mean_image is not None for one in each):
        raise UserError(
            "networks trained with preprocessing 'mean-image' are joined where all subtract the same image, and these "
            "differ; fit them on the same split (--split-seed), or with preprocessing 'standardise'"
        )
    shares = [one.size / one.resize for one in each]
    widest = max(shares)
    size = max(math.ceil(one.size * widest / share - ALIKE) for one, share in zip(each, shares, strict=True))
    resize = max(size, round(size / widest))
    common = Preprocessing(size, resize, first.mean, first.std)
    ways = []
    for one, share in zip(each, shares, strict=True):
        way: dict[str, Any] = {}
        crop = min(1.0, share / (size / resize))
        if one.size != size or crop < 1 - ALIKE:
            way["crop"] = crop
        if (one.mean, one.std) != (first.mean, first.std):
            way["scale"] = [ours / theirs for ours, theirs in zip(first.std, one.std, strict=True)]
            way["shift"] = [(o - t) / s for o, t, s in zip(first.mean, one.mean, one.std, strict=True)]
        ways.append(way)
    return common, ways


def _same(one: Preprocessing, other: Preprocessing) -> bool:
    plain = (one.size, one.resize, one.mean, one.std) == (other.size, other.resize, other.mean, other.std)
    if one.mean_image is None or other.mean_image is None:
        return plain and one.mean_image is other.mean_image
    return plain and np.array_equal(one.mean_image, other.mean_image)

"""Pooling by name; fractional: random regions in training, the average of several draws at test (SPEC N1, N5)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from wellfit.errors import UserError, unknown_name
from wellfit.randomness import generator

POOLINGS = ("max", "average", "fractional")


class FractionalMaxPool(nn.Module):
    """Max pooling that shrinks maps by a fraction: N×C×H×W → N×C×⌊H/ratio⌋×⌊W/ratio⌋.

    Graham 2014, "Fractional Max-Pooling"; SPEC N5. In training each map of each image has its own random regions,
    drawn from torch's generator. At test the layer averages over `draws` region draws, the same for every image, so
    that its output is a function of the image and the seed alone; it tends to the expectation of the training side as
    the draws grow. ratio: above 1. Regions are ⌈ratio⌉ pixels wide and overlap.
    """

    regions: torch.Tensor

    def __init__(self, ratio: float = math.sqrt(2), *, draws: int = 16, seed: int = 0) -> None:
        super().__init__()
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 1 < ratio < math.inf:
            raise UserError(
                f"fractional pooling shrinks maps by a ratio above 1, and a ratio of {ratio!r} would not; "
                "1.414 halves a map in two layers"
            )
        if draws < 1:
            raise UserError(f"fractional pooling averages over at least 1 draw at test, got {draws}; 16 is usual")
        self.ratio, self.draws, self.seed = float(ratio), draws, seed
        self.width = max(2, math.ceil(ratio))
        numbers = generator(seed, "fractional pooling").random((draws, 2))
        # Kept with the weights: a net that is read back pools by the regions that it was judged with.
        self.register_buffer("regions", torch.from_numpy(numbers).float())

    def output_side(self, side: int) -> int:
        """Pixels that a side of `side` pixels is pooled to; UserError where the map is smaller than one region."""
        if side < self.width:
            raise UserError(
                f"fractional pooling of ratio {self.ratio:.3g} takes maps of at least {self.width} pixels, got {side}; "
                "enlarge the images or choose max pooling"
            )
        return max(1, math.floor(side / self.ratio))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.output_side(x.shape[-2]), self.output_side(x.shape[-1])
        if self.training:
            return F.fractional_max_pool2d(x, self.width, output_size=size)
        # Sums of half-precision numbers would lose what the average is for.
        total = torch.zeros((), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        for draw in self.regions.to(x.dtype):
            samples = draw.expand(x.shape[0], x.shape[1], 2)
            pooled = F.fractional_max_pool2d(x, self.width, output_size=size, _random_samples=samples)
            total = total + pooled
        return (total / self.draws).to(pooled.dtype)

    def extra_repr(self) -> str:
        return f"ratio={self.ratio:.4g}, draws={self.draws}"


def build_pooling(
    name: str, *, size: int = 2, stride: int | None = None, ratio: float | None = None, draws: int = 16, seed: int = 0
) -> nn.Module:
    """Pooling of N×C×H×W by "max", "average" or "fractional"; UserError naming the nearest for another name.

    size, stride (None: as size): of max and average. ratio (None: √2), draws, seed: of fractional.

    >>> x = torch.tensor([[[[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]]])
    >>> build_pooling("max")(x).flatten().tolist(), build_pooling("average")(x).flatten().tolist()
    ([6.0, 8.0, 3.0, 4.0], [3.25, 5.25, 2.0, 2.0])
    """
    if name not in POOLINGS:
        raise unknown_name("pooling", name, POOLINGS)
    if name == "fractional":
        return FractionalMaxPool(math.sqrt(2) if ratio is None else ratio, draws=draws, seed=seed)
    if ratio is not None:
        raise UserError(f"a pooling ratio is for fractional pooling, got {ratio} with '{name}'; choose one of the two")
    return nn.MaxPool2d(size, stride) if name == "max" else nn.AvgPool2d(size, stride)

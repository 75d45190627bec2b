"""From pixels as a file holds them to probabilities, in tensor operations alone: what an exported model computes.

Prediction reduces an image to a short side of at most 320 pixels (bicubic), cuts the centre square and brings it to the
network's size (bilinear), both antialiased (`data.resize`). Both work in integers and round between rows and columns,
and so does this graph: its views equal those of `data.views.evaluation_view` to the last bit, but for images of four
times the short side and more: `data.decode` averages their blocks first. Weights are worked out in float64, as torch
does, until they are whole numbers; pixels are float32, in which sums of integers below 2²⁴ are exact whatever their
order, so that any runtime computes the same.
"""

from __future__ import annotations

import torch
from torch import nn

from wellfit.data.preprocess import Preprocessing
from wellfit.inference.places import MIDDLE, PLACES
from wellfit.inference.views import VIEWS

LARGEST = 32767.5  # weights are whole numbers of 2⁻ᵖ, with the largest p at which the largest weight fits into 16 bits
DIGIT = 256.0  # weights are split into two digits, so that every sum stays below 2²⁴


class ImageGraph(nn.Module):
    """uint8 N×3×H×W RGB images → N×C probabilities.

    The images of one batch share H and W, which are free, unless `fixed`: then they are views of size×size already.
    short_side: that larger images are reduced to first. temperature: by which logits are divided. views: a name of
    `views.VIEWS`, over which probabilities are averaged; of images that are views already "none" or "flip".
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        *,
        short_side: int,
        temperature: float,
        fixed: bool,
        views: str = "none",
    ) -> None:
        super().__init__()
        self.network, self.mirrored = network, VIEWS[views].mirrored
        size, places = preprocessing.size, PLACES[views](preprocessing.resize, preprocessing.size)
        cuts = [Cut(size, short_side, each.share, each.down, each.across, each.moved) for each in places]
        self.cuts = nn.ModuleList([nn.Identity()] if fixed else cuts)
        self.temperature = temperature
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.mean_image: torch.Tensor | None
        if preprocessing.mean_image is None:
            std, mean = preprocessing.std, preprocessing.mean
            scale = torch.tensor([1 / (255.0 * s) for s in std]).view(1, -1, 1, 1)
            shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(1, -1, 1, 1)
            image = None
        else:
            scale, shift = torch.tensor(1 / 255.0), torch.tensor(0.0)
            image = torch.as_tensor(preprocessing.mean_image, dtype=torch.float32).permute(2, 0, 1)[None].contiguous()
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("mean_image", image, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.float()
        views = [cut(pixels) for cut in self.cuts]
        if self.mirrored:
            views += [view.flip(3) for view in views]
        values = (torch.cat(views) if len(views) > 1 else views[0]) * self.scale + self.shift
        if self.mean_image is not None:
            values = values - self.mean_image
        answers = self.network(values)
        if len(views) > 1:  # the softmax of these is the mean of the views' probabilities
            each = torch.log_softmax(answers, dim=1).reshape(len(views), -1, answers.shape[1])
            answers = torch.logsumexp(each, dim=0)
        return torch.softmax(answers / self.temperature, dim=1)


class Cut(nn.Module):
    """N×3×H×W whole numbers from 0 to 255 → N×3×size×size: a square of the reduced image, as `views.View.cut` gives it.

    share, down, across, moved: as in `places.Place`; with share = size / resize alone it is the evaluation view. The
    steps between have as many rows and columns as the largest image needs; for smaller ones the rest weighs 0.
    """

    def __init__(
        self,
        size: int,
        short_side: int,
        share: float,
        down: float = MIDDLE,
        across: float = MIDDLE,
        moved: float = 0.0,
    ) -> None:
        super().__init__()
        self.size, self.share, self.short_side = size, share, short_side
        self.down, self.across, self.moved = down, across, moved
        self.rows = max(1, round(short_side * share))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        down = torch.arange(x.shape[2], dtype=torch.float64, device=x.device)
        across = torch.arange(x.shape[3], dtype=torch.float64, device=x.device)
        height, width = down.amax(0) + 1, across.amax(0) + 1
        short = torch.minimum(height, width)
        limit = torch.full_like(short, float(self.short_side))
        small = torch.minimum(short, limit)  # the short side after the reduction
        side = small * self.share
        region = torch.minimum(small, torch.clamp(torch.round(side), min=1.0))
        shrunk_rows = self._reduced(height, short, limit)
        shrunk_columns = self._reduced(width, short, limit)
        columns = self._positions(shrunk_columns, side, region, self.across)
        rows = self._positions(shrunk_rows, side, region, self.down)
        bits = _bits(self._largest(across, x.shape[3], width, shrunk_columns))
        x = _weighted(x, self._reduction(across, width, shrunk_columns, columns, region, bits), bits)
        bits = _bits(self._largest(down, x.shape[2], height, shrunk_rows))
        by_row = self._reduction(down, height, shrunk_rows, rows, region, bits)
        x = _weighted(x.transpose(2, 3), by_row, bits).transpose(2, 3)
        weights, bits = self._bilinear(region)
        x = _weighted(x, weights, bits)
        return _weighted(x.transpose(2, 3), weights, bits).transpose(2, 3)

    def _reduced(self, length: torch.Tensor, short: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
        """A side after the reduction of the short side to the limit; as it is where the image is small."""
        return torch.where(short > limit, torch.maximum(limit, torch.round(length * limit / short)), length)

    def _positions(self, reduced: torch.Tensor, side: torch.Tensor, region: torch.Tensor, place: float) -> torch.Tensor:
        """Rows (or columns) of the reduced image that the square takes; over its edge the image is reflected."""
        rows = torch.arange(self.rows, dtype=torch.float64, device=reduced.device)
        start = (reduced - side) * place
        if not self.moved:
            return torch.minimum(torch.clamp(torch.round(start), min=0.0), reduced - region) + rows
        start = start + side * self.moved
        above = torch.clamp(torch.round(-start), min=0.0)
        below = torch.clamp(torch.round(start + side - reduced), min=0.0)
        first = torch.minimum(torch.clamp(torch.round(start + above), min=0.0), reduced + above + below - region)
        at = first - above + rows
        at = torch.where(at < 0, -1 - at, at)
        return torch.where(at >= reduced, 2 * reduced - 1 - at, at)

    def _largest(self, pixels: torch.Tensor, count: int, length: torch.Tensor, reduced: torch.Tensor) -> torch.Tensor:
        """The largest bicubic weight of all rows of the reduced image, also of those outside the square."""
        reach = 2 * (count // self.short_side) + 4  # pixels on each side of a row's own that may weigh anything
        steps = torch.arange(2 * reach + 1, dtype=torch.float64, device=pixels.device) - reach
        middle = (2 * pixels + 1) * length  # of each row, in units of 1 / (2·reduced)
        near = torch.floor(middle / (2 * reduced))
        taken = near[:, None] + steps[None, :]
        weights = _bicubic((2 * taken + 1) * reduced - middle[:, None], torch.maximum(length, reduced))
        weights = torch.where((taken >= 0) & (taken < length), weights, torch.zeros_like(weights))
        shares = weights.amax(1) / torch.clamp(weights.sum(1), min=0.5)
        return torch.where(pixels < reduced, shares, torch.zeros_like(shares)).amax(0)

    def _reduction(
        self,
        pixels: torch.Tensor,
        length: torch.Tensor,
        reduced: torch.Tensor,
        positions: torch.Tensor,
        region: torch.Tensor,
        bits: torch.Tensor,
    ) -> torch.Tensor:
        """rows×length bicubic weights in units of 2⁻ᵇⁱᵗˢ, for the reduced image's rows that the square takes."""
        rows = torch.arange(self.rows, dtype=torch.float64, device=pixels.device)
        # In whole numbers, pixel and place in units of 1 / (2·reduced): a difference of fractions would lose bits.
        distance = (2 * pixels[None, :] + 1) * reduced - (2 * positions[:, None] + 1) * length
        weights = _bicubic(distance, torch.maximum(length, reduced))
        weights = weights / torch.clamp(weights.sum(1, keepdim=True), min=0.5) * 2.0**bits
        weights = torch.sign(weights) * torch.floor(torch.abs(weights) + 0.5)
        return torch.where(rows[:, None] < region, weights, torch.zeros_like(weights))

    def _bilinear(self, region: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(size×rows weights, bits): antialiased bilinear from `region` pixels to `size`, in units of 2⁻ᵇⁱᵗˢ."""
        pixels = torch.arange(self.rows, dtype=torch.float64, device=region.device)
        places = torch.arange(self.size, dtype=torch.float64, device=region.device)
        # In whole numbers: pixel and place in units of 1 / (2·size).
        distance = torch.abs((2 * pixels[None, :] + 1) * self.size - (2 * places[:, None] + 1) * region)
        reach = 2 * torch.clamp(region, min=float(self.size))
        weights = torch.clamp(reach - distance, min=0.0) * (pixels[None, :] < region)
        weights = weights / weights.sum(1, keepdim=True)
        bits = _bits(weights.amax((0, 1)))
        return torch.floor(weights * 2.0**bits + 0.5), bits


def _bicubic(distance: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Keys' cubic with a = -1/2 at distance / (2·unit)."""
    x = torch.abs(distance) / (2 * unit)
    near = (1.0 - x) * ((1.0 + x) - 1.5 * x * x)
    far = 0.5 * (1.0 - x) * (2.0 - x) * (2.0 - x)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _bits(largest: torch.Tensor) -> torch.Tensor:
    """The p of `data.resize`: how many bits after the point the weights of an axis have."""
    powers = 2.0 ** torch.arange(1, 23, dtype=torch.float64, device=largest.device)
    return (largest * powers < LARGEST).float().sum()


def _weighted(x: torch.Tensor, weights: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Rounded and clipped weighted sums over the last axis: N×3×R×L and K×L whole weights of 2⁻ᵇⁱᵗˢ → N×3×R×K."""
    weights, bits = weights.to(x.dtype), bits.to(x.dtype)  # whole numbers, which both hold exactly
    high = torch.floor(weights / DIGIT)
    low = weights - high * DIGIT
    carried = torch.floor(torch.matmul(x, low.t()) / DIGIT)
    total = torch.matmul(x, high.t()) + carried + 2.0 ** (bits - 9)
    return torch.clamp(torch.floor(total / 2.0 ** (bits - 8)), 0.0, 255.0)

"""Several networks as one: the mean of their probabilities (SPEC E1).

An ensemble is saved, loaded, judged and exported like any other network. Its results are logarithms of the mean
probabilities, so that the softmax of what it returns is that mean, and a temperature calibrates it as it does logits.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from wellfit.errors import UserError


class Ensemble(nn.Module):
    """N×3×S×S → N×C: log Σ sᵢ·softmax(memberᵢ(x)).

    members: networks of the same classes. shares: how much each counts, positive; they are divided by their sum.
    entrances: what makes each member's input of the ensemble's; None: it takes the same.
    """

    def __init__(
        self, members: Sequence[nn.Module], shares: Sequence[float], entrances: Sequence[Entrance | None] | None = None
    ) -> None:
        super().__init__()
        entrances = entrances or [None] * len(members)
        if not members or not len(members) == len(shares) == len(entrances) or min(shares) <= 0:
            raise UserError(
                f"an ensemble takes one positive share a member, got {len(members)} members and the shares "
                f"{list(shares)}; leave a member out where its share is 0"
            )
        self.members = nn.ModuleList(members)
        self.entrances = nn.ModuleList(entrance or nn.Identity() for entrance in entrances)
        self.logs = [math.log(share / sum(shares)) for share in shares]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answers = [
            torch.log_softmax(member(entrance(x)).float(), dim=1) + log
            for member, entrance, log in zip(self.members, self.entrances, self.logs, strict=True)
        ]
        return torch.logsumexp(torch.stack(answers), dim=0)


class Entrance(nn.Module):
    """From the ensemble's input to a member's, where their preprocessing differs.

    view: side in pixels of the ensemble's input. size: of the member's. crop: side of the centre square that the member
    sees, as a share of the ensemble's view; it is resampled by a triangle filter (bilinear, antialiased). scale, shift:
    three numbers each, x·scale + shift, which turns one mean and deviation into another.
    """

    def __init__(
        self,
        view: int,
        size: int,
        crop: float = 1.0,
        scale: Sequence[float] = (1.0, 1.0, 1.0),
        shift: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        super().__init__()
        weights = resampling(view, size, crop) if (view, crop) != (size, 1.0) else None
        self.rows: torch.Tensor | None
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("rows", weights, persistent=False)
        self.register_buffer("scale", torch.tensor(list(scale)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(list(shift)).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rows is not None:
            # Autocast would round pixels and weights to 8 bits of mantissa.
            mixed = torch.is_autocast_enabled(x.device.type)
            with torch.autocast(x.device.type, enabled=False) if mixed else contextlib.nullcontext():
                x = torch.matmul(torch.matmul(self.rows, x.float()), self.rows.t())
        return x * self.scale + self.shift


def resampling(view: int, size: int, crop: float = 1.0) -> torch.Tensor:
    """size×view weights, rows summing to 1: the centre `crop` of `view` pixels brought to `size` pixels."""
    if not 0 < crop <= 1:
        raise UserError(
            f"a member sees a share between 0 and 1 of the ensemble's view, got {crop:g}; give such a share"
        )
    side = view * crop
    step = side / size
    places = (view - side) / 2 + (torch.arange(size, dtype=torch.float64) + 0.5) * step
    distance = (torch.arange(view, dtype=torch.float64)[None] + 0.5 - places[:, None]).abs()
    weights = torch.clamp(1 - distance / max(1.0, step), min=0.0)
    return (weights / weights.sum(1, keepdim=True)).float()


def entrance_of(member: Mapping[str, Any], view: int) -> Entrance | None:
    """The entrance that a member's entry in the model card describes; None where it takes the ensemble's input."""
    described = {key: member[key] for key in ("crop", "scale", "shift") if key in member}
    if not described and member["image_size"] == view:
        return None
    return Entrance(view, int(member["image_size"]), **described)

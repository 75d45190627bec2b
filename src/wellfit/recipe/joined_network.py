"""One network of several that were trained by themselves: the mean of their probabilities (SPEC E1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from wellfit.engine import Engine
from wellfit.models.ensemble import Ensemble, entrance_of
from wellfit.models.zoo import Built


@dataclass(frozen=True)
class Part:
    """A member to be: its network, and what builds it anew.

    image_size: of its own input, in pixels. way: how it gets that from the ensemble's, as `common_view` says; empty
    where it takes the same.
    """

    module: nn.Module
    name: str
    options: dict[str, Any]
    image_size: int
    way: dict[str, Any]
    licence: str | None
    source: str | None


def joined(parts: Sequence[Part], shares: Sequence[float], view: int, engine: Engine) -> Built:
    """The ensemble on its engine, the members' licences and sources named together. view: side of its input, pixels."""
    described = [
        {"name": part.name, "options": part.options, "image_size": part.image_size, **part.way} for part in parts
    ]
    options: dict[str, Any] = {"members": described, "shares": [round(share, 6) for share in shares]}
    entrances = [entrance_of(each, view) for each in described]
    module = engine.place(Ensemble([part.module for part in parts], options["shares"], entrances).eval())
    licence = "; ".join(sorted({part.licence for part in parts if part.licence})) or None
    source = "; ".join(sorted({part.source for part in parts if part.source})) or None
    return Built(module, "ensemble", options, licence=licence, source=source)

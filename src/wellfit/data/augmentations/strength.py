"""One number for how much a training augments: what a search varies (SPEC S2, R5)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from wellfit.data.augmentations.table import AUGMENTATIONS, Chosen, parse
from wellfit.errors import UserError

BEYOND = "randaugment"
"""What is added above 1 where nothing that was asked for has a strength: its magnitude is the usual measure of how much
is augmented (RandAugment, Cubuk et al. 2020)."""

NOT_SCALED = "crop"
"""How far images are shifted is no measure of how much is augmented, and random views have no shift."""


def at_strength(names: Iterable[str], strength: float) -> tuple[str, ...]:
    """The augmentations `names`, as a configuration writes them, at `strength` ≥ 0 times what they ask for.

    0: none; 1: as they stand. Numbers are scaled, up to the end of their range; what has no number (flip, crop, a
    policy, a user's own) stays as it stands at any strength above 0, and so does crop with one. Where nothing else has
    a number, "randaugment" of magnitude 9 · (strength - 1) is added above 1. Raises UserError.

    >>> at_strength(["flip", "rotate=10"], 0.5)
    ('flip', 'rotate=5')
    >>> at_strength(["flip", "crop"], 2)
    ('flip', 'crop', 'randaugment=9')
    """
    if not (math.isfinite(strength) and strength >= 0):
        raise UserError(f"the strength of augmentation is a number of at least 0, got {strength}; 1 is as configured")
    if strength == 0:
        return ()
    chosen = [(text, parse(text)) for text in names]
    if strength == 1:
        return tuple(text for text, _ in chosen)
    numbers = [_number(c) for _, c in chosen]
    scaled = [
        text if number is None else _scaled(c.name, number * strength)
        for (text, c), number in zip(chosen, numbers, strict=True)
    ]
    usual = AUGMENTATIONS[BEYOND].strength
    if strength > 1 and isinstance(usual, float) and all(number is None for number in numbers):
        scaled.append(_scaled(BEYOND, usual * (strength - 1)))
    return tuple(scaled)


def _number(chosen: Chosen) -> float | None:
    """The strength that is scaled; None where there is none."""
    return chosen.strength if isinstance(chosen.strength, float) and chosen.name != NOT_SCALED else None


def _scaled(name: str, value: float) -> str:
    return f"{name}={min(value, AUGMENTATIONS[name].high):.6g}"

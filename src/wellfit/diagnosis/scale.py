"""Whether the numbers that enter a network's first layer are of the usual scale: one set of limits for all who ask."""

from __future__ import annotations

import math

# The root mean square of images in [0, 1] or of standard deviation 1 stays far below the first; raw bytes reach 255.
LARGE = 4.0
SMALL = 0.01
# Means beyond so many standard deviations: what is left of the differences between images is small beside the offset.
OFF_CENTRE = 6.0


def is_large(mean: float, std: float) -> bool:
    return math.hypot(mean, std) > LARGE


def is_small(std: float) -> bool:
    return std < SMALL


def is_off_centre(mean: float, std: float) -> bool:
    return abs(mean) > OFF_CENTRE * std


def is_unusual(mean: float, std: float) -> bool:
    """Whether numbers of this mean and standard deviation are too large, too small or too far to one side (SPEC D3)."""
    return is_large(mean, std) or is_small(std) or is_off_centre(mean, std)

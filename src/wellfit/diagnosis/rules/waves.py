"""Shapes that come again in a curve: cycles of one length, and climbs."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis.history import Floats

# Periods that are tried, and rounds that are needed.
PERIODS, ROUNDS = 64, 5
# Steps over which a median is taken.
NEAR = 7
# A climb of which one step makes such a share was made at once.
MOST_AT_ONCE = 0.7


def best_cycle(loss: Floats, epochs: set[int]) -> tuple[Floats, float]:
    """The mean loss at each place of the cycle that explains most, and by how much more than chance would.

    epochs: steps of an epoch; what comes again after one is a fixed order. An analysis of variance by place, of what a
    parabola leaves; its F has about the deviation √(2/f₁ + 2/f₂).
    """
    x = np.linspace(-1, 1, len(loss))
    rest = loss - np.polynomial.polynomial.polyval(x, np.polynomial.polynomial.polyfit(x, loss, 2))
    best, strongest = np.empty(0), 0.0
    for period in range(2, min(PERIODS, len(loss) // ROUNDS) + 1):
        if any(period % steps == 0 for steps in epochs if steps):
            continue
        rounds = len(loss) // period
        table = rest[len(loss) - rounds * period :].reshape(rounds, period)
        free, left = period - 1, period * (rounds - 1)
        means = table.mean(0)
        within = float(((table - means) ** 2).sum()) / left
        f = rounds * float((means**2).sum()) / free / within if within > 0 else 0.0
        strength = (f - 1) / np.sqrt(2 / free + 2 / left)
        if strength > strongest:
            best, strongest = loss.mean() + means, float(strength)
    return best, strongest


def climbs_of(curve: Floats, height: float) -> list[tuple[int, int]]:
    """Where a curve that had come down by so much had climbed by as much from its lowest; each with the place where the
    climb before had ended, or the start."""
    found: list[tuple[int, int]] = []
    turned, before, falling = curve[0], 0, False
    for place, value in enumerate(curve.tolist()):
        turned = min(turned, value) if falling else max(turned, value)
        if falling and value >= turned + height:
            found.append((before, place))
            falling, turned, before = False, value, place
        elif not falling and value <= turned - height:
            falling, turned = True, value
    return found


def at_once(middle: Floats, near: Floats, climb: tuple[int, int]) -> bool:
    """Whether a climb was made from one step to the next, as where another task begins.

    middle, near: medians of seven and of three steps, each by its first one.
    """
    begun, ended = climb
    top = middle[ended : ended + NEAR].max()
    whole = float(top - middle[begun : ended + 1].min())
    # A median of three steps before, and of the three after.
    part = near[begun : ended + 2 * NEAR]
    return len(part) > 3 and float(np.max(part[3:] - part[:-3])) > MOST_AT_ONCE * whole

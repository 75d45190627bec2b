"""Figure data of activation statistics: plain dataclasses; nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Histogram:
    """One layer's activations: the share of entries in each of equal bins from `low` to `high`, with mean and std.

    gradient_std: standard deviation of the loss's gradient by these entries; None where it was not taken.
    """

    name: str
    low: float
    high: float
    shares: NDArray[np.float64]
    mean: float
    std: float
    gradient_std: float | None = None

    @property
    def edges(self) -> NDArray[np.float64]:
        """The ends of the bins, one more than there are bins."""
        return np.linspace(self.low, self.high, len(self.shares) + 1)

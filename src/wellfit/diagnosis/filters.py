"""The filters of a network's first convolution, to be looked at (SPEC C11)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

MOST = 256
LARGEST = 32  # pixels a side; beyond it the weights of a patch say little to the eye


def first_filters(model: nn.Module) -> NDArray[np.float32] | None:
    """float32 K×channels×h×w weights of the first convolution, up to 256 of them; on grey or RGB inputs.

    None where the network has none, where it does not look at one or three channels, or where its filters are 1×1 or
    larger than 32×32. Grouped convolutions see a part of the channels and are left out too.
    """
    first = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first.groups != 1 or first.in_channels not in (1, 3):
        return None
    if not 1 < max(first.kernel_size) <= LARGEST:
        return None
    weights: NDArray[np.float32] = first.weight.detach()[:MOST].float().cpu().numpy()
    return weights if np.isfinite(weights).all() else None

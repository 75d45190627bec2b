"""Centring and scaling with the training split's own figures (SPEC D1, D2, D3).

The figures are computed on training images only, stored with the model, and applied again at
prediction and inside the exported model: one object from the first step to the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from wellfit.config import PREPROCESSINGS
from wellfit.errors import unknown_name

if TYPE_CHECKING:
    import torch

    from wellfit.data.store import PixelStore

COUNTED_PIXELS = 2**20  # counted together; the counting takes 8 bytes a pixel


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become network input: x = (pixel / 255 − mean) / std, on a square view.

    size: side of the network's input in pixels.
    resize: short side that an image is brought to before its centre `size`×`size` is taken.
    mean, std: per channel, in units of 0-1; std is 1 for the centring-only methods.
    mean_image: size×size×3 in units of 0-1, for "mean-image" (AlexNet) only.
    """

    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    method: str = "standardise"
    mean_image: np.ndarray | None = None

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 N×3×S×S in 0-255 → float32 N×3×S×S, on the tensor's own device and in its layout."""
        import torch

        if self.mean_image is not None:
            centre = torch.as_tensor(self.mean_image, dtype=torch.float32, device=pixels.device).permute(2, 0, 1)
            return pixels.float().div_(255.0).sub_(centre)
        scale, shift = _affine(self.mean, self.std, pixels.device)
        return torch.addcmul(shift, pixels.float(), scale)

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable; `from_dict` gives the object back."""
        image = None if self.mean_image is None else self.mean_image.tolist()
        return {
            "size": self.size,
            "resize": self.resize,
            "mean": list(self.mean),
            "std": list(self.std),
            "method": self.method,
            "mean_image": image,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        image = values.get("mean_image")
        return cls(
            size=int(values["size"]),
            resize=int(values["resize"]),
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            method=values.get("method", "standardise"),
            mean_image=None if image is None else np.asarray(image, dtype=np.float32),
        )


@lru_cache(maxsize=64)
def _affine(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift of x = pixel · scale + shift, 1×3×1×1; made once: a GPU is waited for at each copy to it."""
    import torch

    with torch.inference_mode(False):
        scale = torch.tensor([1 / (255.0 * s) for s in std], device=device).view(1, -1, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, -1, 1, 1)
    return scale, shift


def fit_preprocessing(
    store: PixelStore, rows: np.ndarray, *, size: int, resize: int | None = None, method: str = "standardise"
) -> Preprocessing:
    """Compute the figures over the given store rows, which must be the training split's.

    Raises UserError for an unknown method. Sums are taken in integers, so the result does not
    depend on the order of the rows.
    """
    if method not in PREPROCESSINGS:
        raise unknown_name("preprocessing", method, PREPROCESSINGS)
    resize = resize or size
    if method == "mean-image":
        from wellfit.data.views import evaluation_view

        total = np.zeros((size, size, 3), dtype=np.int64)
        for row in rows:
            total += evaluation_view(store.image(int(row)), resize, size)
        image = (total / (255.0 * len(rows))).astype(np.float32)
        return Preprocessing(size, resize, tuple(image.mean((0, 1)).tolist()), (1.0,) * 3, method, image)
    mean, std = channel_statistics(store, rows)
    if method == "channel-mean":
        std = np.ones(3)
    return Preprocessing(size, resize, tuple(mean.tolist()), tuple(std.tolist()), method)


def channel_statistics(store: PixelStore, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over all pixels of the rows, in units of 0-1.

    A channel that never varies gets std 1, so that it is centred and not divided by zero.
    """
    count, total, squares = 0, np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    values = np.arange(256, dtype=np.int64)
    uniform = store.uniform()
    rows = np.asarray(rows)
    chunks: Iterable[np.ndarray] = rows
    if uniform is not None:
        images = max(1, COUNTED_PIXELS // (uniform.shape[1] * uniform.shape[2]))
        chunks = np.split(rows, range(images, len(rows), images))
    for chunk in chunks:
        pixels = (uniform[np.sort(chunk)] if uniform is not None else store.image(int(chunk))).reshape(-1, 3)
        count += len(pixels)
        for channel in range(3):
            histogram = np.bincount(pixels[:, channel], minlength=256)
            total[channel] += int(histogram @ values)
            squares[channel] += int(histogram @ values**2)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return mean / 255.0, np.where(std > 0, std / 255.0, 1.0)

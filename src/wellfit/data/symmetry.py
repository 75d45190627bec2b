"""Whether mirroring keeps an image's class: measured on the data, so that "flip" need not be guessed."""

from __future__ import annotations

import numpy as np

from wellfit.randomness import generator


def mirror_agreement(
    thumbnails: np.ndarray, targets: np.ndarray, *, seed: int, queries: int = 1000, references: int = 4000
) -> tuple[float, float]:
    """Nearest-neighbour accuracy of plain and of mirrored thumbnails: (plain, mirrored).

    thumbnails: N×16×16×3 uint8 of training images. Where mirroring changes the class (digits, letters,
    traffic signs) the mirrored images find neighbours of other classes and the second figure falls.
    """
    order = generator(seed, "mirror-agreement").permutation(len(targets))
    asked = order[: min(queries, max(1, len(order) // 3))]
    known = order[len(asked) : len(asked) + references]
    if not len(known):
        return 0.0, 0.0
    reference = thumbnails[known].reshape(len(known), -1).astype(np.float32)
    squares = (reference**2).sum(1)

    def accuracy(images: np.ndarray) -> float:
        flat = images.reshape(len(images), -1).astype(np.float32)
        nearest = (squares - 2.0 * flat @ reference.T).argmin(1)
        return float((targets[known][nearest] == targets[asked]).mean())

    return accuracy(thumbnails[asked]), accuracy(thumbnails[asked][:, :, ::-1])


def mirror_is_safe(plain: float, mirrored: float, classes: int) -> bool:
    """True when the mirrored images keep at least nine tenths of the agreement above chance."""
    chance = 1.0 / classes
    return mirrored - chance >= 0.9 * (plain - chance)

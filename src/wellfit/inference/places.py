"""Test-time views as an exported graph cuts them: shares of an image's sides, since its size is not known beforehand.

The same views as `inference.views.VIEWS` by their names; there a layout is a function of the image's size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wellfit.inference.views import CORNERS, MOVED, SCALES

MIDDLE, ENDS = 0.5, ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))


@dataclass(frozen=True)
class Place:
    """A square. share: its side, of the image's short side, in (0, 1]; down, across: where it lies between the two ends
    of each axis, 0 to 1; moved: further down and across by so much of its side, over the edge if need be.
    """

    share: float
    down: float = MIDDLE
    across: float = MIDDLE
    moved: float = 0.0


def _centre(resize: int, size: int) -> list[Place]:
    return [Place(size / resize)]


def _moved(resize: int, size: int) -> list[Place]:
    return [Place(size / resize, moved=by) for by in (0.0, -MOVED, MOVED)]


def _five_at(scale: float) -> list[Place]:
    return [Place(1 / scale, down, across) for down, across in (*ENDS, (MIDDLE, MIDDLE))]


def _five(resize: int, size: int) -> list[Place]:
    return _five_at(max(resize / size, CORNERS))


def _all(resize: int, size: int) -> list[Place]:
    return [place for scale in SCALES for place in _five_at(scale)]


# By the name of the views, without the mirror images of those that have them.
PLACES: dict[str, Callable[[int, int], list[Place]]] = {
    "none": _centre,
    "flip": _centre,
    "shift": _moved,
    "five": _five,
    "shift-flip": _moved,
    "ten": _five,
    "all": _all,
}

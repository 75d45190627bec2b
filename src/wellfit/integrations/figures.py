"""Finds an epoch's losses and accuracies among the figures that a trainer logged."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from wellfit.errors import UserError, unknown_name

FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
SIDES = {"train": {"train", "training"}, "val": {"val", "valid", "validation", "eval"}}
KINDS: dict[str, set[tuple[str, ...]]] = {
    "loss": {("loss",)},
    "accuracy": {("acc",), ("accuracy",), ("top1",), ("acc1",), ("multiclassaccuracy",), ("acc", "top1")},
}
# Words that say when a figure was taken, not what it is.
IDLE = {"epoch", "dataloader", "idx", "0"}


class EpochFigures:
    """Reads `train_loss`, `train_accuracy`, `val_loss` and `val_accuracy` off logged figures.

    names: which logged name each of them has; those not given are guessed: `val_acc`, `valid/accuracy`, `eval_loss`…
    UserError for a key that is none of the four.
    """

    def __init__(self, names: Mapping[str, str] | None, logger: logging.Logger) -> None:
        for key in names or {}:
            if key not in FIGURES:
                raise unknown_name("epoch figure", key, FIGURES)
        if any(not isinstance(name, str) for name in (names or {}).values()):
            raise UserError(
                f"figures maps an epoch figure to the name it is logged by, as in {{'val_accuracy': 'val_f1'}}, "
                f"got {dict(names or {})}; give names"
            )
        self._names = dict(names or {})
        self._logger = logger
        self._complained: set[str] = set()

    def read(self, logged: Mapping[str, Any], sides: set[str]) -> dict[str, float]:
        """The figures of the sides ("train", "val") among what was logged; accuracies only as shares in [0, 1]."""
        found: dict[str, float] = {}
        for figure in FIGURES:
            side, _, kind = figure.partition("_")
            if side not in sides:
                continue
            name = self._names.get(figure) or _guess(side, kind, logged)
            if name is None:
                continue
            if name not in logged:
                known = ", ".join(sorted(logged)) or "nothing"
                self._complain(figure, f"{figure} is to be '{name}', which was not logged; logged: {known}")
                continue
            value = float(logged[name])
            if kind == "accuracy" and not 0 <= value <= 1:
                if not math.isnan(value):
                    self._complain(figure, f"'{name}' is {value:g}, no share between 0 and 1; log it as a share")
                continue
            found[figure] = value
        return found

    def _complain(self, figure: str, sentence: str) -> None:
        if figure not in self._complained:
            self._complained.add(figure)
            self._logger.warning("%s; what needs %s is not judged", sentence, figure)


def _guess(side: str, kind: str, logged: Mapping[str, Any]) -> str | None:
    """The shortest logged name that says both the side and the kind, and nothing else."""
    for name in sorted(logged, key=lambda n: (len(n), n)):
        words = [w for w in re.split(r"[^a-z0-9]+", name.lower()) if w and w not in IDLE]
        if words and words[0] in SIDES[side] and tuple(words[1:]) in KINDS[kind]:
            return name
    return None

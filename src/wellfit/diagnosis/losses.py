"""The loss of every step, brought from an accelerator in groups: a step waits for none."""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from wellfit.diagnosis.arguments import as_number

# Losses that may wait on an accelerator before one transfer brings them all.
WAITING = 64


class LossRow:
    """Losses in `values`, and those that still wait where they were computed."""

    def __init__(self) -> None:
        self.values = array("d")
        self._waiting: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.values) + len(self._waiting)

    def add(self, loss: float | Tensor) -> None:
        if isinstance(loss, Tensor) and loss.device.type != "cpu":
            self._waiting.append(loss.detach().reshape(()).clone())
            if len(self._waiting) >= WAITING:
                self.bring()
        else:
            self.bring()
            self.values.append(as_number(loss))

    def bring(self) -> None:
        """Have all of them in `values`."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self.values.extend(torch.stack(waiting).double().cpu().tolist())

    def go_on(self, values: array[float]) -> None:
        """Put those of an earlier watch in place of all."""
        self.values, self._waiting = values, []

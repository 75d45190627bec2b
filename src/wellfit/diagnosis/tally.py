"""Counts at every step how often each class came, was answered and was answered rightly: a class of which a watched
step shows no image comes between them."""

from __future__ import annotations

import torch
from torch import Tensor

from wellfit.diagnosis.history import Tally

# Larger tables of answers than this many entries are not counted at every step.
ENTRIES = 1 << 16


class TallyWatch:
    """Adds up on the device of the answers, without waiting for it, until `collect` brings the counts."""

    def __init__(self) -> None:
        self._counts: Tensor | None = None

    def add(self, answers: Tensor, targets: Tensor) -> None:
        """answers (N, C); targets (N,) class numbers, of which those outside 0 to C − 1 do not count, or shares (N, C).

        Counts begin anew where the number of classes changes.
        """
        if answers.numel() > ENTRIES:
            self._counts = None
            return
        classes = torch.arange(answers.shape[1], device=answers.device)
        wanted = targets.detach().to(answers.device, non_blocking=True)
        true = (wanted.argmax(1) if wanted.ndim == 2 else wanted)[:, None] == classes
        said = (answers.argmax(1)[:, None] == classes) & true.any(1, keepdim=True)
        counts = torch.stack([true.sum(0), said.sum(0), (true & said).sum(0)])
        same = self._counts is not None and self._counts.shape == counts.shape
        self._counts = self._counts.to(counts.device) + counts if same and self._counts is not None else counts

    def collect(self) -> Tally | None:
        """The counts since the last call; None without any."""
        counts, self._counts = self._counts, None
        return None if counts is None else Tally(*counts.cpu().numpy())

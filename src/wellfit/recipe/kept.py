"""Weights that a run sets aside while it trains: what averages and ensembles are made of.

They lie beside the checkpoint, one file each, and go with it at the run's end. A training that is taken up again writes
the same files anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wellfit.recipe.job import Job
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class Kept:
    """One network's weights. kind: "best", "snapshot" or "average"; name: what it is called before people."""

    name: str
    kind: str
    path: Path

    def weights(self) -> dict[str, torch.Tensor]:
        """By name, on the CPU; OSError where the file is gone."""
        state = load_checkpoint(self.path)
        if state is None:
            raise FileNotFoundError(self.path)
        weights: dict[str, torch.Tensor] = state["weights"]
        return weights

    @property
    def about(self) -> dict[str, Any]:
        """Numbers and text that were kept beside the weights."""
        about: dict[str, Any] = (load_checkpoint(self.path) or {})["about"]
        return about


def place_of(job: Job, file: str) -> Path:
    """Where weights of that name are set aside."""
    return job.folder.checkpoint.parent / "members" / f"{file}.safetensors"


def set_aside(path: Path, module: nn.Module, **about: Any) -> None:
    """Write a module's weights; UserError on a full disk."""
    weights = {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}
    save_checkpoint(path, {"weights": weights, "about": about})

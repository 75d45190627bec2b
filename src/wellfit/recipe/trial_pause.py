"""Where a stopped trial left off, so that it goes on there when the search is taken up: the same bytes as unstopped.

trials/N/paused.safetensors   the training's own checkpoint
trials/N/paused.json          what belongs to it: the curve so far, the runs that are done, what they took
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wellfit.errors import UserError
from wellfit.recipe.trial_curve import Curve, OneRun
from wellfit.record import write_atomically
from wellfit.training.checkpoint import load_checkpoint


@dataclass(frozen=True)
class Paused:
    """A trial that was stopped. batch_size: 0 where none was. step: of the run that was under way; done: those before.

    steps, epochs: the curve of the run that was under way. seconds, judging: taken so far, by all and by its scores.
    """

    batch_size: int = 0
    step: int = 0
    notes: list[str] = field(default_factory=list)
    done: list[OneRun] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    judging: float = 0.0


class Pause:
    """The two files in a trial's folder."""

    def __init__(self, folder: Path) -> None:
        self.state, self._rest = folder / "paused.safetensors", folder / "paused.json"

    def read(self) -> Paused:
        """What was kept; nothing where the files are missing, damaged, or of different moments."""
        try:
            values = json.loads(self._rest.read_text(encoding="utf-8"))
            state = load_checkpoint(self.state)
            if state is not None and state["step"] == values["step"]:
                done = [OneRun(**{**run, "curve": Curve(**run["curve"])}) for run in values["done"]]
                return Paused(**{**values, "done": done})
        except (OSError, ValueError, TypeError, KeyError, UserError):
            pass
        self.forget()
        return Paused()

    def keep(self, paused: Paused) -> None:
        """Write what belongs to the checkpoint that the training has written."""
        write_atomically(self._rest, json.dumps(asdict(paused)))

    def add_seconds(self, seconds: float) -> None:
        """Say what the trial has taken in all, where it was kept."""
        if self._rest.exists() and math.isfinite(seconds):
            self.keep(replace(self.read(), seconds=seconds))

    def forget(self) -> None:
        """The trial has ended, or begins anew."""
        for file in (self.state, self._rest):
            with suppress(OSError):
                file.unlink(missing_ok=True)
        with suppress(OSError):
            self.state.parent.rmdir()  # a trial that keeps nothing leaves no folder

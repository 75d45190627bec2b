"""A monitor's life within someone else's trainer: what the adapters share."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from wellfit.diagnosis.monitor import Monitor
from wellfit.errors import UserError
from wellfit.findings import SEVERITIES, Finding
from wellfit.integrations.batches import RunningAccuracy, fits, labels_of, mean_of
from wellfit.integrations.figures import EpochFigures

LOGGER = logging.getLogger("wellfit.doctor")
# Findings are looked for after so many steps first, then whenever the run has grown by a tenth, and after each epoch.
FIRST_LOOK = 10


class Doctor:
    """Feeds a `wellfit.Monitor` and says each finding once, in words, to the logger "wellfit.doctor".

    classes, every: as of `wellfit.Monitor`. report: file that the report is written to at the end.
    stop_on: severity at which the training is to stop: "warning" or "error"; None: never.
    figures: names of the epoch figures; targets: batch → labels; both are guessed where not given.
    """

    def __init__(
        self,
        *,
        classes: int | None = None,
        every: int = 10,
        report: str | Path | None = None,
        stop_on: str | None = None,
        figures: Mapping[str, str] | None = None,
        targets: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if stop_on is not None and stop_on not in SEVERITIES[1:]:
            raise UserError(f"stop_on is 'warning' or 'error', got {stop_on!r}; leave it out to go on in any case")
        if targets is not None and not callable(targets):
            raise UserError(
                f"targets is a function of a batch, got {type(targets).__name__}; pass e.g. lambda batch: batch[1]"
            )
        self.report = _writable(report)
        self.monitor: Monitor | None = None
        self.watching = False
        self.speaks = True
        self.epochs = EpochFigures(figures, LOGGER)
        self.stop = False
        self._classes, self._every, self._stop_on, self._targets = classes, every, stop_on, targets
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._state: Mapping[str, Any] | None = None
        self._said: set[str] = set()
        self._losses: list[Tensor | float] = []
        self._labels: Tensor | None = None
        self._right = RunningAccuracy()
        self._no_labels = False
        self._lost = 0
        self._look_at = FIRST_LOOK
        self.stop = False

    @property
    def may_stop(self) -> bool:
        """Whether there are findings at which the training is to stop."""
        return self._stop_on is not None

    @property
    def findings(self) -> list[Finding]:
        """What is wrong so far, root cause first; [] before the first step."""
        return self.monitor.findings() if self.monitor is not None and self.monitor.steps else []

    @property
    def unjudged(self) -> dict[str, str]:
        """By finding id, what was lacking to judge it; {} before a training began."""
        return self.monitor.unjudged if self.monitor is not None else {}

    def begin(self, model: nn.Module, optimizers: Optimizer | Iterable[Optimizer], *, speaks: bool = True) -> None:
        """A training begins. speaks: whether this process logs and reports, of several that train together."""
        self.end()
        state = self._state
        self._begin_anew()
        self.speaks = speaks
        self.monitor = Monitor(model, optimizers, classes=self._classes, every=self._every)
        self.watching = True
        if state is not None:
            self._go_on(state)

    def note(self, loss: Tensor | float | None, batch: Any) -> None:
        """A batch has been passed forward and backward; loss: its own, of the mean over its images."""
        if self.monitor is None:
            return
        if loss is not None:
            self._losses.append(loss.detach().mean() if isinstance(loss, Tensor) else loss)
        self._labels = None
        if self._no_labels:
            return
        answers = self.monitor.answers
        labels = self._targets(batch) if self._targets is not None else labels_of(batch)
        if labels is None or (self._targets is None and not any(fits(labels, t) for t in self.monitor.tables)):
            return
        self._labels = labels
        if answers is not None and len(labels) == len(answers):
            self._right.add(answers, labels)

    def step(self) -> bool:
        """The optimizer has stepped, or a gradient scaler has kept it from it. Returns whether it was judged now."""
        losses, self._losses = self._losses, []
        if self.monitor is None or not losses:
            return False
        loss = mean_of(losses)
        if not self.monitor.stepped:
            # Overflow at the scaler's first guesses says nothing; a loss that is itself lost does.
            if math.isfinite(float(loss)) or self._lost:
                return False
            self._lost += 1
        try:
            self.monitor.step(loss, targets=self._labels)
        except UserError as error:
            if self._targets is not None or self._labels is None:
                raise
            # The labels were a guess: without them there is less to judge, and the training goes on.
            self._no_labels = True
            self._right = RunningAccuracy()
            if self.speaks:
                LOGGER.warning("the batch's labels are left out: %s", error)
            self.monitor.step(loss)
        if self.monitor.no_targets and not self._no_labels:
            self._no_labels = True
            self._right = RunningAccuracy()
            if self.speaks:
                LOGGER.warning("the batch's labels are left out, which want to be %s", self.monitor.no_targets)
        if self.monitor.steps < self._look_at:
            return False
        self.look()
        return True

    def end_epoch(self, logged: Mapping[str, Any], sides: set[str]) -> None:
        """An epoch or a validation is over; sides: "train" and "val", as far as their figures are of it."""
        if self.monitor is None or not self.monitor.steps:
            return
        found = self.epochs.read(logged, sides)
        right = self._right.take() if "train" in sides else None
        if right is not None:
            found.setdefault("train_accuracy", right)
        self.monitor.end_epoch(**found)
        self.look()

    def look(self) -> None:
        """Judge now, and say what is new."""
        if self.monitor is None or not self.monitor.steps:
            return
        steps = self.monitor.steps
        self._look_at = steps + max(FIRST_LOOK, steps // 10)
        for finding in self.monitor.findings():
            key = f"{finding.severity} {finding.id}"
            if key not in self._said:
                self._said.add(key)
                if self.speaks:
                    level = logging.INFO if finding.severity == "info" else logging.WARNING
                    LOGGER.log(level, "after %d steps: %s", steps, finding)
            if self._stop_on and SEVERITIES.index(finding.severity) >= SEVERITIES.index(self._stop_on):
                self.stop = True

    def end(self) -> None:
        """The training is over, at its end or before: let go of the model, and write the report."""
        if not self.watching or self.monitor is None:
            return
        self.watching = False
        self.look()
        self.monitor.close()
        if self.report is None or not self.speaks or not self.monitor.steps:
            return
        try:
            self.monitor.report(self.report)
            LOGGER.info("the report is in %s", self.report)
        except UserError as error:  # what was trained is worth more than the page about it
            LOGGER.error("%s", error)

    def state_dict(self) -> dict[str, Any]:
        """What was seen and said, for a checkpoint; {} before a training began."""
        if self.monitor is None:
            return {}
        return {"monitor": self.monitor.state_dict(), "said": sorted(self._said)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state: at once, or with the next training."""
        if self.monitor is not None and self.watching:
            self._go_on(state)
        else:
            self._state = state

    def _go_on(self, state: Mapping[str, Any]) -> None:
        assert self.monitor is not None
        try:
            self.monitor.load_state_dict(state["monitor"])
            self._said = set(state["said"])
        except (UserError, KeyError) as error:
            if self.speaks:
                LOGGER.warning("the doctor begins anew, without what the checkpoint says was seen: %s", error)
        self._look_at = self.monitor.steps + FIRST_LOOK


def _writable(report: str | Path | None) -> Path | None:
    """Refuse at the start what could not be written at the end."""
    if report is None:
        return None
    path = Path(report)
    if path.is_dir():
        raise UserError(f"the report is a file, but '{path}' is a folder; name one in it: '{path / 'doctor.html'}'")
    return path

"""The doctor as a callback of Lightning 2: `lightning.pytorch` and `pytorch_lightning` alike.

from wellfit.integrations.lightning import DoctorCallback
doctor = DoctorCallback(report="doctor.html")
Trainer(callbacks=[doctor]).fit(model, data)
for finding in doctor.findings: print(finding)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from wellfit.diagnosis.monitor import Monitor
from wellfit.findings import Finding
from wellfit.integrations.doctor import Doctor
from wellfit.integrations.missing import missing


def _callback() -> type:
    """Lightning's Callback; of both packages where both are installed, since either's Trainer may be the user's."""
    found = [
        import_module(name).Callback
        for name in ("lightning.pytorch", "pytorch_lightning")
        if find_spec(name.partition(".")[0]) is not None
    ]
    if not found:
        raise missing("wellfit.integrations.lightning", "Lightning", "lightning")
    return found[0] if len(found) == 1 else type("Callback", tuple(found), {})


if TYPE_CHECKING:

    class Callback:
        state_key: str

else:
    Callback = _callback()


class DoctorCallback(Callback):
    """Watches a Lightning training with `wellfit.Monitor`, and says in words what is wrong, once each, as it arises.

    classes: number of classes; taken from the outputs when not given. every: of so many steps one is watched.
    report: HTML file that is written when the training ends, also after an error or Ctrl-C.
    stop_on: "warning" or "error" asks the trainer to stop once there is such a finding; None: never.
    figures: the names by which the module logs `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy`; names like
        `val_acc` or `valid/loss` are found without. A training accuracy that is not logged is counted on the way.
    targets: batch → labels (N,), where the batch is neither (inputs, labels) nor a mapping with "labels" or "target".

    Automatic and manual optimization, several optimizers, accumulation and mixed precision are seen as they are; the
    sanity check is not the training's, and `trainer.validate` alone is not watched. The monitor's memory goes into
    checkpoints and comes back when a training goes on from one. Of several processes the first one speaks, about its
    own share of the images. UserError for settings that cannot be, and for a training without an optimizer.
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
        super().__init__()
        self._doctor = Doctor(
            classes=classes, every=every, report=report, stop_on=stop_on, figures=figures, targets=targets
        )
        self._losses: list[Tensor] = []
        self._trained = self._validated = False
        # Of an epoch that a checkpoint was written in the middle of ending: which sides of it are over, and figures.
        self._open: dict[str, Any] = {}
        self._logged: dict[str, float] = {}

    @property
    def findings(self) -> list[Finding]:
        """What is wrong so far, root cause first; [] before the first step."""
        return self._doctor.findings

    @property
    def unjudged(self) -> dict[str, str]:
        """By finding id, what was lacking to judge it."""
        return self._doctor.unjudged

    @property
    def monitor(self) -> Monitor | None:
        """The monitor of the present or last training."""
        return self._doctor.monitor

    # ---- what Lightning calls ------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        opened, self._open = self._open, {}
        self._trained, self._validated = opened.get("train", False), opened.get("val", False)
        self._doctor.begin(pl_module, list(trainer.optimizers), speaks=trainer.is_global_zero)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._close_epoch(trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._close_epoch(trainer)
        self._losses = []

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        if not pl_module.automatic_optimization:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            own = loss.detach()
            self._losses.append(own / scaler.get_scale() if scaler is not None and scaler.is_enabled() else own)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        monitor = self._doctor.monitor
        if monitor is None or not self._doctor.watching:
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if pl_module.automatic_optimization:
            # Lightning has divided the loss by the number of batches that it adds up.
            parts = trainer.accumulate_grad_batches
            self._doctor.note(None if loss is None else loss * parts, batch)
            due = (batch_idx + 1) % parts == 0 or trainer.is_last_batch
        else:
            # Several backward passes in a step are parts of what it minimises.
            self._doctor.note(loss if loss is not None else sum(self._losses) if self._losses else None, batch)
            due = False
        if (monitor.stepped or due) and self._doctor.step():
            self._stop(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self._doctor.watching and not trainer.sanity_checking:
            self._validated = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._trained = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._close_epoch(trainer)
        self._doctor.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._doctor.end()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            self._doctor.end()

    def state_dict(self) -> dict[str, Any]:
        return self._doctor.state_dict()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        # Checkpoints are written before an epoch's last figures are logged; those that are go with it.
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if state is not None:
            state["open"] = {"train": self._trained, "val": self._validated}
            state["logged"] = {name: float(value) for name, value in trainer.callback_metrics.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._open, self._logged = state_dict.get("open", {}), state_dict.get("logged", {})
        self._doctor.load_state_dict(state_dict)

    def _close_epoch(self, trainer: Any) -> None:
        # Only now has the module's own end of the epoch logged its figures too.
        sides = {side for side, over in (("train", self._trained), ("val", self._validated)) if over}
        self._trained = self._validated = False
        if sides:
            logged, self._logged = {**self._logged, **trainer.callback_metrics}, {}
            self._doctor.end_epoch(logged, sides)
            self._stop(trainer)

    def _stop(self, trainer: Any) -> None:
        # Processes that train together look at the same steps, and stop together.
        if trainer.world_size > 1 and self._doctor.may_stop:
            self._doctor.stop = trainer.strategy.reduce_boolean_decision(self._doctor.stop, all=False)
        if self._doctor.stop:
            trainer.should_stop = True

"""The doctor as a callback of the Hugging Face `Trainer`, and so of accelerate's wrappers around model and optimizer.

from wellfit.integrations.transformers import DoctorCallback
doctor = DoctorCallback(report="doctor.html")
Trainer(model, arguments, train_dataset=…, callbacks=[doctor]).train()
for finding in doctor.findings: print(finding)
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wellfit.diagnosis.links import Link
from wellfit.diagnosis.monitor import Monitor
from wellfit.errors import UserError
from wellfit.findings import Finding
from wellfit.integrations.batches import labels_of
from wellfit.integrations.doctor import LOGGER, Doctor
from wellfit.integrations.missing import missing
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint

# What a checkpoint folder holds beside the Trainer's own files.
STATE = "wellfit_doctor.safetensors"


def _callback() -> Any:
    if find_spec("transformers") is None or find_spec("accelerate") is None:
        raise missing("wellfit.integrations.transformers", "transformers and accelerate", "transformers")
    return import_module("transformers").TrainerCallback


if TYPE_CHECKING:
    Callback = object
else:
    Callback = _callback()


class DoctorCallback(Callback):
    """Watches a training by the Hugging Face Trainer, and says in words what is wrong, once each, as it arises.

    classes: number of classes; taken from the logits when not given. every: of so many steps one is watched.
    report: HTML file that is written when the training ends; after Ctrl-C, by `close()` or when Python exits.
    stop_on: "warning" or "error" asks the Trainer to stop once there is such a finding; None: never.
    figures: the names of `train_accuracy`, `val_loss`, `val_accuracy` among the Trainer's metrics; `eval_loss` and
        `eval_accuracy` are found without. The training accuracy is counted on the way, where labels are class numbers.
    targets: inputs of the model → labels (N,), where the inputs have no "labels", "label" or "target".

    The loss is the one in the model's output. Where it is made outside the model (label smoothing, a
    `compute_loss_func`, an own `compute_loss`) or the Trainer compiles the model, call `doctor.follow(trainer)` before
    the training; UserError at the first step where that is missing. What needs answers of shape (images, classes) is
    not judged for models that give others, such as language models: `unjudged` says so.
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
        self._own_targets = targets is not None
        self._trainer: Any = None
        self._own_loss: Callable[..., Any] | None = None
        self._handles: list[Any] = []
        self._parts: list[Tensor] = []
        self._batch: dict[str, Any] = {}
        self._shared = False
        self._trained, self._metrics = False, dict[str, float]()

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

    def follow(self, trainer: Any) -> None:
        """Take the loss and the labels from this Trainer's `compute_loss`, wherever the loss is made."""
        if not callable(getattr(trainer, "compute_loss", None)):
            raise UserError(
                f"the doctor follows a transformers.Trainer, got {type(trainer).__name__}; pass the Trainer"
            )
        self._trainer = trainer

    def close(self) -> None:
        """Let go of the model and write the report, where a training broke off; nothing after one that ended."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._own_loss is not None:
            del self._trainer.compute_loss
            self._own_loss = None
        atexit.unregister(self.close)
        self._doctor.end()

    def __enter__(self) -> DoctorCallback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what the Trainer calls ----------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        self._parts, self._batch, self._trained, self._metrics = [], {}, False, {}
        if self._trainer is not None:
            around = getattr(self._trainer, "model_wrapped", model)
            model = around if hasattr(around, "_orig_mod") else model  # hooks within a compiled model are not seen
            self._wrap_loss()
        else:
            self._handles = [
                model.register_forward_pre_hook(Link(self._before), with_kwargs=True),
                model.register_forward_hook(Link(self._after)),
            ]
        if state.global_step:
            self._go_on(args, state)
        self._doctor.begin(model, optimizer, speaks=state.is_world_process_zero)
        if self._doctor.report is not None:
            atexit.register(self.close)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        return self._close_epoch(control)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self._parts = []
        return self._close_epoch(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if not self._doctor.watching:
            return control
        if not self._parts:
            self.close()
            raise UserError(
                "the doctor saw no loss in the model's output, since it is made outside the model or the model is "
                "compiled; call doctor.follow(trainer) before trainer.train()"
            )
        # Losses of micro-batches that share one divisor add up; the others are means of their own.
        total = torch.stack(self._parts).sum() if self._shared else torch.stack(self._parts).mean()
        self._doctor.note(total, self._batch)
        if self._doctor.step() and self._doctor.stop:
            control.should_training_stop = True
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trained = True

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        if self._doctor.watching:
            self._metrics = dict(metrics or {})

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = _checkpoint(args, state)
        if self._doctor.watching and state.is_world_process_zero and folder.is_dir():
            try:
                kept = {"trained": self._trained, "metrics": {n: float(v) for n, v in self._metrics.items()}}
                save_checkpoint(folder / STATE, {**self._doctor.state_dict(), **kept})
            except UserError as error:  # the Trainer's own checkpoint is worth more
                LOGGER.warning("%s", error)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._close_epoch(control)
        self.close()

    # ---- what is seen --------------------------------------------------------------------------------

    def _before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._batch = self._labelled(kwargs)
            self._shared = kwargs.get("num_items_in_batch") is not None

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            loss = output.get("loss") if isinstance(output, Mapping) else output[0] if _is_row(output) else None
            self._keep(loss)

    def _labelled(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs, for the user's own function of them; else what holds the labels."""
        return dict(inputs) if self._own_targets else {"labels": labels_of(inputs)}

    def _keep(self, loss: Any) -> None:
        if isinstance(loss, Tensor) and loss.requires_grad and loss.numel():
            self._parts.append(loss.detach().float().mean())

    def _wrap_loss(self) -> None:
        own = self._own_loss = self._trainer.compute_loss

        def seen(model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            batch = self._labelled(inputs)  # the Trainer may take labels out of the inputs
            found = own(model, inputs, *rest, **named)
            if torch.is_grad_enabled():
                self._batch = batch
                divided = self._trainer.model_accepts_loss_kwargs or self._trainer.compute_loss_func is not None
                self._shared = divided and named.get("num_items_in_batch") is not None
                self._keep(found[0] if isinstance(found, tuple) else found)
            return found

        self._trainer.compute_loss = seen

    def _close_epoch(self, control: Any) -> Any:
        sides = {side for side, over in (("train", self._trained), ("val", bool(self._metrics))) if over}
        if sides and self._doctor.watching:
            self._doctor.end_epoch(self._metrics, sides)
            if self._doctor.stop:
                control.should_training_stop = True
        self._trained, self._metrics = False, {}
        return control

    def _go_on(self, args: Any, state: Any) -> None:
        try:
            kept = load_checkpoint(_checkpoint(args, state) / STATE)
        except UserError as error:
            LOGGER.warning("the doctor begins anew: %s", error)
            return
        if kept is not None:
            self._doctor.load_state_dict(kept)
            self._trained, self._metrics = kept["trained"], kept["metrics"]


def _is_row(output: Any) -> bool:
    return isinstance(output, list | tuple) and len(output) > 0


def _checkpoint(args: Any, state: Any) -> Path:
    """The folder of the Trainer's checkpoint at the present step."""
    given = args.resume_from_checkpoint
    name = f"checkpoint-{state.global_step}"
    if isinstance(given, str) and Path(given).name == name and not (Path(args.output_dir) / name).is_dir():
        return Path(given)
    return Path(args.output_dir) / name
